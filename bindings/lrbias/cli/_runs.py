"""The commands about single runs: run, resume, plot, info, compare."""

import sys
import time
import warnings
from pathlib import Path

from lrbias.cli._console import (
    EXIT_DIVERGED,
    EXIT_STORE,
    File,
    Flag,
    Numbers,
    Output,
    Pair,
    Place,
    Sizes,
    Store,
    Whole,
    Words,
    complain,
    show,
)


def run(
    file: File | None = None,
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
    eigenvalues: Numbers = None,
    inputs: str | None = None,
    outputs: str | None = None,
    whiten: bool | None = None,
    center: bool | None = None,
    observed: str | None = None,
    fraction: float | None = None,
    entries: Whole = None,
    mask_seed: Whole = None,
    pairs: bool | None = None,
    mean: bool | None = None,
    network: str | None = None,
    widths: Sizes = None,
    depth: Whole = None,
    init: str | None = None,
    gamma: float | None = None,
    std: float | None = None,
    parametrization: str | None = None,
    output_scale: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    seed: Whole = None,
    dtype: str | None = None,
    method: str | None = None,
    lr: float | None = None,
    dt: float | None = None,
    scheme: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    ridge: float | None = None,
    lr_schedule: str | None = None,
    ridge_schedule: str | None = None,
    batch: Whole = None,
    replacement: bool | None = None,
    sampling_seed: Whole = None,
    epsilon: float | None = None,
    inner: str | None = None,
    tied: bool | None = None,
    tolerance: float | None = None,
    cutoff: float | None = None,
    max_rank: Whole = None,
    check_every: Whole = None,
    steps: Whole = None,
    checkpoint_every: Whole = None,
    threads: Whole = None,
    device: str | None = None,
    compress: str | None = None,
    every: Whole = None,
    metrics: Words = None,
    directions: Whole = None,
    numerical_threshold: float | None = None,
    relative_threshold: float | None = None,
    degenerate: float | None = None,
    absorbing_balance: float | None = None,
    absorbing_slack: float | None = None,
    absorbing_alpha: float | None = None,
    absorbing_bound: float | None = None,
    leading: Whole = None,
    eigen_tolerance: float | None = None,
    stop_loss: float | None = None,
    stop_gradient: float | None = None,
    stop_plateaus: Whole = None,
    store: Store = None,
    figures: bool = True,
    format: Words = None,
    dry_run: Flag = False,
    json: Flag = False,
    quiet: Flag = False,
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
    eigenvalues
        Eigenvalues of a symmetric target, instead of a teacher's.
    inputs
        Fit data instead of a target: a matrix (.npy or a table) with a sample in each row.
    outputs
        What the network is to make of these samples, in as many rows.
    whiten
        Whiten the inputs, so that their covariance is the identity.
    center
        Subtract the means of inputs and outputs.
    observed
        Fit only these entries: a mask (.npy, table or image, not 0 where observed), or the observed.npz of a run.
    fraction
        Fit only this share of the entries, drawn at random.
    entries
        Fit only so many entries, drawn at random.
    mask_seed
        Seed of the observed entries.
    pairs
        Draw entries of a square target in pairs (i, j), (j, i); fraction and entries count pairs.
    mean
        Divide the loss of observed entries by their number.
    network
        Start from this checkpoint (.npz) of a run.
    widths
        Layer widths n_0 … n_N; n_0 columns and n_N rows of the target.
    depth
        Number of layers, all as wide as the target's larger side; of glrl 2 unless given.
    init
        How the network starts: gaussian, identical, perturbed, orthogonal, balanced or symmetric (U Uᵀ, depth 2).
    gamma
        Of a gaussian start: standard deviation w^-gamma, w the width of a layer; 1.5.
    std
        Of a gaussian start: the standard deviation itself, instead of gamma.
    parametrization
        Of a gaussian start: standard, or ntk (layers are w/√n; gamma is then 1/2 unless given).
    output_scale
        The network's output is so many times the product of its layers; the larger, the lazier its training.
    alpha
        Of the other starts: the scale of every layer; of a symmetric one, the entries of U have deviation alpha/√n.
    beta
        Of a perturbed start: W_1 = (alpha - beta) I, the other layers alpha I.
    seed
        Seed of the start.
    dtype
        float64 or float32.
    method
        gd (gradient descent), flow (gradient flow), sgd (single entries), glrl (greedy low-rank learning) or linearized
        (gradient descent on the network linearised at its start).
    lr
        Learning rate of gd, sgd and linearized.
    dt
        Time step of flow; of the scheme dopri5 only the time between two losses.
    scheme
        Scheme of flow: rk4, heun, euler, or dopri5, which chooses its steps.
    rtol
        Error of a step of dopri5 relative to the weights; 1e-6.
    atol
        Error of a step of dopri5 beside that; 0.
    ridge
        λ: minimise the loss + λ Σ ‖W_i‖².
    lr_schedule
        How the learning rate changes: anneal:factor=0.1,start=0,stop=1000 (shape=geometric or linear),
        steps:factor=0.1,at=500+800 or periodic:factor=0.1,period=200,share=0.5.
    ridge_schedule
        How the ridge changes, in the same words.
    batch
        Entries that a step of sgd draws.
    replacement
        Draw them with replacement, or a fresh permutation for each epoch.
    sampling_seed
        Seed of what sgd draws.
    epsilon
        Of glrl: strength of a new direction; 1e-6.
    inner
        Of glrl: gd or flow, which trains in a phase with its own settings.
    tied
        Of glrl: learn W = U Uᵀ, for a symmetric loss.
    tolerance
        Of glrl: gradient norm at which a phase ends, relative to the slope at W = 0; 1e-9.
    cutoff
        Of glrl: slope of the last direction that is learnt, relative to that at W = 0; 1e-6.
    max_rank
        Of glrl: end after so many phases.
    check_every
        Of glrl: iterations between two looks at the gradient.
    steps
        Number of iterations; of glrl at most so many, by default as many as it takes.
    checkpoint_every
        Iterations between checkpoints.
    threads
        Threads that share the products of a step; pays from about n = 200 on.
    device
        cpu, cuda (an NVIDIA GPU, extra `cuda`) or auto: a GPU where one can be used, else the CPU. Same bits on each.
    compress
        auto: train fewer numbers where target and start allow it exactly; off: always whole layers.
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
    absorbing_balance
        ε_1 of the sets of the metric absorbing_rank.
    absorbing_slack
        ε_2 of these sets.
    absorbing_alpha
        α of these sets.
    absorbing_bound
        C of these sets.
    leading
        How many eigenvalues sharpness, negative_curvature and ntk_eigenvalues record.
    eigen_tolerance
        How exact these are: their residuals relative to the largest.
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
    from lrbias.experiments import Experiment, read_toml
    from lrbias.forecasts import forecast
    from lrbias.settings import check_formats
    from lrbias.storage import check_new
    from lrbias.system import announce_compilation
    from lrbias.training import train

    formats = check_formats(format or ("png", "pdf"))
    if metrics is not None:
        flags["metrics"] = _parse_metrics(metrics)
    settings = Experiment(**_merge(read_toml(file) if file else {}, flags))
    with warnings.catch_warnings():
        warnings.showwarning = lambda sentence, *_: print(f"warning: {sentence}", file=sys.stderr)
        arguments = settings.arguments()
    if store is None:
        store = Path("runs") / time.strftime(f"{arguments['method'].name}-%Y%m%d-%H%M%S")
    check_new(store)
    expected = None
    announce_compilation(not quiet)
    if dry_run or not quiet:
        expected = forecast(**{key: arguments[key] for key in FORECAST_ARGUMENTS})
        print(expected, file=sys.stderr)
    if dry_run:
        show(expected.as_dict(), "", json)
        return 0
    result = train(**arguments, store=store, progress=not quiet, forecast=False)
    return _finish(result, expected, store / "figures" if figures else None, formats, json)


FORECAST_ARGUMENTS = ("problem", "network", "method", "steps", "record", "checkpoint_every", "compress", "device")
_NOT_SETTINGS = ("file", "store", "figures", "format", "dry_run", "json", "quiet", "metrics")


def resume(
    path: Place,
    /,
    *,
    steps: Whole = None,
    from_checkpoint: Whole = None,
    threads: Whole = None,
    device: str | None = None,
    figures: bool = True,
    format: Words = None,
    json: Flag = False,
    quiet: Flag = False,
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
    device
        cpu, cuda or auto; by default as before. The bits do not depend on it.
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
    chosen = {"from_checkpoint": from_checkpoint, "threads": threads, "device": device}
    result = resume_run(path, steps, progress=not quiet, **chosen)
    return _finish(result, None, path / "figures" if figures else None, formats, json)


def plot(
    path: Place,
    /,
    *,
    output: Output = None,
    format: Words = None,
):
    """Draw the figures of a run or of a sweep, finished or not; also of a model that was tracked.

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
        from lrbias.plots import sweep_plots

        paths = sweep_plots.save(lb.open_sweep(path), output, formats)
    else:
        paths = plots.save(lb.open(path), output, formats)
    for written in paths:
        print(written)
    return 0


def info(path: Place, /, *, check: Flag = False, json: Flag = False):
    """Say what a run or a sweep is and how far it got.

    Parameters
    ----------
    path
        The run directory or the folder of a sweep.
    check
        Read everything that was committed and verify its checksums.
    json
        Print facts as JSON on stdout.
    """
    import lrbias as lb

    if (path / "sweep.json").is_file():
        return _sweep_info(lb.open_sweep(path), check, json)
    opened = lb.open(path)
    damaged = opened.check() if check else []
    if damaged:
        show({"path": str(path), "damaged": damaged}, "\n".join(damaged), json)
        return EXIT_STORE
    facts = opened.summary()
    if check:
        facts["damaged"] = []
    if json:
        facts.update(settings=opened.settings, made_with=opened.info, names=opened.names)
    intact = "\n  everything that was committed is intact" if check else ""
    show(facts, repr(opened) + intact, json)
    return 0


def _sweep_info(made, check, json):
    """The same for a sweep. Only runs that are begun can be checked."""
    begun = [name for name, status in made.statuses().items() if status not in ("missing", "failed")]
    damaged = [sentence for name in begun for sentence in made[name].check()] if check else []
    facts = {"path": str(made.path), "varied": made.varied, "runs": len(made), **made.counts()}
    text = repr(made)
    if check:
        facts["damaged"] = damaged
        text += "\n" + ("\n".join(damaged) or "  everything that was committed is intact")
    show(facts, text, json)
    return EXIT_STORE if damaged else 0


def compare(
    first: Place,
    /,
    *others: Place,
    output: Output = None,
    format: Words = None,
    json: Flag = False,
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
    show(facts, text, json)
    return 0


def _merge(keys, flags):
    """File and flags; a flag takes out the keys of the file that it makes meaningless."""
    from lrbias.methods import OWN

    replaced = {"widths": ("depth",), "depth": ("widths",)}
    entries = ("observed", "fraction", "entries")
    replaced.update({key: [other for other in entries if other != key] for key in entries})
    replaced["observed"] += ["mask_seed", "pairs"]
    if "method" in flags and flags["method"] != keys.get("method"):
        own = OWN.get(flags["method"], ())
        replaced["method"] = sorted({key for keys in OWN.values() for key in keys} - set(own))
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
        facts["forecast_outcomes"] = expected.outcomes
    written = facts["figures"] = _figures(result, figures, formats) if figures else []
    lines = [repr(result), *_escape_table(facts)]
    if written:
        lines.append(f"figures: {figures}")
    show(facts, "\n".join(lines), as_json)
    if result.status == "diverged":
        print(f"lrbias: diverged: {result.detail}.", file=sys.stderr)
        return EXIT_DIVERGED
    return 0


def _figures(run, folder, formats):
    """Draw the figures of a run that has ended; returns the paths. Whatever goes wrong there, the run is complete."""
    from lrbias.system import shell_command

    try:
        from lrbias import plots

        return [str(path) for path in plots.save(run, folder, formats)]
    except Exception as error:
        reason = str(error).rstrip(".")
        complain(f"warning: {reason}. The run is complete; to draw its figures: {shell_command('plot', run.path)}")
        return [str(path) for path in getattr(error, "paths", [])]


def _escape_table(facts):
    measured, expected = facts.get("escape_steps"), facts.get("forecast_escape_steps")
    if not measured or not expected:
        return []
    from lrbias.forecasts import told_escape

    lines = ["  mode   half learnt at step  forecast"]
    rows = zip(measured, expected, facts["forecast_outcomes"], strict=False)
    for i, (step, forecast, outcome) in enumerate(rows, start=1):
        told = told_escape(forecast, outcome, facts["steps"])
        lines.append(f"  {i:<6} {step if step is not None else 'not yet':<20} {told}")
    return lines
