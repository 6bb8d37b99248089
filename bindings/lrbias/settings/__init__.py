"""Typed, frozen settings, checks of arrays, and the sentence for a refused value."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
