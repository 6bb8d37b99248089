"""Flip bits in the files of every kind of store, and swap files between stores; count what is not noticed.

    python tests/damage.py --stride 1          every bit of headers and descriptions, and a sample of all others
    python tests/damage.py --kinds finished    of one kind of store; --stride 50: every 50th of these flips

A flip or a swap is *detected* where reading the store, checking it or going on with it ends in a StoreError (or
InvalidInput); *harmless* where all that can be read, and all of the store after going on with it, has the bits of the
undamaged one; else *silent*. Any other exception is a traceback. Prints one JSON object.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import lrbias as lb
from lrbias.storage import RunWriter
from lrbias.storage import _format as store
from runs import settings

REFUSED = (lb.StoreError, lb.InvalidInput)


def bits_of(value):
    """What can be compared with ==."""
    if isinstance(value, dict):
        return {key: bits_of(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return repr(value)


def everything(run):
    """All that can be read of a Run or ModelRun, once its check has found nothing."""
    damaged = run.check()
    if damaged:
        raise lb.StoreError(damaged[0])
    found = {name: run[name] for name in run.names}
    found["checkpoints"] = {step: run._source.checkpoint_arrays(step) for step in run.checkpoints}
    found.update(settings=run.settings, info=run.info, summary=run.summary())
    return bits_of(found)


def numbers(run):
    """What has to be the same however often and when a run was resumed: not how long it took."""
    found = {name: run[name] for name in run.names}
    found["last"] = run._source.checkpoint_arrays(run.checkpoints[-1]) if run.checkpoints else {}
    return bits_of({**found, "step": run.step, "status": run.status})


class Finished:
    """A run that has ended, of a loss that sees a part of its target; several chunks a quantity."""

    def arguments(self, seed=0):
        problem = lb.Completion(lb.from_singular_values((4, 3), [3.0, 1.5], seed=3 + seed), fraction=0.8, seed=1)
        record = lb.Record(every=2, metrics=("singular_values", "numerical_rank", "gradient_norm"))
        network = lb.Network.gaussian((3, 4, 4), gamma=1.0, seed=2)
        return settings(60, problem=problem, network=network, record=record, checkpoint_every=20)

    def make(self, path, seed=0):
        lb.train(**self.arguments(seed), store=path)

    def read(self, path):
        return everything(lb.open(path))

    def go_on(self, path):
        return numbers(lb.resume(path, steps=70))

    def repair(self, path):
        return numbers(lb.resume(path, steps=70, from_checkpoint=0))


class Unfinished(Finished):
    """One whose process was killed after its second commit: rows lie in the tail, too."""

    def make(self, path, seed=0):
        def train():
            commit = RunWriter.commit

            def last(writer, step, *rest):
                commit(writer, step, *rest)
                if step == 40:
                    os._exit(9)

            RunWriter.commit = last
            Finished.make(self, path, seed)

        in_child(train)


class Tied(Finished):
    """A run in an exact reduction whose metrics remember: checkpoints hold more than layers."""

    def arguments(self, seed=0):
        record = lb.Record(every=5, metrics=("singular_values", "sharpness", "updates"))
        target = lb.Factorization(lb.from_singular_values((4, 4), [3.0, 1.5], seed=3 + seed))
        return settings(40, problem=target, record=record, network=lb.Network.orthogonal((4, 4, 4), alpha=0.1, seed=2))


class Batch:
    """A sweep whose small runs are kept in two batches."""

    def make(self, path, seed=0):
        base = {"shape": [3, 3], "rank": 1, "steps": 12, "every": 3, "checkpoint_every": 6, "lr": 0.01 + seed / 1000}
        made = lb.sweep(base, {"seed": list(range(8)), "depth": [2, 3]}, path, workers=1, progress=False)
        assert made.counts() == {"finished": 16}, made.table()[0]
        assert len(list(path.glob("batches/*.npz"))) == 2

    def read(self, path):
        made = lb.open_sweep(path)
        found = {name: everything(made[name]) for name in made.names}
        rows = made.table()
        for facts in (*rows, *(own["summary"] for own in found.values())):
            del facts["elapsed_s"]  # a batch made again, of the same settings, is the same but for that
        return {**found, "table": bits_of(dict(enumerate(rows)))}

    def go_on(self, path):
        return self.read(path)

    repair = go_on


class Ensemble:
    """Two groups of trajectories."""

    def make(self, path, seed=0):
        problem = lb.Completion(lb.from_singular_values((3, 3), [2.0], seed=seed), entries=6, reduction="mean", seed=1)
        start = lb.Network.gaussian((3, 3, 3), gamma=0.5, seed=0)
        method = lb.SGD(lr=0.1, ridge=1e-3)
        return lb.ensemble(problem, start, method, steps=20, runs=70, every=10, store=path, threads=1, progress=False)

    def read(self, path):
        return self._numbers(lb.open_ensemble(path))

    def go_on(self, path):
        return self._numbers(self.make(path))

    repair = go_on

    def _numbers(self, made):
        names = ("ranks", "absorbing", "train_error", "test_error", "diverged", "ended", "values", "lr", "ridge")
        found = {name: getattr(made, name) for name in names}
        return bits_of({**found, "params": made._params, "table": made.table(), "seeds": made.sampling_seed})


class Tracked:
    """A model that a RankTracker has watched, and goes on with."""

    def model(self, seed):
        import torch

        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 4))

    def track(self, path, steps, seed=0, close=True):
        import torch

        model = self.model(seed)
        tracker = lb.nn.RankTracker(model, every=2, store=path, resume=True)
        while tracker.steps < steps:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(torch.full_like(parameter, 1.0 + tracker.steps).cumsum(-1) % 1.7)
            tracker.step(loss=1.0 / (1 + tracker.steps))
        return tracker.close() if close else tracker.commit()

    def make(self, path, seed=0):
        self.track(path, 40, seed)

    def read(self, path):
        return everything(lb.open(path))

    def go_on(self, path):
        return numbers(self.track(path, 44))

    repair = go_on


class Untracked(Tracked):
    """One whose process ended after a commit."""

    def make(self, path, seed=0):
        def track():
            self.track(path, 38, seed, close=False)
            os._exit(9)

        in_child(track)


class Fitted:
    """A network that lb.nn.fit was training when its process was killed."""

    def training(self, seed):
        from lrbias.nn import Training

        digits = {"data": "digits", "samples": 40, "test_samples": 10, "pool": 4, "network": "mlp-bn"}
        return Training(**digits, width=3, depth=2, batch=8, momentum=0.9, epochs=4, every=2, seed=seed)

    def make(self, path, seed=0):
        def train():
            commit = RunWriter.commit

            def last(writer, step, *rest):
                commit(writer, step, *rest)
                if step == 15:
                    os._exit(9)

            RunWriter.commit = last
            lb.nn.fit(self.training(seed), store=path)

        in_child(train)

    def read(self, path):
        return everything(lb.open(path))

    def go_on(self, path):
        return numbers(lb.resume(path))

    repair = go_on


KINDS = {kind.__name__.lower(): kind for kind in (Finished, Unfinished, Tied, Batch, Ensemble)}
MODELS = {kind.__name__.lower(): kind for kind in (Tracked, Untracked, Fitted)}


def in_child(action):
    """Run `action`, which ends its process by os._exit(9), in a forked child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


