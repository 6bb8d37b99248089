"""What is found in recorded series: jumps of the rank, plateaus."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
