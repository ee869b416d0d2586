"""These are benchmarks of ntkfast; see bench/README.md."""
