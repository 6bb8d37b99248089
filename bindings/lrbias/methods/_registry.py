"""The methods by name, and the settings of each."""

from lrbias.methods._flow import GradientFlow
from lrbias.methods._gd import GD
from lrbias.methods._glrl import GLRL
from lrbias.methods._linearized import Linearized
from lrbias.methods._sgd import SGD

METHODS = {method.name: method for method in (GD, GradientFlow, SGD, GLRL, Linearized)}
OWN = {name: tuple(method.model_fields) for name, method in METHODS.items()}  # the settings that each has
INNER = ("gd", "flow")
# those of a phase's method stand beside its own; the depth of other methods is that of the network
OWN["glrl"] = tuple(dict.fromkeys(key for name in ("glrl", *INNER) for key in OWN[name] if key != "depth"))
