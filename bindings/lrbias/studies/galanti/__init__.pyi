from ._scales import Axis as Axis
from ._scales import Map as Map
from ._scales import Scale as Scale
from ._scales import paper as paper
from ._scales import small as small
from ._study import Galanti as Galanti
