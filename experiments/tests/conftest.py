"""Threads of all tests here."""

import os

# Before NumPy is loaded: most matrices are small, and threads that spin while they wait cost many times what they save.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
