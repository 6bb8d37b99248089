"""Command lines made at random: every command and flag, values that fit and values that do not, files of every kind.

`Folder` holds the inputs; after each command it says what was left in it, and puts back what was changed.
"""

import contextlib
import faulthandler
import io
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrbias.experiments import all_settings


def _split(words):
    return words.split()


EXIT_CODES = {0, 1, 2, 3, 130, 143}
HANG_SECONDS = 120
HUGE = [str(2**31), str(2**63), str(2**64), "1" + "0" * 30, "9" * 5000]
NOT_INTEGERS = ["-1", "1.5", "nan", "x", "", "1e3", "0x10", "-", "ü"]
NOT_NUMBERS = ["x", "", "nan", "inf", "-inf", "1e400", "0x10", "1,5", "-", "1" + "0" * 400]
EXTREME = ["1e300", "-1e300", "1e-320", "1e308", "-1", "0", "-0.0", "1e-8", "1e8"]
NOT_WORDS = ["", "x", "ü", "a\nb", "$x$", "~", "..", "=1+1", "all", "\udcff", "y" * 300]
GOOD_FILES = ["good.csv", "good.npy", "good.tsv", "ramp.png", "mask.npy", "x.npy", "y.npy"]
ODD_FILES = _split("""missing.npy empty.csv blank.csv words.csv ragged.csv holes.tsv mark.csv cube.npy complex.npy
    objects.npy none.npy strings.npy fake.png fake.npz other.npz other.xyz folder folder/missing cut.npy huge.npy
    renamed.npy bomb.png float.tif step.npz wrong.npz ~/missing.npy ~nobody/x.npy loop.npy good.csv/below""")
ODD_FILES += ["z" * 300 + ".npy", "", "a\0b.npy", "ü.csv", "/", "."]
FOLDERS = ["run", "sweep", "diverged", "broken", "folder", "missing", "good.csv", "", ".", "/", "~", "w" * 300]


def _integer(rng, low=1, high=6):
    return str(rng.randint(low, high)) if rng.random() < 0.85 else rng.choice(["0", *HUGE, *NOT_INTEGERS])


def _number(rng):
    usual = ["0.1", "0.01", "1", "0.5", "2"]
    return rng.choice(usual if rng.random() < 0.7 else [*NOT_NUMBERS, *EXTREME])


def _file(rng):
    return rng.choice(GOOD_FILES if rng.random() < 0.6 else ODD_FILES)


def _several(make, least, most):
    return lambda rng: [make(rng) for _ in range(rng.randint(least, most))]


def _word(*known):
    return lambda rng: rng.choice(known) if rng.random() < 0.85 else rng.choice(NOT_WORDS)


def _schedule(rng):
    kind = rng.choice(["exponential_decay", "piecewise_constant", "square_wave", "x", ""])
    parts = ["factor=0.1,stop=5", "factor=0.5,milestones=1+3", "factor=0.1,period=2", "factor=x", "stop", "factor=2"]
    part = rng.choice(parts)
    return f"{kind}:{part}"


def _metric(rng):
    names = ["singular_values", "stable_rank", "sharpness", "ntk", "updates", "product", "absorbing_rank", "alignment"]
    return rng.choice([*names, "all", "none", "x", "stable_rank=2", "stable_rank=0", "norms=x", "=", "ü=1"])


NUMBERS = _split("""spectral-norm fraction gamma std output-scale alpha beta lr dt rtol atol ridge epsilon tolerance
    cutoff
    degenerate numerical-threshold relative-threshold absorbing-balance absorbing-slack absorbing-alpha absorbing-bound
    eigen-tolerance stop-loss stop-gradient""")
INTEGERS = _split("""rank teacher-depth teacher-seed entries mask-seed depth seed batch sampling-seed max-rank
    check-every checkpoint-every threads every directions leading stop-plateaus""")
