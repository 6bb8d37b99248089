"""Arguments → the same settings → the same functions as in Python.

Exit codes: 0 done · 1 a run directory cannot be read or written · 2 input that is not accepted · 3 the run diverged ·
130 and 143 interrupted by Ctrl-C and SIGTERM, after everything was saved.
"""

import json
import sys
import time
from math import isfinite
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

EXIT_STORE, EXIT_INPUT, EXIT_DIVERGED = 1, 2, 3

app = App(
    name="lrbias",
    help="Watch gradient descent learn low-rank solutions.",
    version=lambda: __import__("lrbias").__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # ours says what was saved
)


def _whole(kind, tokens):
    """Integers only: the parser's own conversion would round 1.5."""
    from lrbias.errors import InvalidInput

    try:
        numbers = tuple(int(token.value) for token in tokens)
    except ValueError:
        value = " ".join(token.value for token in tokens)
        raise InvalidInput(f"{tokens[0].keyword} = {value} is not accepted: expected integers.") from None
    return numbers[0] if len(numbers) == 1 and kind is int else numbers


Whole = Annotated[int | None, Parameter(converter=_whole)]
Pair = Annotated[tuple[int, int] | None, Parameter(converter=_whole)]
Words = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative="")]
Sizes = Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True, negative="", converter=_whole)]
Numbers = Annotated[tuple[float, ...] | None, Parameter(consume_multiple=True, negative="")]
Json = Annotated[bool, Parameter(negative="")]


