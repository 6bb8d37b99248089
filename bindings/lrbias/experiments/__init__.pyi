from ._experiment import INITIAL as INITIAL
from ._experiment import Experiment as Experiment
from ._experiment import describe as describe
from ._experiment import parts as parts
from ._experiment import read_toml as read_toml
from ._experiment import to_toml as to_toml
from ._stop import Stop as Stop
