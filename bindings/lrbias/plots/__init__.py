"""Figures of runs and of sweeps, and how all of them look."""

import lazy_loader

from lrbias.errors import FigureError

try:
    import matplotlib  # noqa: F401  where everything about figures is imported
except (ValueError, ImportError) as error:  # for one an MPLBACKEND that is none
    raise FigureError(f"figures cannot be drawn: matplotlib does not load ({error}).") from error

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
