"""The architecture: rooms (folders, and files beside them) import what lies below, in chains of at most twelve."""

import ast
import functools
import itertools
from pathlib import Path

import pytest

import lrbias as lb

ROOT = Path(lb.__file__).parent
MOST = 12
CORE = "lrcore"  # below all rooms


def _room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


ROOMS = {_room(path) for path in ROOT.rglob("*.py")} - {"__init__", "__main__"}


def _imported(path):
    """The rooms that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "lrbias":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lrbias."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == CORE:
            yield CORE


BELOW = {room: set() for room in {*ROOMS, CORE}}
for _path in ROOT.rglob("*.py"):
    if _room(_path) in ROOMS:
        BELOW[_room(_path)] |= {other for other in _imported(_path) if other in {*ROOMS, CORE}} - {_room(_path)}


@functools.cache
def _longest(room):
    """The longest chain from a room down; RecursionError in a circle."""
    return [room, *max(map(_longest, BELOW[room]), key=len, default=[])]


def test_chains_of_rooms_are_short_and_have_no_circle():
    chain = max(map(_longest, ROOMS), key=len)
    assert len(chain) <= MOST, " → ".join(chain)


WALKS = {  # rooms that a setting goes through from the command line to a kernel, always down
    "lr": "cli training steppers lrcore",
    "target": "cli training steppers problems lrcore",
    "a metric's name": "cli training metrics lrcore",
    "device": "cli training steppers devices lrcore",
    "where it is read and checked": "cli experiments methods settings errors",
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_a_setting_walks_down_to_its_kernel(walk):
    stops = walk.split()
    assert len(stops) <= 6
    for above, below in itertools.pairwise(stops):
        assert below in BELOW[above], f"{above} does not import {below}"


def test_modules_of_a_room_are_private():
    """What others import of it stands in its `__init__`."""
    public = {path.stem for path in ROOT.rglob("*.py") if path.parent != ROOT and not path.stem.startswith("_")}
    assert public == {"sweep_plots"}, "which users call by this name"
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lrbias."):
                private = "._" in node.module or any(alias.name.startswith("_") for alias in node.names)
                assert not private or node.module.split(".")[1] == _room(path), f"{path}: {node.module}"
