from ._study import Regimes as Regimes