class Trial:
    """An undamaged store at `path`, and what it holds. `judge` says what a change of it comes to."""

    def __init__(self, kind, path):
        self.kind = kind
        self.path = path
        self.clock = 0
        kind.make(path)
        self.content = kind.read(path)
        self.after = self.on_a_copy(kind.go_on)
        self.files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
        self.found = Counter()
        self.told = []

    def on_a_copy(self, act):
        copy = self.path.with_name("copy")
        shutil.copytree(self.path, copy)
        try:
            return act(copy)
        finally:
            shutil.rmtree(copy)

    def replace(self, file, data):
        """Write a file in place, with a time that no other had: what is kept in memory goes by that."""
        file.write_bytes(data)
        self.clock += 1
        os.utime(file, ns=(self.clock, self.clock))

    def judge(self, file, data, go_on=False):
        """Write `data` to `file`, read and go on, put the file right again. go_on: also where reading has refused."""
        own = file.read_bytes()
        if data == own:
            return
        self.replace(file, data)
        try:
            verdict = self._verdict(go_on)
        except Exception as error:  # which is what is looked for
            verdict = "traceback"
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.told.append(f"{self._short(file)}: {type(error).__name__}: {error} ({last.filename}:{last.lineno})")
        finally:
            self.replace(file, own)
        if verdict == "silent":
            place = next((i for i, (a, b) in enumerate(zip(own, data, strict=False)) if a != b), len(own))
            self.told.append(f"{self._short(file)}: byte {place} of {len(own)} went unseen")
        self.found[verdict] += 1

    def _short(self, file):
        return f"{type(self.kind).__name__}/{file.relative_to(self.path)}"

    def _verdict(self, go_on):
        try:
            same = self.kind.read(self.path) == self.content
        except REFUSED:
            if go_on:
                self._go_on(self.kind.go_on)
                self._go_on(self.kind.repair)
            return "detected"
        if not same:
            return "silent"
        return self._go_on(self.kind.go_on)

    def _go_on(self, act):
        """Going on refuses, or gives the bits of a store that was not damaged."""
        try:
            after = self.on_a_copy(act)
        except REFUSED:
            return "detected"
        if after != self.after:
            raise AssertionError("going on from the damaged store gives other bits")
        return "harmless"


