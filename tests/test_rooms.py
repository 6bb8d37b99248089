"""The architecture: rooms (folders, and files beside them) import what lies below, in chains of at most twelve."""

import ast
import functools
from pathlib import Path

import lrbias as lb

ROOT = Path(lb.__file__).parent
MOST = 12


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


BELOW = {room: set() for room in ROOMS}
for _path in ROOT.rglob("*.py"):
    if _room(_path) in ROOMS:
        BELOW[_room(_path)] |= {other for other in _imported(_path) if other in ROOMS} - {_room(_path)}


@functools.cache
def _longest(room):
    """The longest chain from a room down; RecursionError in a circle."""
    return [room, *max(map(_longest, BELOW[room]), key=len, default=[])]


def test_chains_of_rooms_are_short_and_have_no_circle():
    chain = max(map(_longest, ROOMS), key=len)
    assert len(chain) <= MOST, " → ".join(chain)


def test_modules_of_a_room_are_private():
    """What others import of it stands in its `__init__`."""
    public = {path.stem for path in ROOT.rglob("*.py") if path.parent != ROOT and not path.stem.startswith("_")}
    assert public == {"sweep_plots"}, "which users call by this name"
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lrbias."):
                private = "._" in node.module or any(alias.name.startswith("_") for alias in node.names)
                assert not private or node.module.split(".")[1] == _room(path), f"{path}: {node.module}"