@app.command
def run(
    file: Path | None = None,
    /,
    *,
    target: str | None = None,
    crop: Pair = None,
    shape: Pair = None,
    rank: Whole = None,
    teacher_depth: Whole = None,
    teacher_seed: Whole = None,
    scale: float | None = None,
    values: Numbers = None,
    network: str | None = None,
    widths: Sizes = None,
    depth: Whole = None,
    gamma: float | None = None,
    seed: Whole = None,
    dtype: str | None = None,
    method: str | None = None,
    lr: float | None = None,
    dt: float | None = None,
    scheme: str | None = None,
    steps: Whole = None,
    checkpoint_every: Whole = None,
    threads: Whole = None,
    every: Whole = None,
    metrics: Words = None,
    directions: Whole = None,
    numerical_threshold: float | None = None,
    relative_threshold: float | None = None,
    degenerate: float | None = None,
    stop_loss: float | None = None,
    stop_gradient: float | None = None,
    stop_plateaus: Whole = None,
    store: Annotated[Path | None, Parameter(alias="-o")] = None,
    figures: bool = True,
    format: Words = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
):
    """Train a network on a target, log everything, draw the figures.

    Without arguments: the protocol's run (n = 100, rank 10, depth 3, GD with lr = 1e-3, 50 000 steps).

    Parameters
    ----------
    file
        A TOML file with the same words as these flags; flags win over it.
    target
        Fit this matrix: .npy, .csv, .tsv, .txt or an image (read as grey).
    crop
        Rows and columns to cut from the middle of the target file.
    shape
        Rows and columns of the teacher's matrix.
    rank
        Rank of the teacher.
    teacher_depth
        Depth of the teacher; by default that of the network, at least 2.
    teacher_seed
        Seed of the teacher.
    scale
        Spectral norm of the target; 10 for a teacher, as it is for a file.
    values
        Singular values of the target, instead of a teacher's.
    network
        Start from this checkpoint (.npz) of a run.
    widths
        Layer widths n_0 … n_N; n_0 columns and n_N rows of the target.
    depth
        Number of layers, all as wide as the target's larger side.
    gamma
        Gaussian start with standard deviation w^-gamma, w the width of a layer.
    seed
        Seed of the start.
    dtype
        float64 or float32.
    method
        gd (gradient descent) or flow (gradient flow).
    lr
        Learning rate of gd.
    dt
        Time step of flow.
    scheme
        Scheme of flow: rk4, heun or euler.
    steps
        Number of iterations.
    checkpoint_every
        Iterations between checkpoints.
    threads
        Threads that share the products of a step; pays from about n = 200 on.
    every
        Iterations between records.
    metrics
        Metrics to record: names, name=interval, all or none.
    directions
        How many leading singular directions are compared with the target's.
    numerical_threshold
        numerical_rank counts singular values above it.
    relative_threshold
        relative_rank counts singular values above it times the largest.
    degenerate
        Target values closer than this, relatively, share one subspace.
    stop_loss
        Stop when the loss is at most this.
    stop_gradient
        Stop when the gradient norm is at most this (looked at every record).
    stop_plateaus
        Stop on this plateau of the effective rank.
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
    flags = {key: value for key, value in locals().items() if value is not None and key not in _NOT_SETTINGS}
    from lrbias import experiment
    from lrbias.forecasting import forecast
    from lrbias.settings import check_formats
    from lrbias.store import check_new
    from lrbias.training import train

    formats = check_formats(format or ("png", "pdf"))
    if metrics is not None:
        flags["metrics"] = _parse_metrics(metrics)
    settings = experiment.Experiment(**_merge(experiment.read_toml(file) if file else {}, flags))
    arguments = settings.arguments()
    if store is None:
        store = Path("runs") / time.strftime(f"{arguments['method'].name}-%Y%m%d-%H%M%S")
    check_new(store)
    expected = None
    if dry_run or not quiet:
        expected = forecast(**{key: arguments[key] for key in FORECAST_ARGUMENTS})
        print(expected, file=sys.stderr)
    if dry_run:
        _show(expected.as_dict(), "", json)
        return 0
    result = train(**arguments, store=store, progress=not quiet, forecast=False)
    return _finish(result, expected, store / "figures" if figures else None, formats, json)


FORECAST_ARGUMENTS = ("problem", "network", "method", "steps", "record", "checkpoint_every")
_NOT_SETTINGS = ("file", "store", "figures", "format", "dry_run", "json", "quiet", "metrics")


@app.command
def resume(
    path: Path,
    /,
    *,
    steps: Whole = None,
    from_checkpoint: Whole = None,
    threads: Whole = None,
    figures: bool = True,
    format: Words = None,
    json: Json = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
):
    """Continue a run that was killed or interrupted, or take a finished one further.

    Parameters
    ----------
    path
        The run directory.
    steps
        Total number of iterations; by default as many as were planned.
    from_checkpoint
        Start from this checkpoint instead of the last one; later rows are recomputed with the same bits.
    threads
        Threads that share the products of a step; by default as before.
    figures
        Draw the figures into PATH/figures at the end.
    format
        Figure formats: png, pdf, svg.
    json
        Print facts as JSON on stdout.
    quiet
        Show no progress.
    """
    from lrbias.settings import check_formats
    from lrbias.training import resume as resume_run

    formats = check_formats(format or ("png", "pdf"))
    result = resume_run(path, steps, from_checkpoint=from_checkpoint, progress=not quiet, threads=threads)
    return _finish(result, None, path / "figures" if figures else None, formats, json)


@app.command
def sweep(
    file: Path,
    /,
    *,
    store: Annotated[Path | None, Parameter(alias="-o")] = None,
    workers: Whole = None,
    scheduler: str | None = None,
    shard: str | None = None,
    table: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
):
    """Make a run for every combination of settings. The same command again goes on where it was stopped.

    Parameters
    ----------
    file
        A TOML file with the words of `lrbias run`, and a table [sweep] that gives lists of values to some of them:
        rank = [5, 10]. Values that go together are one key: "depth,teacher_depth" = [[2, 2], [3, 3]].
    store
        The folder of the sweep; by default sweeps/NAME-OF-THE-FILE.
    workers
        Processes, each with one thread; by default one for each core.
    scheduler
        The address of a running Dask scheduler, tcp://HOST:PORT, whose workers see the same folder.
    shard
        i/n: only every n-th run or batch from the i-th on, counted from 0; for job arrays that share the folder.
    table
        Write the table of runs to this .csv or .parquet file, too.
    dry_run
        Say how many runs there are and what they will take, and stop.
    json
        Print the table as JSON on stdout.
    quiet
        Show neither forecast nor progress.
    """
    from lrbias import experiment
    from lrbias.progress import clock
    from lrbias.sweeping import forecast_sweep
    from lrbias.sweeping import sweep as make_sweep
    from lrbias.swept import check_table

    if table:
        check_table(table)
    base = experiment.read_toml(file)
    over = base.pop("sweep", {})
    part = None if shard is None else _parse_shard(shard)
    if dry_run or not quiet:
        expected = forecast_sweep(base, over, workers)
        size, taken = expected["bytes"] / 1e6, clock(expected["seconds"])
        print(f"{expected['runs']} runs, about {taken} and {size:.0f} MB in all", file=sys.stderr)
    if dry_run:
        _show(expected, "", json)
        return 0
    folder = store or Path("sweeps") / file.stem
    made = make_sweep(base, over, folder, workers, scheduler=scheduler, shard=part, progress=not quiet)
    rows = made.table()
    if table:
        made.write(table, rows)
    _show({"path": str(made.path), "runs": rows}, str(made), json)
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        _complain(f"{row['run']}: {row['detail']}")
    return EXIT_STORE if failed else 0


def _parse_shard(text):
    from lrbias.errors import require

    first, slash, count = text.partition("/")
    require(slash and first.isdecimal() and count.isdecimal(), "shard", text, "i/n, two integers with 0 ≤ i < n")
    return int(first), int(count)


@app.command
def plot(path: Path, /, *, output: Annotated[Path | None, Parameter(alias="-o")] = None, format: Words = None):
    """Draw the figures of a run or of a sweep, finished or not.

    Parameters
    ----------
    path
        The run directory or the folder of a sweep.
    output
        Folder for the figures; by default PATH/figures.
    format
        Figure formats: png, pdf, svg.
    """
    import lrbias as lb
    from lrbias import plots
    from lrbias.settings import check_formats

    formats = check_formats(format or ("png", "pdf"))
    output = output or path / "figures"
    if (path / "sweep.json").is_file():
        from lrbias import sweep_plots

        paths = sweep_plots.save(lb.open_sweep(path), output, formats)
    else:
        paths = plots.save(lb.open(path), output, formats)
    for written in paths:
        print(written)
    return 0


@app.command
def info(path: Path, /, *, check: Annotated[bool, Parameter(negative="")] = False, json: Json = False):
    """Say what a run is and how far it got.

    Parameters
    ----------
    path
        The run directory.
    check
        Read everything that was committed and verify its checksums.
    json
        Print facts as JSON on stdout.
    """
    import lrbias as lb

    opened = lb.open(path)
    damaged = opened.check() if check else []
    if damaged:
        _show({"path": str(path), "damaged": damaged}, "\n".join(damaged), json)
        return EXIT_STORE
    facts = opened.summary()
    if check:
        facts["damaged"] = []
    if json:
        facts.update(settings=opened.settings, made_with=opened.info, names=opened.names)
    intact = "\n  everything that was committed is intact" if check else ""
    _show(facts, repr(opened) + intact, json)
    return 0


@app.command
def compare(
    first: Path,
    /,
    *others: Path,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    format: Words = None,
    json: Json = False,
):
    """Compare runs of one target over t = step size · iteration, GD against flow.

    Parameters
    ----------
    first
        A run directory.
    others
        One or more others.
    output
        Folder for the figure; by default none is drawn.
    format
        Figure formats: png, pdf, svg.
    json
        Print the table as JSON on stdout.
    """
    import lrbias as lb
    from lrbias.settings import check_formats

    formats = check_formats(format or ("png", "pdf"))
    compared = lb.compare([first, *others])
    figures = [str(path) for path in compared.save(output, formats)] if output else []
    text = "\n".join([str(compared), *figures])
    orders = {"order": compared.order(), "order_at_checkpoints": compared.order(compared.distance)}
    facts = {"runs": compared.table(), **orders, "same_start": compared.same_start, "figures": figures}
    _show(facts, text, json)
    return 0


@app.command
def report(
    first: Path,
    /,
    *others: Path,
    output: Annotated[Path, Parameter(alias="-o")] = Path("report.html"),
    quiet: Annotated[bool, Parameter(negative="")] = False,
):
    """Write one self-contained HTML page about runs, sweeps or studies.

    Parameters
    ----------
    first
        A run directory, the folder of a sweep, or that of a study made by `lrbias reproduce`.
    others
        More of them; runs of one target are compared.
    output
        The page to write.
    quiet
        Show no progress.
    """
    from lrbias.reporting import report as write_report

    print(write_report([first, *others], output, progress=not quiet))
    return 0


@app.command
def reproduce(
    name: str,
    /,
    *,
    store: Annotated[Path | None, Parameter(alias="-o")] = None,
    steps: Whole = 50_000,
    seeds: Whole = 3,
    workers: Whole = None,
    format: Words = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
):
    """Make the runs of a study and print the evidence for its claims: statistic, definition, value, verdict.

    The same command again goes on where it was stopped.

    Parameters
    ----------
    name
        protocol: ranks, depths and step sizes, GD and gradient flow, several starts; square and rectangular targets.
    store
        The folder of the study; by default reproduced/NAME.
    steps
        Iterations of every run.
    seeds
        Number of starts.
    workers
        Processes, each with one thread; by default one for each core.
    format
        Figure formats: png, pdf, svg.
    dry_run
        Say how many runs there are and what they will take, and stop.
    json
        Print the evidence as JSON on stdout.
    quiet
        Show neither forecast nor progress.
    """
    from lrbias.progress import clock
    from lrbias.reproducing import forecast_study
    from lrbias.reproducing import reproduce as make_study
    from lrbias.settings import check_formats

    formats = check_formats(format or ("png", "pdf"))
    if dry_run or not quiet:
        expected = forecast_study(name, steps, seeds, workers)
        size, taken = expected["bytes"] / 1e6, clock(expected["seconds"])
        print(f"{expected['runs']} runs, about {taken} and {size:.0f} MB in all", file=sys.stderr)
    if dry_run:
        _show(expected, "", json)
        return 0
    evidence = make_study(name, store or Path("reproduced") / name, steps, seeds, workers, progress=not quiet)
    written = [str(path) for path in evidence.save(formats)]
    _show({**evidence.as_dict(), "written": written}, "\n".join([str(evidence), "", *written]), json)
    return 0


def _merge(keys, flags):
    """File and flags; a flag takes out the keys of the file that it makes meaningless."""
    replaced = {"widths": ("depth",), "depth": ("widths",)}
    if flags.get("method", keys.get("method")) != keys.get("method"):
        replaced["method"] = ("lr", "dt", "scheme")
    dropped = {key for flag, others in replaced.items() if flag in flags for key in others}
    return {**{key: value for key, value in keys.items() if key not in dropped}, **flags}


def _parse_metrics(words):
    if list(words) in (["all"], ["none"]):
        return "all" if words[0] == "all" else ()
    if not any("=" in word for word in words):
        return words
    from lrbias.errors import require

    chosen = {}
    for word in words:
        name, _, interval = word.partition("=")
        require(interval.isdecimal(), "metrics", word, "names, or name=interval for every one")
        chosen[name] = int(interval)
    return chosen


def _finish(result, expected, figures, formats, as_json):
    """Figures, facts and the exit code at the end of a run."""
    facts = result.summary()
    if expected is not None:
        facts["forecast_escape_steps"] = expected.escape_steps
    written = []
    if figures:
        from lrbias import plots

        written = [str(path) for path in plots.save(result, figures, formats)]
    facts["figures"] = written
    lines = [repr(result), *_escape_table(facts)]
    if written:
        lines.append(f"figures: {figures}")
    _show(facts, "\n".join(lines), as_json)
    if result.status == "diverged":
        print(f"lrbias: diverged: {result.detail}.", file=sys.stderr)
        return EXIT_DIVERGED
    return 0


def _escape_table(facts):
    measured, expected = facts.get("escape_steps"), facts.get("forecast_escape_steps")
    if not measured or not expected:
        return []
    lines = ["  mode   σᵢ > σ̂ᵢ/2 at step   forecast"]
    for i, (step, forecast) in enumerate(zip(measured, expected, strict=False), start=1):
        lines.append(
            f"  {i:<6} {step if step is not None else 'not yet':<20} {forecast if forecast is not None else 'later'}"
        )
    return lines


def _show(facts, text, as_json):
    if as_json:
        print(json.dumps(_plain(facts), allow_nan=False))
    elif text:
        print(text)


def _plain(value):
    """JSON has no NaN or infinity: they become strings."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def main(arguments=None):
    """The console command: one sentence on stderr and an exit code for everything that can go wrong."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        ours = _expected(error.__cause__) is not None  # a converter of ours, wrapped by the parser
        _complain(" ".join(str(error.__cause__ if ours else error).split()))
        code = EXIT_INPUT
    except KeyboardInterrupt as error:
        _complain(str(error) or "interrupted")
        code = 128 + getattr(error, "signal", 2)
    except Exception as error:
        code = _expected(error)
        if code is None:
            raise
        _complain(str(error))
    sys.exit(code)


def _expected(error):
    """The exit code of our own errors, None for any other."""
    from lrbias.errors import InvalidInput, StoreError

    if isinstance(error, InvalidInput):
        return EXIT_INPUT
    return EXIT_STORE if isinstance(error, StoreError) else None


def _complain(sentence):
    print(f"lrbias: {sentence}", file=sys.stderr)
