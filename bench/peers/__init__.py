"""Other packages timed beside ntkfast; see bench/peers/README.md."""
