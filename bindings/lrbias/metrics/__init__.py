"""What is measured of a network while it is trained, and when.

A metric is a row of `METRICS`. To add one: write a function of a `NetworkState` that returns its values in the order
of its quantities, and register it with `@metric`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
