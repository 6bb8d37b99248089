"""The commands about many runs: sweep, report."""

from pathlib import Path
from typing import cast

from lrbias.cli._console import (
    EXIT_STORE,
    File,
    Flag,
    IntegerFlag,
    Output,
    Place,
    Store,
    complain,
    show,
    show_forecast,
)


def sweep(  # noqa: PLR0913  its flags
    file: File,
    /,
    *,
    store: Store = None,
    workers: IntegerFlag = None,
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
    from lrbias.experiments import read_toml
    from lrbias.sweeps import check_table, forecast_sweep

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
    options = {"workers": workers, "scheduler": scheduler, "shard": part, "progress": not quiet, "device": device}
    made = _made(base, over, store or Path("sweeps") / file.stem, options)
    rows = made.table()
    if table:
        made.write(table, rows)
    show({"path": str(made.path), "runs": rows}, str(made), json)
    return _complain_of_failed(rows)


def _made(base, over, folder, options):
    """The Sweep, also where no run of it could be made: its table says why, run by run."""
    from lrbias.errors import RunsFailed
    from lrbias.sweeps import sweep as make_sweep

    try:
        return make_sweep(base, over, folder, **options)
    except RunsFailed as error:
        return error.sweep


def _complain_of_failed(rows):
    """The exit code: 0 unless a run failed."""
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        complain(f"{row['run']}: {row['detail']}")
    return EXIT_STORE if failed else 0


def _parse_shard(text):
    from lrbias.errors import check

    first, slash, count = text.partition("/")
    check(slash and first.isdecimal() and count.isdecimal(), "shard", text, "i/n, two integers with 0 ≤ i < n")
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
