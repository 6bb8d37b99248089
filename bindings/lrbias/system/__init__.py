"""What the operating system gives: files, locks, archives, paths, streams, threads, signals, compilation, progress."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
