from ._study import Greedy as Greedy
