"""What a run will cost and show, before it starts: time and size, stability limits, escapes of modes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
