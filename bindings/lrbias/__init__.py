"""lrbias: watch gradient descent learn low-rank solutions.

    import lrbias as lb

    target  = lb.teacher(shape=(100, 100), rank=10, depth=3, spectral_norm=10.0, seed=0)
    network = lb.Network.gaussian(widths=(100,) * 4, gamma=1.5, seed=1)
    run     = lb.train(lb.Factorization(target), network, lb.GD(lr=1e-3), steps=50_000, store="runs/gd")

Names are imported when they are first used (`__init__.pyi` says from where), so that `lrbias --help` and a plain import
stay quick. No room may have the name of a function in here: importing it would put the room in the function's place.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
