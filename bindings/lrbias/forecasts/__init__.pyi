from ._escapes import escapes as escapes
from ._forecast import MODES as MODES
from ._forecast import Forecast as Forecast
from ._forecast import cost as cost
from ._forecast import first_warnings as first_warnings
from ._forecast import forecast as forecast
from ._forecast import seconds_of as seconds_of
from ._forecast import told_escape as told_escape
