"""The console command, and python -m lrbias.

Little is imported before Ctrl-C ends the process quietly. Within a command it is an exception, so that what was begun
is undone.
"""

import os
import signal


def main() -> None:
    """Load the commands and carry one out."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:
        signal.signal(signal.SIGINT, _leave)
    from lrbias.cli import main as command

    try:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    finally:
        if usual:
            signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: object) -> None:
    """Nothing is begun, or everything is done. An exception would be told with the lines of whatever is imported."""
    try:
        os.write(2, b"lrbias: interrupted\n")
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    main()
