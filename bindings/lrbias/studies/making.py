"""Runs of a study that are made once."""

from lrbias.run import open as open_run
from lrbias.training import resume, train

ENDED = ("finished", "stopped", "diverged")


def made(path, progress=None, **arguments):
    """The run at `path`: made with these arguments of `train`, taken to its end where it was begun, or only opened."""
    if not (path / "config.json").is_file():
        return train(**arguments, store=path, progress=progress, forecast=False)
    run = open_run(path)
    return run if run.status in ENDED else resume(path, progress=progress)