def header_bytes(file):
    """Places of the bytes of a file that are not numbers: all of a JSON or TOML file; around the numbers of others."""
    data = file.read_bytes()
    if file.suffix in (".json", ".toml"):
        return range(len(data))
    if file.suffix not in (".npz", ".npy"):
        return [*range(min(120, len(data))), *range(max(0, len(data) - 16), len(data))]
    starts = [place for place in range(len(data) - 10) if data[place : place + 6] == b"\x93NUMPY"]
    ends = [start + 10 + int.from_bytes(data[start + 8 : start + 10], "little") for start in starts]
    places = set(range(starts[0] if starts else 0))
    for start, end in zip(starts, ends, strict=True):
        places.update(range(start, end))
    central = data.find(b"PK\1\2")
    places.update(range(central, len(data)) if central > 0 else ())
    for local in range(len(data) - 4):
        if data[local : local + 4] == b"PK\3\4":
            places.update(range(local, min(local + 80, len(data))))
    return sorted(places)


def chosen(trial):
    """One file of every sort that a store has, for which every bit of its headers is flipped."""
    sorts = {}
    for file in trial.files:
        sort = file.name if file.suffix else "chunk"
        if file.parent.name in ("checkpoints", "groups", "batches"):
            sort = file.parent.name
        if file.name == "zarr.json":
            sort = f"zarr {json.loads(file.read_text())['node_type']}"
        sorts[sort] = file
    return sorts.values()


def flips(trial, stride, most, chance):
    """(file, place, bit): a stride of all in headers, at most `most` a file, and a sample of all bytes of all files."""
    for file in chosen(trial):
        every = [(place, bit) for place in header_bytes(file) for bit in range(8)]
        step = max(stride, len(every) // most)
        for place, bit in every[chance.integers(step) :: step]:
            yield file, place, bit
    for file in trial.files:
        for _ in range(max(1, 12 // stride)):
            yield file, int(chance.integers(file.stat().st_size)), int(chance.integers(8))


def flip_all(trial, stride, most, chance):
    for number, (file, place, bit) in enumerate(flips(trial, stride, most, chance)):
        data = bytearray(file.read_bytes())
        data[place] ^= 1 << bit
        trial.judge(file, bytes(data), go_on=number % 25 == 0)


def swaps(trial, others, chance, most):
    """(file, what it is replaced by): by its like of another store, and by another file of its own store."""
    pairs = []
    for file in trial.files:
        for other in others:
            like = other / file.relative_to(trial.path)
            if like.is_file():
                pairs.append((file, like))
        alike = [own for own in trial.files if own.suffix == file.suffix and own != file]
        pairs += [(file, own) for own in alike]
    pairs = [(file, source) for file, source in pairs if file.read_bytes() != source.read_bytes()]
    for place in chance.permutation(len(pairs))[:most]:
        yield pairs[place]


def damage(kind, base, stride, most, swapped):
    """{"flips": verdicts, "swaps": verdicts, "told": …} of a kind of store."""
    chance = np.random.default_rng(1)
    trial = Trial(kind(), base / "store")
    flip_all(trial, stride, most, chance)
    report = {"flips": dict(trial.found)}
    trial.found = Counter()
    others = [base / "twin", base / "another"]
    for other, seed in zip(others, (0, 7), strict=True):
        trial.kind.make(other, seed)
    for file, source in swaps(trial, others, chance, swapped):
        trial.judge(file, source.read_bytes(), go_on=True)
    return {**report, "swaps": dict(trial.found), "told": trial.told}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="*", default=[*KINDS, *MODELS])
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--most", type=int, default=400)
    parser.add_argument("--swaps", type=int, default=40)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    store.MOST_CHUNK_ROWS = 16  # several chunks in a small run
    report = {}
    for name in options.kinds:
        base = Path(tempfile.mkdtemp(prefix="lrbias-damage-"))
        report[name] = damage({**KINDS, **MODELS}[name], base, options.stride, options.most, options.swaps)
        shutil.rmtree(base)
        print(name, report[name], file=sys.stderr)
    print(json.dumps(report))
    sys.exit(any(found["told"] for found in report.values()))


if __name__ == "__main__":
    main()
