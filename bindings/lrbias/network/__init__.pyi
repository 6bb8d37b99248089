from ._identity import Perturbed as Perturbed
from ._identity import ScaledIdentity as ScaledIdentity
from ._initialization import INITIALIZATIONS as INITIALIZATIONS
from ._initialization import Drawn as Drawn
from ._initialization import Initialization as Initialization
from ._initialization import Start as Start
from ._network import Network as Network
from ._widths import as_widths as as_widths
