"""Reading what was recorded: runs of deep linear networks, tracked models; the network of any step."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
