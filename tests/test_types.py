"""Types: what a user writes passes the checkers, and everything public says what it takes and gives."""

import inspect
import re
import shutil
import subprocess
import sys
from types import ModuleType

import pytest

import lrbias as lb
from conftest import ROOT

BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
CALLS = re.compile(r"^(\w+(, \w+)* = )?lb\.", re.MULTILINE)  # a block without a language that is Python all the same
ROOMS = (lb, lb.nn, lb.plots, lb.sweep_plots, lb.theory, lb.metrics)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """A folder with the Python blocks of the README, each as a script of its own."""
    folder = tmp_path_factory.mktemp("scripts")
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    python = [text for kind, text in blocks if kind == "python" or (not kind and CALLS.search(text))]
    assert len(python) >= 6
    for number, text in enumerate(python):
        imported = "" if "import lrbias as lb" in text else "import lrbias as lb\n\n"
        (folder / f"block_{number}.py").write_text(STRICT + imported + text)
    return folder


# of a script; given so, and not as --strict, it leaves what mypy knows of the package from `make test` as it is
STRICT = (
    "# mypy: disallow-any-generics, disallow-subclassing-any, disallow-untyped-calls, disallow-untyped-defs\n"
    "# mypy: disallow-incomplete-defs, check-untyped-defs, disallow-untyped-decorators, warn-unused-ignores\n"
    "# mypy: warn-return-any, no-implicit-reexport, strict-equality\n"
)


def _refused(folder, *command):
    """What a checker says of the scripts, called in a folder; "" when it accepts them."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def _mypy(*files):
    return _refused(ROOT, sys.executable, "-m", "mypy", *map(str, files))


def test_the_scripts_of_the_readme_pass_mypy(scripts):
    assert not (said := _mypy(*sorted(scripts.glob("*.py")))), said


def test_mypy_sees_what_is_wrong_in_a_script(tmp_path):
    """So the types are there, and not Any."""
    script = tmp_path / "wrong.py"
    script.write_text(STRICT + 'import lrbias as lb\n\nlb.teacher(rank="ten")\nlb.open("a").status + 1\n')
    said = _mypy(script)
    assert 'Argument "rank" to "teacher" has incompatible type "str"' in said
    assert "Found 2 errors" in said


@pytest.fixture
def pyright():
    """Its command, where it starts: its package fetches what it runs on when it is first used."""
    command = (sys.executable, "-m", "pyright")
    started = shutil.which("node") and subprocess.run([*command, "--version"], capture_output=True, check=False)
    if not started or started.returncode:
        pytest.skip("pyright needs node, and its own package of npm")
    return command


@pytest.mark.evidence  # mypy says the same of them
def test_the_scripts_of_the_readme_pass_pyright(scripts, pyright):
    (scripts / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{ROOT / "bindings"}"]}}')
    said = _refused(scripts, *pyright, "--pythonpath", sys.executable, "--project", ".")
    assert not said, said


def _named(room):
    """(name, value) of what a room offers: what its stub lists, or what a module defines."""
    own = [name for name, value in vars(room).items() if getattr(value, "__module__", "") == room.__name__]
    names = getattr(room, "__all__", [name for name in own if not name.startswith("_")])
    return [(f"{room.__name__}.{name}", getattr(room, name)) for name in names]


def _callables():
    """(name, function) of everything public: functions, and the methods of classes that are defined here."""
    for name, value in (each for room in ROOMS for each in _named(room)):
        if isinstance(value, ModuleType) or not callable(value):
            continue
        if not inspect.isclass(value):
            yield name, value
            continue
        for key, method in vars(value).items():
            function = method.fget if isinstance(method, property) else getattr(method, "func", method)
            function = getattr(function, "__func__", function)
            if inspect.isfunction(function) and (not key.startswith("_") or key == "__init__"):
                yield f"{name}.{key}", function


def _lacking(function):
    """The parameters of a function without an annotation, and "return"."""
    signature = inspect.signature(function)
    known = {name: each.annotation for name, each in signature.parameters.items() if name not in ("self", "cls")}
    known["return"] = signature.return_annotation
    return [name for name, annotation in known.items() if annotation is inspect.Signature.empty]


def test_everything_public_is_annotated():
    found = {name: lacking for name, function in _callables() if (lacking := _lacking(function))}
    assert not found, "\n".join(f"{name}: {', '.join(lacking)}" for name, lacking in found.items())


def test_signatures_are_plain():
    """What an editor or IPython shows has names that a user knows, and no metadata of pydantic's."""
    shown = str(inspect.signature(lb.train))
    assert "Annotated" not in shown
    assert "problem: 'Problem', network: 'Network | None', method: 'Method', steps: 'int | None' = None" in shown
    assert "-> 'Run'" in shown
    assert "every: int = 10" in str(inspect.signature(lb.Record))
