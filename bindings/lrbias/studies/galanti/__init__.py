"""Ranks of real networks under SGD with weight decay (Galanti et al.)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
