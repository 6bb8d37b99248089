"""The commands about many runs: sweep, reproduce, report."""

from pathlib import Path
from typing import cast

from lrbias.cli._console import (
    EXIT_STORE,
    File,
    Flag,
    Output,
    Place,
    Store,
    Whole,
    Words,
    complain,
    show,
    show_forecast,
)


def sweep(
    file: File,
    /,
    *,
    store: Store = None,
    workers: Whole = None,
    device: str | None = None,
    scheduler: str | None = None,
    shard: str | None = None,
    table: Place | None = None,
    dry_run: Flag = False,
    json: Flag = False,
    quiet: Flag = False,
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
        Processes, each with one thread; by default one for each core, and one for a GPU.
    device
        cpu, cuda or auto, instead of what the file says. A sweep that was begun on one may go on, on another.
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
    from lrbias.errors import RunsFailed
    from lrbias.experiments import read_toml
    from lrbias.sweeps import check_table, forecast_sweep
    from lrbias.sweeps import sweep as make_sweep

    if table:
        check_table(table)
    base = read_toml(file)
    over = base.pop("sweep", {})
    part = None if shard is None else _parse_shard(shard)
    if dry_run or not quiet:
        here = device if scheduler is None else "cpu"  # what the scheduler's workers have is not known
        show_forecast(forecast_sweep(base, over, workers, here), json, only=dry_run)
    if dry_run:
        return 0
    folder = store or Path("sweeps") / file.stem
    try:
        made = make_sweep(
            base, over, folder, workers, scheduler=scheduler, shard=part, progress=not quiet, device=device
        )
    except RunsFailed as error:  # the table says why, run by run
        made = error.sweep
    rows = made.table()
    if table:
        made.write(table, rows)
    show({"path": str(made.path), "runs": rows}, str(made), json)
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        complain(f"{row['run']}: {row['detail']}")
    return EXIT_STORE if failed else 0


def _parse_shard(text):
    from lrbias.errors import require

    first, slash, count = text.partition("/")
    require(slash and first.isdecimal() and count.isdecimal(), "shard", text, "i/n, two integers with 0 ≤ i < n")
    return int(first), int(count)


def report(
    first: Place,
    /,
    *others: Place,
    output: Output = Path("report.html"),
    quiet: Flag = False,
):
    """Write one self-contained HTML page about runs, sweeps or studies.

    Parameters
    ----------
    first
        A run directory, a folder of them, the folder of a sweep, or that of a study made by `lrbias reproduce`.
    others
        More of them; runs of one target are compared.
    output
        The page to write.
    quiet
        Show no progress.
    """
    from lrbias.reports import report as write_report

    print(write_report([first, *others], cast(Path, output), progress=not quiet))
    return 0


def reproduce(
    name: str,
    /,
    *,
    store: Store = None,
    steps: Whole = None,
    seeds: Whole = None,
    workers: Whole = None,
    scale: str | None = None,
    folder: Place | None = None,
    format: Words = None,
    dry_run: Flag = False,
    json: Flag = False,
    quiet: Flag = False,
):
    """Make the runs of a study and print the evidence for its claims: statistic, definition, value, verdict.

    The same command again goes on where it was stopped.

    Parameters
    ----------
    name
        protocol: ranks, depths and step sizes, GD and gradient flow, several starts; square and rectangular targets.
        chou: recovery of eigenvalues from identical and perturbed starts (Chou et al.), theory over measured curves.
        wang-jacot: SGD with ridge jumps to lower rank and not back (Wang and Jacot); about ten minutes.
        glrl: greedy low-rank learning beside gradient flow (Li, Luo and Lyu); about three minutes.
        galanti: ranks of real networks under SGD with weight decay (Galanti et al.); about an hour.
        regimes: lazy and rich, edge of stability, saddles, updates, directions, spectral bias; some minutes.
    store
        The folder of the study; by default reproduced/NAME.
    steps
        Of the protocol: iterations of every run, 50 000. Of wang-jacot: steps of a trajectory, 1 000 000. Of galanti:
        steps of ResNet-18, to which those of the others are in proportion.
    seeds
        Of the protocol: number of starts, 3. Of wang-jacot: seeds of each cell of the phase diagram, 20. Of galanti:
        seeds of each setting, 3. Of regimes: starts of each width and γ, 3.
    workers
        Processes, each with one thread, or threads of wang-jacot; by default one for each core.
    scale
        Of galanti: small, or paper for the paper's sizes (days on a cluster).
    folder
        Of galanti at the paper's scale: where CIFAR-10 is.
    format
        Figure formats: png, pdf, svg.
    dry_run
        Say how many runs there are and what they will take, and stop.
    json
        Print the evidence as JSON on stdout.
    quiet
        Show neither forecast nor progress.
    """
    from lrbias.settings import check_formats
    from lrbias.studies import folder_of, forecast_study
    from lrbias.studies import reproduce as make_study
    from lrbias.system import goes_on_in

    formats = check_formats(format or ("png", "pdf"))
    if dry_run or not quiet:
        show_forecast(forecast_study(name, steps, seeds, workers, scale, folder), json, only=dry_run)
    if dry_run:
        return 0
    of_scale = {"scale": scale, "folder": None if folder is None else str(folder)}
    with goes_on_in(folder_of(name, store)):
        evidence = make_study(name, store, steps, seeds, workers, progress=not quiet, **of_scale)
        written = [str(path) for path in evidence.save(formats)]
    show({**evidence.as_dict(), "written": written}, "\n".join([str(evidence), "", *written]), json)
    return 0
