"""Floating-point errors: inf and NaN are results here, and an underflow is 0, whatever NumPy was told to raise."""

import numpy as np

# A decorator: NumPy's own settings for as long as a function runs. It adds a frame to the stack.
usual_errors = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
