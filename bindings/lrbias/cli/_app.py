"""The console command.

Exit codes: 0 done · 1 a run directory, a figure or the output cannot be read or written · 2 input that is not accepted
· 3 the run diverged · 128 + n ended by signal n, after everything was saved: 130 by Ctrl-C, 143 by SIGTERM, 138 by
SIGUSR1 and 129 by SIGHUP.
"""

import contextlib
import signal
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group

from lrbias.cli._console import EXIT_INPUT, EXIT_STORE, complain
from lrbias.system import Careful

app = App(
    name="lrbias",
    help="Watch gradient descent learn low-rank solutions.",
    version=lambda: __import__("lrbias").__version__,
    help_format="plaintext",
    group_parameters=Group("Output and other options", sort_key=99),
    suppress_keyboard_interrupt=False,  # ours says what was saved
)
COMMANDS = {  # and where each is, which is imported when it is asked for
    "run": "_run",
    "resume": "_runs",
    "init": "_files",
    "schema": "_files",
    "sweep": "_studies",
    "reproduce": "_reproduce",
    "plot": "_runs",
    "info": "_runs",
    "compare": "_runs",
    "report": "_studies",
    "warmup": "_warmup",
}
for name, module in COMMANDS.items():
    own_help = {"help_flags": ()} if name == "reproduce" else {}  # that of a study shows its own flags
    app.command(f"lrbias.cli.{module}:{name}", name=name, **own_help)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console command: one sentence on stderr and an exit code for everything that can go wrong."""
    output, messages = Careful(sys.stdout), Careful(sys.stderr)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(messages):
        try:
            code = _command(arguments)
            output.flush()
            if output.lost:
                complain(f"the output cannot be written ({output.lost}); what was stored is complete.")
                code = code or EXIT_STORE
        finally:
            messages.flush()
            for stream in (output, messages):
                stream.discard()
    sys.exit(code)


def _command(arguments):
    """Carry out a command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("--help", "-h"):
        for name in COMMANDS:  # what they are for stands in their modules
            app[name]
    try:
        return app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        ours = _expected(error.__cause__) is not None  # a converter of ours, wrapped by the parser
        complain(_renamed(words) or " ".join(str(error.__cause__ if ours else error).split()))
        return EXIT_INPUT
    except KeyboardInterrupt as error:
        complain(str(error) or "interrupted")
        return 128 + getattr(error, "signal", signal.SIGINT)
    except Exception as error:
        code = _expected(error)
        if code is None:
            raise
        complain(str(error))
        return code


def _renamed(words):
    """A sentence about the first flag of `lrbias run` that has another name now; None where there is none."""
    from lrbias.settings import RENAMED_SETTINGS

    flags = {f"--{before}": f"--{now.replace('_', '-')}" for before, now in RENAMED_SETTINGS.items()}
    given = [word.partition("=")[0] for word in words]
    found = [flag for flag in given if flag in flags] if given[:1] == ["run"] else []
    return f"{found[0]} is not accepted: it is called {flags[found[0]]} now." if found else None


def _expected(error):
    """The exit code of our own errors, None for any other."""
    from lrbias.errors import FigureError, InvalidInput, RunsFailed, StoreError

    if isinstance(error, InvalidInput) or (isinstance(error, ImportError) and error.name == "numba"):
        return EXIT_INPUT
    return EXIT_STORE if isinstance(error, (StoreError, FigureError, RunsFailed)) else None
