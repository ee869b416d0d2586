"""Other packages are timed here beside ntkfast; see bench/peers/README.md."""
