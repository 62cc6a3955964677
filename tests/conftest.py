"""One thread for each process of the tests: pytest uses every core already, and sums are the same to the bit."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch are imported
