"""The commands about runs that are there: resume, plot, info, compare."""

from lrbias.cli._console import (
    EXIT_STORE,
    Flag,
    IntegerFlag,
    Output,
    Place,
    Words,
    show,
)
from lrbias.cli._ending import finish


def resume(  # noqa: PLR0913  its flags
    path: Place,
    /,
    *,
    steps: IntegerFlag = None,
    from_checkpoint: IntegerFlag = None,
    threads: IntegerFlag = None,
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
    result = resume_run(
        path, steps, from_checkpoint=from_checkpoint, progress=not quiet, threads=threads, device=device
    )
    return finish(result, None, path / "figures" if figures else None, formats, json)


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
