"""The compiled core of lrbias: arrays in, arrays out.

    layout     layer widths <-> one flat parameter vector
    status     what a kernel returns, and the sentence that each code means
    objective  what a kernel minimises beside a whole target: entries, measurements, how they are drawn
    adaptive   what an integrator that chooses its steps is asked, and what it keeps between calls
    tableau    explicit Runge-Kutta methods as data
    formulas   formulas on scalars and short vectors, compiled by each target for itself
    random     counter-based random numbers
    reference  the specification: every kernel in plain NumPy
    cpu        the same names, compiled for the CPU; cpu.workspace: their scratch, allocated once
    cuda       the same names, compiled for NVIDIA GPUs (extra `cuda`)

Importing this package compiles nothing and does not import Numba: `lrcore.cpu` and `lrcore.cuda` do, and compile on
first call.
"""

from lrcore import adaptive, layout, objective, status, tableau

__all__ = ["adaptive", "layout", "objective", "status", "tableau"]
