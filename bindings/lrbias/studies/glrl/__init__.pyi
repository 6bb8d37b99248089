from ._study import Study as Study
from ._tables import GreedyFindings as GreedyFindings