FLAGS = _split("""whiten center symmetric-mask no-replacement tied json json json quiet quiet dry-run""")
OPTIONS = {
    **dict.fromkeys(NUMBERS, _number),
    **dict.fromkeys(INTEGERS, _integer),
    **dict.fromkeys(["target", "observed", "inputs", "outputs", "network"], _file),
    "steps": _integer,
    "shape": _several(_integer, 1, 2),
    "crop": _several(_integer, 1, 2),
    "widths": _several(_integer, 1, 4),
    "values": _several(_number, 0, 3),
    "eigenvalues": _several(_number, 0, 3),
    "metrics": _several(_metric, 1, 3),
    "init": _word("gaussian", "scaled_identity", "perturbed", "orthogonal", "balanced", "tied"),
    "reduction": _word("sum", "mean"),
    "parametrization": _word("standard", "ntk"),
    "dtype": _word("float64", "float32"),
    "method": _word("gd", "flow", "sgd", "glrl", "linearized"),
    "scheme": _word("rk4", "heun", "euler", "dopri5"),
    "inner": _word("gd", "flow"),
    "device": _word("cpu", "auto", "cuda"),
    "compress": _word("auto", "off"),
    "lr-schedule": _schedule,
    "ridge-schedule": _schedule,
    "store": lambda rng: rng.choice(["out", "deep/er/out", *FOLDERS]),
    "format": _several(_word("png", "svg"), 1, 2),
}
SMALL = {"shape": ["4", "3"], "rank": ["2"], "depth": ["2"], "steps": ["3"], "every": ["1"]}
TOML_VALUES = _split("""1 2 0 -1 0.5 nan inf -inf 1e300 9223372036854775807 true "x" "" [] [1] [1,2] [[1,2],[3,4]] {a=1}
    1979-05-27 "good.csv" "missing.npy" "~" [4,3] [0.5,0.1] ["good.csv","missing.npy"] "gd" "all" {stable_rank=1}
    18446744073709551615""")


def command_line(rng):
    """(words, files): the words after `lrbias`, and {name: text} of files that they need."""
    command = rng.choices(list(COMMANDS), weights=[weight for _, weight in COMMANDS.values()])[0]
    words, files = COMMANDS[command][0](rng)
    words = [command, *words]
    if rng.random() < 0.05:
        words.insert(rng.randrange(len(words) + 1), rng.choice(["--help", "--x", "--json", "ü", "", "--", "-o", "-h"]))
    return words, files


def _run(rng):
    words = []
    chosen = dict(SMALL) if rng.random() < 0.9 else {"steps": ["2"], "shape": ["3", "3"], "rank": ["1"]}
    for name in rng.sample(sorted(OPTIONS), rng.choice([0, 1, 1, 2, 2, 3, 4, 6])):
        made = OPTIONS[name](rng)
        chosen[name] = made if isinstance(made, list) else [made]
    if "target" in chosen or "inputs" in chosen:
        for name in ("shape", "rank"):
            chosen.pop(name, None)
    flags = [f"--{flag}" for flag in rng.sample(FLAGS, rng.choice([0, 0, 1, 2]))]
    if rng.random() < 0.99:
        flags.append("--no-figures")
    long = any(_is_long(value) for name in ("steps", "check-every") for value in chosen.get(name, []))
    if long or chosen.get("method") == ["glrl"] or rng.random() < 0.3:
        flags.append("--dry-run")
    for name, values in chosen.items():
        joined = len(values) == 1 and values[0].startswith(("-", "~"))
        words += [f"--{name}={values[0]}"] if joined else [f"--{name}", *values]
    words += flags
    if rng.random() < 0.2:
        return ["in.toml", *words], {"in.toml": _toml(rng)}
    return words, {}


def _is_long(value):
    return value.isdecimal() and len(value) < 4000 and int(value) > 100


def _toml(rng):
    keys = rng.sample([name.replace("-", "_") for name in [*OPTIONS, "x"]], rng.choice([1, 2, 3]))
    kept = [key for key in keys if key not in ("steps", "check_every", "device")]
    lines = [line for key in kept for line in (*_section_of(rng, key), f"{key} = {rng.choice(TOML_VALUES)}")]
    odd = [
        "a = = 1",
        "\ufeff",
        "lr = " + "[" * 900,
        "x = " + "[" * 60 + "]" * 60,
        "steps = " + "9" * 5000,
        "[sweep]",
        "\0",
    ]
    if rng.random() < 0.15:
        lines.append(rng.choice(odd))
    return "\n".join(lines) + "\n"


