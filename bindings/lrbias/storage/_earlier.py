"""What earlier versions wrote in other words: their documents are read with the words of today.

Nothing on disk is rewritten, so a run of an earlier format keeps the names of its files and goes on under them.
"""

from collections.abc import Iterable
from typing import Any

from lrbias.settings import RENAMED_INITIALIZATIONS, RENAMED_METRICS, RENAMED_SCHEDULES, RENAMED_SETTINGS

QUANTITIES = {"hidden_error": "test_error", "movement": "distance_from_init"}  # the last part of a name
LINEAR = "linear_decay"  # of "anneal" with this shape


def current_setting(word: str, value: Any) -> tuple[str, Any]:
    """A word of an experiment and its value, as they are now; those of today stay as they are."""
    return RENAMED_SETTINGS.get(word, word), _current_value(word, value)


def _current_value(word: str, value: Any) -> Any:
    if word == "init" and isinstance(value, str):
        return RENAMED_INITIALIZATIONS.get(value, value)
    if word == "mean" and isinstance(value, bool):
        return "mean" if value else "sum"
    if word == "metrics":
        return _current_metrics(value)
    if word in ("lr_schedule", "ridge_schedule"):
        return _current_schedule(value)
    return value


def _current_metrics(value: Any) -> Any:
    if isinstance(value, dict):
        return {RENAMED_METRICS.get(name, name): interval for name, interval in value.items()}
    if isinstance(value, (list, tuple)):
        return [RENAMED_METRICS.get(name, name) for name in value]
    return value


def _current_schedule(value: Any) -> Any:
    """A schedule as a dictionary or as text."""
    if isinstance(value, str):
        kind, colon, rest = value.partition(":")
        parts = [part for part in rest.split(",") if part]
        given = dict(part.partition("=")[::2] for part in parts)
        current = _current_schedule({"kind": kind, **given})
        return f"{current.pop('kind')}{colon}" + ",".join(f"{key}={text}" for key, text in current.items())
    if not isinstance(value, dict) or value.get("kind") not in RENAMED_SCHEDULES:
        return value
    current = {"milestones" if key == "at" else key: setting for key, setting in value.items() if key != "shape"}
    return {**current, "kind": LINEAR if value.get("shape") == "linear" else RENAMED_SCHEDULES[value["kind"]]}


def current_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, of a sweep's base, or of what an ensemble's runs share."""
    return dict(current_setting(word, value) for word, value in settings.items())


def current_axes(over: dict[str, Any]) -> dict[str, Any]:
    """{words: values} of a sweep; words that are varied together stand in one key, with commas."""
    found = {}
    for key, values in over.items():
        words = key.split(",")
        named = ",".join(RENAMED_SETTINGS.get(word, word) for word in words)
        if len(words) == 1:
            found[named] = [_current_value(key, value) for value in values]
        else:
            found[named] = [[_current_value(*each) for each in zip(words, row, strict=True)] for row in values]
    return found


def current_quantity(name: str) -> str:
    """The name of a quantity: layer/1/movement is layer/1/distance_from_init."""
    above, slash, last = name.rpartition("/")
    return f"{above}{slash}{QUANTITIES.get(last, last)}"


def current_quantities(names: Iterable[str], functions: Iterable[str] = ()) -> dict[str, str]:
    """{name now: name in the files}; the user's own metrics, `functions`, have the names that they were given.

    Where one of them has the new name of a built-in one, that keeps its old name.
    """
    own = set(functions)
    return {name if own & {name, current_quantity(name)} else current_quantity(name): name for name in names}
