from ._study import Chou as Chou
