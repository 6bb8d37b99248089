"""Reading what was recorded of the weight matrices of a model. No PyTorch is needed for that."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrbias import theory
from lrbias.errors import InvalidInput, check, shorten
from lrbias.runs._reader import RunReader
from lrbias.storage import RunSource

MODEL = "model"  # the kind in config.json
VALUES = "singular_values"
RANK = {"spectral": "relative_rank", "frobenius": "relative_rank_frobenius"}  # by what a matrix is divided


def is_model(config: dict[str, Any]) -> bool:
    """Whether config.json is that of a model that was tracked or trained."""
    return config.get("kind") == MODEL


@dataclass(frozen=True)
class Layer:
    """A weight matrix: its name in the model, what it is a part of, its shape, and how often a sample meets it.

    patches: m_l, None where it is not known.
    """

    name: str
    kind: str
    rows: int
    columns: int
    patches: int | None = None

    @property
    def size(self) -> int:
        """How many singular values it has."""
        return min(self.rows, self.columns)


class ModelRun(RunReader):
    """What was recorded of a model's weight matrices.

    run["layer/NAME/relative_rank"]   of one matrix, first axis = records; also "layer/NAME/singular_values"
    run["layers/relative_rank"]       of all of them, (records, layers), in the order of `run.layers`
    run["average/relative_rank"]      the mean over all of them; `run.average(…, layers="conv*")` over some
    run["layers/norm_ratio"]          ‖W‖_F at the record before, divided by that at this one
    run["loss"]                       what was noted at each record, `run.names` lists it; NaN where nothing was
    run.steps_of(name)                the steps of the rows
    run.rank                          the name of the rank that `norm` chose: relative_rank or relative_rank_frobenius
    """

    def __init__(self, source: RunSource, config: dict[str, Any]) -> None:
        super().__init__(source, config)
        self.layers = [Layer(**layer) for layer in config["layers"]]
        self._places = {layer.name: place for place, layer in enumerate(self.layers)}
        ends = np.cumsum([layer.size for layer in self.layers])
        self._spans = [slice(end - layer.size, end) for end, layer in zip(ends, self.layers, strict=True)]

    @property
    def label(self) -> str:
        """What the model is, for a legend."""
        return self.settings["model"]

    @property
    def rank(self) -> str:
        return RANK[self.settings["norm"]]

    @property
    def unit(self) -> str:
        """What a step is: "step" of an optimizer or "epoch"."""
        return self.settings["unit"]

    def __contains__(self, name: object) -> bool:
        try:
            self._stored(name)
        except InvalidInput:
            return False
        return True

    def __getitem__(self, name: str) -> np.ndarray:
        stored, choose = self._stored(name)
        return choose(super().__getitem__(stored))

    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        """Rows first … last − 1 of a quantity, as far as they were recorded: for what is too large at once."""
        stored, choose = self._stored(name)
        return choose(super().rows(stored, first, last))

    def steps_of(self, name: str) -> np.ndarray:
        """The steps at which a quantity was recorded."""
        return super().steps_of(self._stored(name)[0])

    def _stored(self, name: Any) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
        """(the stored quantity that holds `name`, what takes it from its rows)."""
        group, _, rest = name.partition("/")
        layer, _, metric = rest.rpartition("/")
        if name in self._config["quantities"]:
            return name, np.asarray
        if name == "layers/norm_ratio":
            return "layers/norm", _ratios
        if group == "average" and f"layers/{rest}" in self._config["quantities"]:
            return f"layers/{rest}", lambda rows: rows.mean(axis=1)
        if group == "layer" and layer in self._places:
            place = self._places[layer]
            if metric == VALUES:
                return VALUES, lambda rows: rows[:, self._spans[place]]
            if f"layers/{metric}" in self:
                stored, choose = self._stored(f"layers/{metric}")
                return stored, lambda rows: choose(rows)[:, place]
        raise InvalidInput(f"{shorten(name)} was not recorded in this run: expected one of {self._known()}.")

    def _known(self) -> str:
        return ", ".join([*self.names, "layers/norm_ratio", "layer/NAME/…", "average/…"])

    def chosen(self, layers: Any) -> list[str]:
        """Names of the layers that match a pattern or any of several; None: all."""
        patterns = ["*"] if layers is None else [layers] if isinstance(layers, str) else list(layers)
        found = [name for name in self._places if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        check(bool(found), "layers", layers, f"a pattern that matches one of {shorten(list(self._places), 200)}")
        return found

    def average(self, metric: str | None = None, layers: Any = None) -> np.ndarray:
        """Rows of the mean of a metric over the layers that match; metric None: `run.rank`."""
        rows = self[f"layers/{metric or self.rank}"]
        return rows[:, [self._places[name] for name in self.chosen(layers)]].mean(axis=1)

    def bounds(self, epsilon: float | None = None) -> dict[str, float]:
        """{layer: m_l B log(2/ε)/(2μλ)} of Galanti et al., as far as the settings and m_l are known; ε by default the
        threshold of the rank. Empty where there is no weight decay.
        """
        epsilon = self.settings["epsilon"] if epsilon is None else epsilon
        lr, decay, batch = (self.settings.get(key) for key in ("lr", "weight_decay", "batch"))
        if not (lr and decay and batch):
            return {}
        known = {layer.name: layer.patches for layer in self.layers if layer.patches is not None}
        return {name: theory.rank_bound(lr, decay, batch, epsilon, patches) for name, patches in known.items()}

    def checkpoint_arrays(self, step: int) -> dict[str, np.ndarray]:
        """{name: array} of a checkpoint of `lb.nn.fit`: "model/…" are the entries of the state dict."""
        return self._source.checkpoint_arrays(self._checkpoint_step(step))

    def summary(self) -> dict[str, Any]:
        """The facts of a run as a dictionary: what `lrbias info --json` prints."""
        facts: dict[str, Any] = {
            "path": str(self.path) if self.path else None,
            "status": self.status,
            "detail": self.detail,
            "step": self.step,
            "unit": self.unit,
            "elapsed_s": self.elapsed,
            "model": self.label,
            "layers": len(self.layers),
            "largest": [max(layer.rows for layer in self.layers), max(layer.columns for layer in self.layers)],
            "records": len(self.steps_of(VALUES)),
            "checkpoints": len(self.checkpoints),
        }
        if facts["records"]:
            for metric in (self.rank, "stable_rank", "effective_rank"):
                averages = self[f"average/{metric}"]
                facts[f"average_{metric}"] = [float(averages[0]), float(averages[-1])]
            facts.update({name: float(self[name][-1]) for name in self.scalars})
        return facts

    @property
    def scalars(self) -> list[str]:
        """Names of what was noted beside the matrices: "loss", "test_accuracy" …"""
        return [name for name, quantity in self._config["quantities"].items() if quantity["shape"] == []]

    def __repr__(self) -> str:
        facts = self.summary()
        lines = [
            f"ModelRun: {self.label}, {len(self.layers)} matrices, {self.status} at {self.unit} {self.step}",
            f"  {self.detail}",
        ]
        if facts["records"]:
            words = {self.rank: "rank", "stable_rank": "stable rank", "effective_rank": "effective rank"}
            ranks = [(word, facts[f"average_{metric}"]) for metric, word in words.items()]
            told = ", ".join(f"{word} {first:.1f} → {last:.1f}" for word, (first, last) in ranks)
            lines.append(f"  averages over the matrices: {told}")
            known = [name for name in self.scalars if np.isfinite(facts[name])]
            noted = ", ".join(f"{name} {facts[name]:.4g}" for name in known)
            lines.append(f"  at the last record: {noted}" if noted else "  nothing was noted beside them")
        kept = facts["path"] or "in memory"
        lines.append(f"  {facts['records']} records, {facts['checkpoints']} checkpoints, store: {kept}")
        return "\n".join(lines)


def _ratios(norms: np.ndarray) -> np.ndarray:
    """‖W_{T−1}‖ / ‖W_T‖ over the records; NaN at the first one."""
    ratios = np.full_like(norms, np.nan)
    with np.errstate(all="ignore"):  # a matrix that vanished has no ratio
        ratios[1:] = norms[:-1] / norms[1:]
    return ratios
