"""The command `lrbias run`."""

import sys
import time
import warnings
from pathlib import Path

from lrbias.cli._console import File, Flag, Store, Words, show
from lrbias.cli._ending import finish
from lrbias.cli._settings_flags import with_settings


@with_settings
def run(
    file: File | None = None,
    /,
    *,
    store: Store = None,
    figures: bool = True,
    format: Words = None,
    dry_run: Flag = False,
    json: Flag = False,
    quiet: Flag = False,
    **words,
):
    """Train a network on a target, log everything, draw the figures.

    Without arguments: the protocol's run (n = 100, rank 10, depth 3, GD with lr = 1e-3, 50 000 steps).

        lrbias run --rank 5 --depth 2 --steps 20000 -o runs/small
        lrbias run experiment.toml --method flow --dt 1e-3

    Parameters
    ----------
    file
        An experiment file (lrbias init makes one); flags win over it.
    store
        The run directory to make; by default runs/METHOD-DATE-TIME.
    figures
        Draw the figures into STORE/figures at the end.
    format
        Figure formats: png, pdf, svg.
    dry_run
        Show the forecast and stop.
    json
        Print facts as JSON on stdout.
    quiet
        Show neither forecast nor progress.
    """
    from lrbias.forecasts import forecast
    from lrbias.settings import check_formats
    from lrbias.storage import check_new
    from lrbias.system import announce_compilation
    from lrbias.training import train

    formats = check_formats(format or ("png", "pdf"))
    arguments = _arguments(file, words)
    if store is None:
        store = Path("runs") / time.strftime(f"{arguments['method'].name}-%Y%m%d-%H%M%S")
    check_new(store)
    expected = None
    announce_compilation(not quiet)
    if dry_run or not quiet:
        expected = forecast(**{key: arguments[key] for key in FORECAST_ARGUMENTS})
        print(expected, file=sys.stderr)
    if dry_run and expected is not None:
        show(expected.as_dict(), "", json)
        return 0
    result = train(**arguments, store=store, progress=not quiet, forecast=False)
    return finish(result, expected, store / "figures" if figures else None, formats, json)


FORECAST_ARGUMENTS = ("problem", "network", "method", "steps", "record", "checkpoint_every", "compress", "device")


def _arguments(file, flags):
    """What `lb.train` is called with; warnings about the data are lines on stderr."""
    from lrbias.errors import check
    from lrbias.experiments import Experiment, read_toml

    words = read_toml(file) if file else {}
    check("sweep" not in words, "file", str(file), "an experiment; one with a section [sweep] is for `lrbias sweep`")
    experiment = Experiment.from_words(_merge(words, _given(flags)))
    with warnings.catch_warnings():
        warnings.showwarning = lambda sentence, *_: print(f"warning: {sentence}", file=sys.stderr)
        return experiment.arguments()


def _given(flags):
    """The words of the flags that were given, as an experiment file has them."""
    words = {word: value for word, value in flags.items() if value is not None}
    words |= {word: str(value) for word, value in words.items() if isinstance(value, Path)}
    return words | ({"metrics": _parse_metrics(words["metrics"])} if "metrics" in words else {})


def _merge(words, flags):
    """File and flags; a flag takes out the words of the file that it makes meaningless."""
    from lrbias.experiments import replaced_by

    dropped = set().union(*(replaced_by(flag, {**words, flag: value}) for flag, value in flags.items()))
    return {**{word: value for word, value in words.items() if word not in dropped}, **flags}


def _parse_metrics(words):
    if list(words) in (["all"], ["none"]):
        return "all" if words[0] == "all" else ()
    if not any("=" in word for word in words):
        return words
    from lrbias.errors import check

    chosen = {}
    for word in words:
        name, _, interval = word.partition("=")
        check(interval.isdecimal(), "metrics", word, "names, or name=interval for every one")
        chosen[name] = int(interval)
    return chosen
