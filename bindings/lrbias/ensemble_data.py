"""What an ensemble recorded: ranks over time, jumps, entries into and exits from the sets B_r."""

import io

import numpy as np

from lrbias.errors import StoreError, require, shorten
from lrbias.intervals import rate_interval, share_interval
from lrbias.network import Network
from lrbias.paths import as_path
from lrbias.store import DAMAGE, read_json, write_file

FORMAT = 1
FINGERPRINT = "fingerprint"  # of the ensemble that a group belongs to


def write_group(path, arrays):
    """Replace a .npz file as a whole."""
    data = io.BytesIO()
    np.savez(data, **arrays)
    write_file(path, data.getvalue())


def read_group(path, fingerprint):
    """{name: array} of a group; StoreError when the file is damaged or that of another ensemble."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
            own = str(found.pop(FINGERPRINT))
    except DAMAGE as error:
        raise StoreError(f"{path} is damaged ({error}); remove it, and the same call makes its runs again.") from None
    if own != fingerprint:
        raise StoreError(f"{path} belongs to another ensemble; remove it, and the same call makes its runs again.")
    return found


def open_ensemble(path):
    """The Ensemble in a folder; InvalidInput when there is none, StoreError unless all of its groups are there."""
    path = as_path("path", path)
    require((path / "ensemble.json").is_file(), "path", str(path), "the folder of an ensemble")
    document = read_json(path / "ensemble.json")
    groups = [read_group(file, document["fingerprint"]) for file in sorted((path / "groups").glob("*.npz"))]
    made = sum(len(group["ranks"]) for group in groups)
    if made < document["runs"]:
        raise StoreError(f"{path} holds {made} of {document['runs']} runs; the call that began it goes on with it.")
    return Ensemble(document, groups, path)


class Ensemble:
    """R runs with T records each.

    steps (T,)                        of the records
    ranks (R, T)                      of the product, with hysteresis
    absorbing (R, T)                  the smallest r with the network in B_r, −1 for none
    train_error, hidden_error (R, T)  root mean squares over observed and hidden entries
    diverged (R,)                     whether a run's loss became infinite or NaN
    ended (R,)                        the last step; where a run diverged, that of the first record with such a loss
    values (R, k)                     singular values of the product at the end; zeros where a run diverged
    lr, ridge, sampling_seed (R,)     of each run
    seconds                           that its groups took one after the other; several threads share them
    """

    def __init__(self, document, groups, path=None):
        self.document, self.path = document, path
        joined = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
        self.ranks, self.absorbing = joined["ranks"], joined["absorbing"]
        self.train_error, self.hidden_error = joined["train_error"], joined["hidden_error"]
        self.diverged, self.ended, self.values = joined["diverged"], joined["ended"], joined["values"]
        self._params, self.seconds = joined["params"], float(joined["seconds"].sum())
        self.steps = np.arange(0, document["steps"] + 1, document["every"])
        self.lr, self.ridge = np.array(document["lr"]), np.array(document["ridge"])
        self.sampling_seed = np.array(document["sampling_seed"], np.uint64)

    def __len__(self):
        return len(self.ranks)

    def network(self, run):
        """The network of a run at its end."""
        return Network(self._params[run].copy(), self.document["widths"])

    @property
    def counted(self):
        """(R, T): the records that count, those before a run diverged."""
        return (self.steps < self.ended[:, None]) | ~self.diverged[:, None]

    @property
    def changes(self):
        """(R, T − 1): of the rank from record to record; 0 for a run that diverges, whose ranks mean little: while one
        direction explodes, all others fall below its share."""
        return np.where(self.diverged[:, None], 0, np.diff(self.ranks.astype(int), axis=1))

    @property
    def down(self):
        """(R,): how many directions each run lost."""
        return np.maximum(-self.changes, 0).sum(axis=1)

    @property
    def up(self):
        """(R,): how many directions each run gained."""
        return np.maximum(self.changes, 0).sum(axis=1)

    @property
    def million_steps(self):
        """In which jumps are counted: those of all runs that did not diverge."""
        return float(self.ended[~self.diverged].sum()) / 1e6

    @property
    def first_falls(self):
        """(R,): the step of the first record at which a direction was lost, −1 for a run that lost none."""
        fallen = self.changes < 0
        return np.where(fallen.any(axis=1), self.steps[1:][fallen.argmax(axis=1)], -1)

    def jump_rate(self):
        """The rate of first jumps downwards per million steps, {"count", "rate", "interval"}.

        A run counts until its first one, or to its end: what has jumped cannot jump first again.
        """
        first = self.first_falls
        until = np.where(first >= 0, first, self.ended)
        return _counted(first >= 0, until[~self.diverged].sum() / 1e6)

    def inside(self, rank):
        """(R, T): whether a run is in B_rank."""
        return (self.absorbing >= 0) & (self.absorbing <= rank)

    def entered(self, rank):
        """(R,): whether a run was ever in B_rank."""
        return (self.inside(rank) & self.counted).any(axis=1)

    def exits(self, rank):
        """(R,): how often a run left B_rank from one record to the next; diverging is leaving."""
        inside = self.inside(rank)
        return (inside[:, :-1] & ~inside[:, 1:]).sum(axis=1)

    def reached(self, rank):
        """(R,): the first record's step with at most this rank, −1 if there is none."""
        low = (self.ranks <= rank) & self.counted
        return np.where(low.any(axis=1), self.steps[low.argmax(axis=1)], -1)

    def table(self, rank=1):
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

    def __repr__(self):
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


def _counted(counts, millions):
    total = int(counts.sum())
    interval = rate_interval(total, millions) if millions > 0 else (0.0, float("inf"))
    return {"count": total, "rate": total / millions if millions > 0 else None, "interval": interval}


def _shown(found):
    lower, upper = found["interval"]
    rate = "—" if found["rate"] is None else f"{found['rate']:.3g}"
    return shorten(f"<{found['count']}, {rate} (95 %: {lower:.3g} to {upper:.3g})>").strip("<>")
