"""The student: layers W_1 … W_N in one flat vector, and how they are initialized, one file an initialization."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
