"""Which studies there are: entry points of the group `lrbias.studies`, of this package and of others."""

from importlib.metadata import entry_points
from pathlib import Path

from lrbias.errors import InvalidInput, check
from lrbias.studies._base import Study

GROUP = "lrbias.studies"


def study_names() -> list[str]:
    """The names of all studies, in alphabetical order; nothing is imported."""
    return sorted(entry_points(group=GROUP).names)


def find_study(name: str) -> type[Study]:
    """The study of a name."""
    names = study_names()
    check(isinstance(name, str) and name in names, "name", name, " or ".join(names))
    entry = next(iter(entry_points(group=GROUP, name=name)))
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"the study {name} cannot be loaded ({entry.value}: {reason}).") from error
    is_study = isinstance(found, type) and issubclass(found, Study)
    if not is_study or getattr(found, "name", None) != name:
        raise InvalidInput(f"the study {name} cannot be loaded: {entry.value} is no lrbias.studies.Study of this name.")
    return found


def all_studies() -> list[type[Study]]:
    """Every study; one that cannot be loaded, of a package that is not ours to mend, is left out."""
    found = []
    for name in study_names():
        try:
            found.append(find_study(name))
        except InvalidInput:
            continue
    return found


def study_in(folder: Path) -> type[Study] | None:
    """The study whose findings a folder holds; None where there are none."""
    return next((study for study in all_studies() if study.is_in(folder)), None)
