"""Benchmarks run with one BLAS thread, as training does; `make bench` runs them alone."""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
