from ._study import Protocol as Protocol
