"""What an ensemble recorded: ranks over time, jumps, entries into and exits from the sets B_r."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lrbias.analysis import rate_interval, share_interval
from lrbias.errors import StoreError, check, shorten
from lrbias.network import Network
from lrbias.storage import Count, NonNegativeInt, Text, current_settings, read_json
from lrbias.system import OVERHEAD, Damaged, as_path, check_seal, expect, pack, read_bytes, seal_of, unpack, write_file
from lrcore import layout

FORMAT = 2  # 1: with the words of an earlier version
TEST_ERROR = "hidden_error"  # as the files call it
FINGERPRINT = "fingerprint"  # of the ensemble that a group belongs to, among the arrays of one without a seal
GROUP_FILE = re.compile(r"\d{5,}\.npz")


class _Document(BaseModel):
    """ensemble.json."""

    model_config = ConfigDict(extra="allow")
    format: Count
    runs: Count
    steps: Count
    every: Count
    widths: list[Count] = Field(min_length=2)
    dtype: Text = Field(pattern="^float(32|64)$")
    lr: list[float]
    ridge: list[float]
    sampling_seed: list[NonNegativeInt | int]
    data: Text
    fingerprint: Text
    sealed: bool = False


def write_group(path, arrays, owner):
    """Replace the .npz file of a group, or data.npz, of the ensemble with the fingerprint `owner`."""
    write_file(path, pack(arrays, owner, path.stem))


def read_group(path, document):
    """{name: array} of a group of the ensemble that `document` describes; StoreError when the file is damaged or that
    of another ensemble, or another of its groups."""
    owner = document["fingerprint"]
    try:
        data = read_bytes(path, _most_bytes(document))
        sealed = seal_of(data)
        found = unpack(data)
        own = str(found.pop(FINGERPRINT, "")) if sealed is None else sealed[0]  # those without a seal are older
        if own != owner:
            raise StoreError(f"{path} belongs to another ensemble; remove it, and the same call makes its runs again.")
        if sealed is None and document.get("sealed", False):
            raise Damaged("it does not say which group it is")
        if sealed is not None:
            check_seal(data, owner, path.stem)
        _check_group(found, document)
    except (Damaged, FileNotFoundError) as error:
        raise StoreError(f"{path} is damaged ({error}); remove it, and the same call makes its runs again.") from None
    return found


def _check_group(found, document):
    """Damaged unless the arrays have the shapes that such a group has."""
    widths = document["widths"]
    records = document["steps"] // document["every"] + 1
    runs = len(expect(found, "ended", (None,), "i8"))
    for name in ("ranks", "absorbing", "train_error", TEST_ERROR):
        kind = found[name].dtype if name in found else np.dtype("f8")
        expect(found, name, (runs, records), kind)
        if kind.kind not in "if":
            raise Damaged(f"{name} is {kind}")
    expect(found, "diverged", (runs,), "?")
    expect(found, "values", (runs, min(widths[0], widths[-1])), found["values"].dtype if "values" in found else "f8")
    size = layout.size(widths)
    expect(found, "params", (runs, size), document["dtype"])
    expect(found, "seconds", (1,), "f8")


def _most_bytes(document):
    """Bytes that a group has at most."""
    widths = document["widths"]
    records = document["steps"] // document["every"] + 1
    size = layout.size(widths)
    return 8 * document["runs"] * (4 * records + size + sum(widths) + 4) + OVERHEAD


def read_ensemble_json(path):
    """What ensemble.json in the folder `path` says; StoreError unless it describes an ensemble."""
    document = read_json(path / "ensemble.json")
    try:
        _Document.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"{path / 'ensemble.json'} is not what lrbias writes ({where}: {first['msg']}); restore it from a copy."
        ) from None
    if document["format"] not in (1, FORMAT):
        raise StoreError(
            f"{path / 'ensemble.json'} has format {document['format']}; this version reads 1 and {FORMAT}."
        )
    return {**document, "shared": current_settings(document.get("shared", {}))}


def data_problem(path, document):
    """A sentence when data.npz in the folder `path` is not the one of the ensemble, else None."""
    file = path / "data.npz"
    problem = None
    try:
        data = read_bytes(file)
        if document.get("sealed", False):
            check_seal(data, document["fingerprint"], file.stem)
        digest = hashlib.sha256()
        for array in unpack(data).values():
            digest.update(np.ascontiguousarray(array).tobytes())
        if digest.hexdigest() != document["data"]:
            problem = "is damaged (its numbers are not those of the ensemble)"
    except FileNotFoundError:
        problem = "is missing"
    except Damaged as error:
        problem = f"is damaged ({error})"
    return problem and f"{file} {problem}; the call that began the ensemble writes it anew."


def open_ensemble(path: str | PathLike[str]) -> Ensemble:
    """The Ensemble in a folder; InvalidInput when there is none, StoreError unless all of its groups are there."""
    path = as_path("path", path)
    check((path / "ensemble.json").is_file(), "path", str(path), "the folder of an ensemble")
    document = read_ensemble_json(path)
    problem = data_problem(path, document)
    if problem:
        raise StoreError(problem)
    files = sorted(file for file in (path / "groups").glob("*.npz") if GROUP_FILE.fullmatch(file.name))
    groups = [read_group(file, document) for file in files]
    made = sum(len(group["ranks"]) for group in groups)
    if made != document["runs"]:
        raise StoreError(f"{path} holds {made} of {document['runs']} runs; the call that began it goes on with it.")
    return Ensemble(document, groups, path)


class Ensemble:
    """R runs with T records each.

    steps (T,)                        of the records
    ranks (R, T)                      of the product, with hysteresis
    absorbing (R, T)                  the smallest r with the network in B_r, −1 for none
    train_error, test_error (R, T)  root mean squares over observed and hidden entries
    diverged (R,)                     whether a run's loss became infinite or NaN
    ended (R,)                        the last step; where a run diverged, that of the first record with such a loss
    values (R, k)                     singular values of the product at the end; zeros where a run diverged
    lr, ridge, sampling_seed (R,)     of each run
    seconds                           that its groups took one after the other; several threads share them
    """

    def __init__(
        self, document: dict[str, Any], groups: Sequence[dict[str, np.ndarray]], path: Path | None = None
    ) -> None:
        self.document = document
        self.path = path
        joined = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
        self.ranks = joined["ranks"]
        self.absorbing = joined["absorbing"]
        self.train_error = joined["train_error"]
        self.test_error = joined[TEST_ERROR]
        self.diverged = joined["diverged"]
        self.ended = joined["ended"]
        self.values = joined["values"]
        self._params = joined["params"]
        self.seconds = float(joined["seconds"].sum())
        self.steps = np.arange(0, document["steps"] + 1, document["every"])
        self.lr = np.array(document["lr"])
        self.ridge = np.array(document["ridge"])
        self.sampling_seed = np.array(document["sampling_seed"], np.uint64)

    def __len__(self) -> int:
        return len(self.ranks)

    def network(self, run: int) -> Network:
        """The network of a run at its end."""
        return Network(self._params[run].copy(), self.document["widths"])

    @property
    def counted(self) -> np.ndarray:
        """(R, T): the records that count, those before a run diverged."""
        return (self.steps < self.ended[:, None]) | ~self.diverged[:, None]

    @property
    def changes(self) -> np.ndarray:
        """(R, T − 1): of the rank from record to record; 0 for a run that diverges, whose ranks mean little: while one
        direction explodes, all others fall below its share."""
        return np.where(self.diverged[:, None], 0, np.diff(self.ranks.astype(int), axis=1))

    @property
    def down(self) -> np.ndarray:
        """(R,): how many directions each run lost."""
        return np.maximum(-self.changes, 0).sum(axis=1)

    @property
    def up(self) -> np.ndarray:
        """(R,): how many directions each run gained."""
        return np.maximum(self.changes, 0).sum(axis=1)

    @property
    def million_steps(self) -> float:
        """In which jumps are counted: those of all runs that did not diverge."""
        return float(self.ended[~self.diverged].sum()) / 1e6

    @property
    def first_falls(self) -> np.ndarray:
        """(R,): the step of the first record at which a direction was lost, −1 for a run that lost none."""
        fallen = self.changes < 0
        return np.where(fallen.any(axis=1), self.steps[1:][fallen.argmax(axis=1)], -1)

    def jump_rate(self) -> dict[str, Any]:
        """The rate of first jumps downwards per million steps, {"count", "rate", "interval"}.

        A run counts until its first one, or to its end: what has jumped cannot jump first again.
        """
        first = self.first_falls
        until = np.where(first >= 0, first, self.ended)
        return _counted(first >= 0, until[~self.diverged].sum() / 1e6)

    def inside(self, rank: int) -> np.ndarray:
        """(R, T): whether a run is in B_rank."""
        return (self.absorbing >= 0) & (self.absorbing <= rank)

    def entered(self, rank: int) -> np.ndarray:
        """(R,): whether a run was ever in B_rank."""
        return (self.inside(rank) & self.counted).any(axis=1)

    def exits(self, rank: int) -> np.ndarray:
        """(R,): how often a run left B_rank from one record to the next; diverging is leaving."""
        inside = self.inside(rank)
        return (inside[:, :-1] & ~inside[:, 1:]).sum(axis=1)

    def reached(self, rank: int) -> np.ndarray:
        """(R,): the first record's step with at most this rank, −1 if there is none."""
        low = (self.ranks <= rank) & self.counted
        return np.where(low.any(axis=1), self.steps[low.argmax(axis=1)], -1)

    def table(self, rank: int = 1) -> dict[str, Any]:
        """The facts in a dictionary: counts with exact 95 % intervals; rates are per million steps.

        Jumps are those of runs that did not diverge. An exit counts for every run, and diverging is one.
        """
        millions = self.million_steps
        after = (self.inside(rank) & self.counted)[:, :-1].sum() * self.document["every"] / 1e6
        low = int(((self.reached(rank) >= 0) & ~self.diverged).sum())
        return {
            "runs": len(self),
            "steps": int(self.steps[-1]),
            "diverged": int(self.diverged.sum()),
            "down": _counted(self.down, millions),
            "up": _counted(self.up, millions),
            "reached": {"rank": rank, "runs": low, "share": share_interval(low, len(self))},
            "entered": {"set": f"B_{rank}", "runs": int(self.entered(rank).sum())},
            "exits": _counted(self.exits(rank), after),
        }

    def __repr__(self) -> str:
        facts = self.table()
        lines = [
            f"Ensemble: {facts['runs']} runs of {facts['steps']} steps, widths "
            f"{' → '.join(map(str, self.document['widths']))}, {facts['diverged']} diverged"
        ]
        for name in ("down", "up"):
            lines.append(f"  jumps {name:<5} {_shown(facts[name])} a run and million steps")
        lines.append(f"  rank 1 reached by {facts['reached']['runs']} runs")
        lines.append(
            f"  B_1 entered by {facts['entered']['runs']} runs, exits {_shown(facts['exits'])} a million steps in it"
        )
        return "\n".join(lines)


def _counted(counts: np.ndarray, millions: float) -> dict[str, Any]:
    total = int(counts.sum())
    interval = rate_interval(total, millions) if millions > 0 else (0.0, float("inf"))
    return {"count": total, "rate": total / millions if millions > 0 else None, "interval": interval}


def _shown(found: dict[str, Any]) -> str:
    lower, upper = found["interval"]
    rate = "—" if found["rate"] is None else f"{found['rate']:.3g}"
    return shorten(f"<{found['count']}, {rate} (95 %: {lower:.3g} to {upper:.3g})>").strip("<>")
