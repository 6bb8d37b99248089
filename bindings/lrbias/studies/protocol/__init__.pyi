from ._claims import CLAIMS as CLAIMS
from ._claims import DEFINITIONS as DEFINITIONS
from ._claims import count_verdicts as count_verdicts
from ._claims import judge as judge
from ._claims import overall as overall
from ._plots import available as available
