"""Tests of the experiments: ``python -m pytest experiments/tests``."""