def _section_of(rng, word):
    """The line of the section in which a word stands, mostly."""
    found = [setting.table for setting in all_settings() if setting.word == word]
    return [f"[{'.'.join(found[0])}]"] if found and rng.random() < 0.9 else []


def _sweep(rng):
    lines = ["[problem.target]", "shape = [4, 3]", "rank = 1", "[run]", "steps = 2", "[record]", "every = 1"]
    lines += rng.choice([[], [], ["[method]", "lr = 0.1"], ['store = "x"']])
    axes = [
        "seed = [1, 2]",
        "depth = [2, 0]",
        'target = ["good.csv", "missing.npy"]',
        "lr = []",
        "rank = [1]",
        "x = [1]",
    ]
    axes += [
        '"depth,seed" = [[2, 1], [3, 2]]',
        '"depth,seed" = [[2]]',
        "seed = 3",
        'dtype = ["float32", "x"]',
        "gamma = [nan]",
    ]
    text = "\n".join([*lines, *(["[sweep]"] if rng.random() < 0.9 else []), *rng.sample(axes, rng.choice([1, 1, 2]))])
    words = ["in.toml", "-o", rng.choice(["out", *FOLDERS])]
    words += rng.choice(
        [[], ["--dry-run"], ["--json"], ["--quiet"], ["--table", rng.choice(["t.csv", "t.x", "no/t.csv"])]]
    )
    words += rng.choice(
        [[], ["--workers", _integer(rng, 1, 2)], ["--shard", rng.choice(["0/2", "2/2", "x", "", "1/0"])]]
    )
    words += rng.choice([[], ["--device", _word("cpu", "cuda")(rng)]])
    return (words if "--dry-run" in words or rng.random() < 0.2 else [*words, "--dry-run"]), {"in.toml": text}


def _resume(rng):
    words = [rng.choice(FOLDERS)]
    words += rng.choice([[], ["--steps", rng.choice(["5", "8", "2", "0", "-1", "x"])]])
    words += rng.choice(
        [[], ["--from-checkpoint", _integer(rng, 0, 6)], ["--threads", _integer(rng)], ["--device", "x"]]
    )
    words += rng.choice([[], ["--json"], ["--quiet"], ["--format", rng.choice(["png", "gif", ""])]])
    return [*words, "--no-figures"], {}


def _info(rng):
    return [rng.choice(FOLDERS), *rng.sample(["--check", "--json", "--x"], rng.choice([0, 1, 2]))], {}


def _plot(rng):
    output = rng.choice(["out", "good.csv", "good.csv/out", "w" * 300, ""])
    return [rng.choice(FOLDERS), "-o", output, "--format", rng.choice(["svg", "svg", "gif", ""])], {}


def _compare(rng):
    words = [rng.choice(FOLDERS) for _ in range(rng.choice([0, 1, 2, 2, 3]))]
    return words + rng.choice([[], [], ["--json"], ["-o", "out", "--format", "svg"], ["--format", "x"]]), {}


def _report(rng):
    words = [
        rng.choice(["folder", "missing", "good.csv", "", "w" * 300, "broken"]) for _ in range(rng.choice([0, 1, 2]))
    ]
    return [*words, "-o", rng.choice(["out.html", "out.txt", "no/out.html", "", "w" * 300 + ".html"])], {}


def _reproduce(rng):
    words = [rng.choice(["x", "", "protocl", "=1"])]
    return words + rng.choice([[], ["--seeds", _integer(rng)], ["--scale", "x"], ["--folder", "~"], ["-o", ""]]), {}


def _other(rng):
    return rng.choice([[], ["run"], ["--version"], ["--help"], [""]]), {}


