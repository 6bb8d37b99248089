"""The console command.

Exit codes: 0 done · 1 a run directory cannot be read or written · 2 input that is not accepted · 3 the run diverged ·
130 and 143 interrupted by Ctrl-C and SIGTERM, after everything was saved.
"""

import os
import sys

from cyclopts import App, CycloptsError

from lrbias.commands import runs, studies, warming
from lrbias.commands.console import EXIT_INPUT, EXIT_STORE, complain

app = App(
    name="lrbias",
    help="Watch gradient descent learn low-rank solutions.",
    version=lambda: __import__("lrbias").__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # ours says what was saved
)
for command in (
    runs.run,
    runs.resume,
    studies.sweep,
    studies.reproduce,
    runs.plot,
    runs.info,
    runs.compare,
    studies.report,
    warming.warmup,
):
    app.command(command)


def main(arguments=None):
    """The console command: one sentence on stderr and an exit code for everything that can go wrong."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        ours = _expected(error.__cause__) is not None  # a converter of ours, wrapped by the parser
        complain(" ".join(str(error.__cause__ if ours else error).split()))
        code = EXIT_INPUT
    except KeyboardInterrupt as error:
        complain(str(error) or "interrupted")
        code = 128 + getattr(error, "signal", 2)
    except BrokenPipeError:  # who reads, as `head`, has what it wants; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        code = _expected(error)
        if code is None:
            raise
        complain(str(error))
    sys.exit(code)


def _expected(error):
    """The exit code of our own errors, None for any other."""
    from lrbias.errors import InvalidInput, RunsFailed, StoreError

    if isinstance(error, InvalidInput) or (isinstance(error, ImportError) and error.name == "numba"):
        return EXIT_INPUT
    return EXIT_STORE if isinstance(error, (StoreError, RunsFailed)) else None
