"""Benchmarks of ntkfast; see bench/README.md."""
