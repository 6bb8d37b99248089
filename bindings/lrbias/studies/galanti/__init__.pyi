from ._study import Galanti as Galanti
