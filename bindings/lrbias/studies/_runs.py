"""What studies share on disk: a folder that says what they are, and runs that are made once."""

from pathlib import Path

from lrbias.runs import open as open_run
from lrbias.storage import check_new, write_json
from lrbias.system import drafted
from lrbias.training import resume, train

ENDED = ("finished", "stopped", "diverged")


def make_store(path: Path, document: dict) -> None:
    """A new folder with `study.json`, which says what the study is: whole or not at all."""
    check_new(path)
    with drafted(path) as draft:
        write_json(draft.folder / "study.json", document)
    draft.held.release()


def made(path, progress=None, **arguments):
    """The run at `path`: made with these arguments of `train`, taken to its end where it was begun, or only opened."""
    if not (path / "config.json").is_file():
        return train(**arguments, store=path, progress=progress, forecast=False)
    run = open_run(path)
    return run if run.status in ENDED else resume(path, progress=progress)
