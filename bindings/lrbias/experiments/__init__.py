"""One run as flat keys: the words of the command line, of a TOML file and of a run's settings are the same."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