COMMANDS = {
    "run": (_run, 70),
    "sweep": (_sweep, 6),
    "resume": (_resume, 7),
    "info": (_info, 6),
    "plot": (_plot, 2),
    "compare": (_compare, 3),
    "report": (_report, 2),
    "reproduce": (_reproduce, 2),
    "--version": (_other, 0.5),
    "--help": (_other, 0.5),
    "train": (_other, 1),
}


class Folder:
    """A working folder with inputs, runs among them, and a copy to restore it from."""

    def __init__(self, path):
        self.path = path / "work"
        self.copy = path / "copy"
        self.path.mkdir()
        self._fill()
        shutil.copytree(self.path, self.copy, symlinks=True)
        self.before = self.listing()

    def listing(self):
        """{path: (size, time of change)} of everything in the folder and beside it."""
        found = {}
        for entry in [*self.path.rglob("*"), *self.path.parent.iterdir()]:
            about = entry.lstat()
            found[str(entry)] = 0 if entry.is_dir() else (about.st_size, about.st_mtime_ns)
        return found

    def restore(self):
        shutil.rmtree(self.path)
        shutil.copytree(self.copy, self.path, symlinks=True)

    def _fill(self):
        import lrbias as lb

        here = self.path
        rng = np.random.default_rng(0)
        (here / "folder").mkdir()
        (here / "home").mkdir()
        np.save(here / "good.npy", rng.normal(size=(4, 3)))
        np.savetxt(here / "good.csv", rng.normal(size=(4, 3)), delimiter=",")
        np.savetxt(here / "good.tsv", rng.normal(size=(4, 3)), delimiter="\t")
        np.save(here / "mask.npy", rng.random((4, 3)) < 0.8)
        np.save(here / "x.npy", rng.normal(size=(9, 3)))
        np.save(here / "y.npy", rng.normal(size=(9, 4)))
        self._write_odd_files(here)
        problem = lb.Factorization(lb.from_singular_values((4, 3), [2.0, 1.0]))
        start = lb.Network.gaussian((3, 4, 4), gamma=0.5)
        arguments = {"checkpoint_every": 2, "record": lb.Record(every=1), "forecast": False, "progress": False}
        lb.train(problem, start, lb.GD(lr=0.01), 4, store=here / "run", **arguments)
        lb.train(problem, start, lb.GD(lr=100.0), 9, store=here / "diverged", **arguments)
        shutil.copytree(here / "run", here / "broken")
        (here / "broken/config.json").write_bytes((here / "run/config.json").read_bytes()[:200])
        shutil.copy(here / "run/checkpoints/step-00000004.npz", here / "step.npz")
        base = {"shape": [4, 3], "rank": 1, "steps": 2, "every": 1}
        lb.sweep(base, {"seed": [1, 2]}, here / "sweep", executor=_Here(), progress=False)

    @staticmethod
    def _write_odd_files(here):
        from PIL import Image

        texts = {"empty.csv": "", "blank.csv": "\n \n", "words.csv": "a,b\n1,2\n", "ragged.csv": "1,2\n3\n"}
        texts |= {
            "holes.tsv": "1\t\t2\n",
            "mark.csv": "\ufeff1,2\n",
            "fake.png": "x",
            "fake.npz": "x",
            "other.xyz": "1",
        }
        texts |= {"ü.csv": "1,2\n"}
        for name, text in texts.items():
            (here / name).write_text(text, encoding="utf-8")
        arrays = {"cube": np.ones((2, 2, 2)), "complex": np.ones((2, 2), complex), "none": np.ones((0, 3))}
        arrays |= {"objects": np.array([[None]]), "strings": np.array([["a"]])}
        for name, array in arrays.items():
            np.save(here / f"{name}.npy", array)
        np.savez(here / "other.npz", something=np.ones(3))
        np.savez(here / "wrong.npz", params=np.ones(5), widths=np.array([3, 4, 4]))
        (here / "cut.npy").write_bytes((here / "good.npy").read_bytes()[:150])
        header = str({"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}).ljust(117) + "\n"
        (here / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode())
        shutil.copy(here / "other.npz", here / "renamed.npy")
        Image.new("1", (20_000, 20_000)).save(here / "bomb.png")
        Image.fromarray(np.arange(12, dtype=np.uint16).reshape(4, 3) * 5000).save(here / "ramp.png")
        Image.fromarray(np.full((4, 3), np.nan, np.float32)).save(here / "float.tif")
        (here / "loop.npy").symlink_to("loop.npy")


class _Here(Executor):
    """An executor that makes everything at once in this process."""

    def submit(self, function, *arguments):
        done = Future()
        done.set_result(function(*arguments))
        return done


@dataclass
class Outcome:
    """What a command did: its exit code, what it printed, the exception that got through, what is left."""

    code: int | None
    out: str
    err: str
    raised: str | None
    left: list
    seconds: float

    def faults(self, words):
        """What is wrong with it, [] for nothing."""
        wrong = []
        if self.raised:
            wrong.append(self.raised.strip().splitlines()[-1])
        elif self.code not in EXIT_CODES:
            wrong.append(f"exit code {self.code}")
        if "Traceback" in self.err:
            wrong.append("a traceback on stderr")
        if self.code == 2 and self.left:
            wrong.append(f"left behind: {self.left[:3]}")
        drafts = [name for name in self.left if name.endswith((".partial", ".new"))]
        if drafts:
            wrong.append(f"drafts: {drafts[:3]}")
        said = [line for line in self.err.splitlines() if line.startswith("lrbias: ")]
        if self.code in (1, 2) and not self.raised and len(said) < 1:
            wrong.append("no sentence")
        if self.code in (0, 3) and "--json" in words and self.out and not {"--help", "-h"} & set(words):
            try:
                json.loads(self.out)
            except ValueError:
                wrong.append("no JSON on stdout")
        return wrong


class Hang(BaseException):
    """A command took longer than any of them may."""


@contextlib.contextmanager
def watched(seconds=HANG_SECONDS):
    """Raises Hang when the body takes longer; where not even that gets through, Python says where it is and ends."""

    def respond(*_):
        raise Hang(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, respond)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(3 * seconds, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def run_here(folder, words):
    """The Outcome of a command in this process."""
    from lrbias.cli import _app as cli

    out = io.StringIO()
    err = io.StringIO()
    code = None
    raised = None
    before = folder.listing()
    started = time.perf_counter()
    try:
        with watched(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main(list(words))
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        raised = traceback.format_exc()
    return _outcome(folder, before, code, out.getvalue(), err.getvalue(), raised, started)


def run_apart(folder, words, environment):
    """The same in a process of its own, with nothing on stdin."""
    before = folder.listing()
    started = time.perf_counter()
    command = [sys.executable, "-m", "lrbias", *(word.replace("\0", "") for word in words)]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=4 * HANG_SECONDS, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return _outcome(folder, before, None, "", "", "Hang", started)
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return _outcome(folder, before, done.returncode, out, err, None, started)


def _outcome(folder, before, code, out, err, raised, started):
    seconds = time.perf_counter() - started
    after = folder.listing()
    left = sorted(name for name in after if name not in before)
    if after != before:
        folder.restore()
    return Outcome(code, out, err, raised, [str(Path(name).relative_to(folder.path.parent)) for name in left], seconds)


ENVIRONMENTS = [
    {},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"NO_COLOR": "1", "COLUMNS": "10"},
]


def fuzz(folder, count, seed, apart=0.0, tell=None):
    """Run `count` commands; returns [(words, faults, outcome)] of those with faults, and {exit code: how many}."""
    rng = random.Random(seed)
    faults = []
    codes = {}
    for number in range(count):
        words, files = command_line(rng)
        for name, text in files.items():
            (folder.path / name).write_text(text, encoding="utf-8")
        if rng.random() < apart:
            outcome = run_apart(folder, words, rng.choice(ENVIRONMENTS))
        else:
            outcome = run_here(folder, words)
        for name in files:
            (folder.path / name).unlink(missing_ok=True)
        codes[outcome.code] = codes.get(outcome.code, 0) + 1
        wrong = outcome.faults(words)
        if wrong:
            faults.append((words, files, wrong, outcome))
        if tell:
            tell(number, words, files, wrong, outcome)
    return faults, codes
