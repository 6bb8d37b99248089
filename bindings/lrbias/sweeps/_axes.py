"""What a sweep varies: axes of settings, and the runs that their combinations make."""

import itertools
import os
import re
import zlib
from pathlib import Path

from lrbias.errors import InvalidInput, check, shorten
from lrbias.experiments import Experiment, known_words, path_words
from lrbias.problems import as_positions, is_number
from lrbias.settings import did_you_mean
from lrbias.system import as_path

PLAIN = re.compile(r"[^A-Za-z0-9.+-]+")
LONGEST_NAME = 120


def expand(base, over):
    """{name: settings} of every run, in order: the last axis changes fastest.

    base  keys of an experiment, as in its TOML file and as `plain_settings` leaves them
    over  {key: values}, as `plain_axes` leaves them; values that go together are one axis:
          {"depth,teacher_depth": [(2, 2), (3, 3)]}

    Raises InvalidInput for an axis without values, an unknown key, `device`, a key that is fixed or varied twice,
    a row of the wrong length, two equal runs, and for any run whose settings are not accepted.
    """
    check(isinstance(base, dict), "base", base, "a dictionary: keys of an experiment and their values")
    check(isinstance(over, dict) and len(over) > 0, "over", over, "at least one axis: {key: list of values}")
    axes = [_axis(key, values) for key, values in over.items()]
    keys = [key for names, _ in axes for key in names]
    for key in keys:
        near = did_you_mean(key, known_words())
        check(key in known_words(), "over", key, f"keys of an experiment ({', '.join(known_words())}){near}")
        check(key != "device", "over", key, "keys that tell runs apart; all of a sweep are made on one device")
        check(key not in base, "over", key, "keys that the base leaves out; this one is fixed there")
        check(keys.count(key) == 1, "over", key, "every key in one axis only")
    labels = _labels_of_paths(keys, axes)
    runs = {}
    for chosen in itertools.product(*(rows for _, rows in axes)):
        varied = dict(zip(keys, itertools.chain(*chosen), strict=True))
        settings = {**base, **varied}
        name = run_name({key: labels[key][value] if key in labels else value for key, value in varied.items()})
        check(name not in runs, "over", shorten(varied), "runs that differ; two of them are the same")
        try:
            Experiment.from_words(settings)
        except InvalidInput as error:
            raise InvalidInput(f"{error} (in the run {name})") from None
        runs[name] = settings
    return runs


def varied_keys(over):
    """The keys that a sweep varies, in order."""
    return [key.strip() for names in over for key in names.split(",")]


def plain_settings(settings):
    """Settings as JSON gives them back, which mean the same from every folder: paths whole, positions as pairs."""
    check(isinstance(settings, dict), "base", settings, "a dictionary: keys of an experiment and their values")
    return {key: _plain(key, value) for key, value in settings.items()}


def plain_axes(over):
    """{key: values} of a sweep in the same form."""
    check(isinstance(over, dict), "over", over, "at least one axis: {key: list of values}")
    axes = {}
    for key, values in over.items():
        names, rows = _axis(key, values)
        rows = [[_plain(name, value) for name, value in zip(names, row, strict=True)] for row in rows]
        axes[key] = rows if len(names) > 1 else [value for (value,) in rows]
    return axes


def _plain(key, value):
    if key in path_words() and isinstance(value, (str, os.PathLike)):
        return str(as_path(key, value).resolve())
    if key == "entries" and value is not None and not is_number(value):
        value = as_positions(value)
    try:
        return listed(value)
    except RecursionError:
        raise InvalidInput(f"{key} = <a list> is not accepted: expected one that is nested less deeply.") from None


def _labels_of_paths(keys, axes):
    """{key: {path: its last part}} for varied paths, where these tell them apart."""
    columns = dict(zip(keys, itertools.chain(*(zip(*rows, strict=True) for _, rows in axes)), strict=True))
    labels = {}
    for key in path_words() & set(columns):
        if all(isinstance(path, str) for path in columns[key]):
            names = {path: Path(path).name for path in columns[key]}
            if len(set(names.values())) == len(names):
                labels[key] = names
    return labels


def run_name(varied):
    """A folder name that says what is varied: depth=2,lr=0.001; with a checksum where it cannot say all of it."""
    whole = ",".join(f"{key}={_shown(value)}" for key, value in varied.items())
    name = ",".join(f"{key}={PLAIN.sub('_', _shown(value))}" for key, value in varied.items())[:LONGEST_NAME]
    return name if name == whole else f"{name},{zlib.crc32(whole.encode()):08x}"


def listed(values):
    """A tuple, a range or an array as a list of Python's own values, as JSON gives it back; others as they are."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return [listed(value) for value in values] if isinstance(values, (list, tuple, range)) else values


def _shown(value):
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _axis(key, values):
    """(keys, rows): one value of every key per row."""
    check(isinstance(key, str), "over", key, "names of settings")
    values = values.tolist() if hasattr(values, "tolist") else values
    values = list(values) if isinstance(values, (tuple, range)) else values
    check(isinstance(values, list), f"over.{key}", values, "a list of values")
    check(len(values) > 0, f"over.{key}", values, "at least one value")
    names = [name.strip() for name in key.split(",")]
    if len(names) == 1:
        return names, [(value,) for value in values]
    values = [listed(row) if hasattr(row, "tolist") else row for row in values]
    for row in values:
        fits = isinstance(row, (list, tuple)) and len(row) == len(names)
        check(fits, f"over.{key}", row, f"{len(names)} values in each row")
    return names, [tuple(row) for row in values]
