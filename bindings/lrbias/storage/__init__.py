"""What is kept of runs: run directories, batch files, memory; the log of rows on their way there."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
