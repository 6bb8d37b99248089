"""Some entries of a target, drawn or from a file; also what else a file says of it: measurements, moments of data."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from lrbias.errors import InvalidInput, check, check_settable
from lrbias.problems._completion import Completion, Reduction, Sensing
from lrbias.problems._factorization import Problem
from lrbias.problems._observed import load_observed, restore
from lrbias.problems._registry import PROBLEMS, Fitted
from lrbias.problems._targets import TARGETS, Made, Target, TargetFile, Teacher
from lrbias.settings import Accepts, Fraction, OneOf, PathOf, Seed, Switch, Word


@PROBLEMS.add
class ObservedEntries(Fitted):
    """The loss over observed entries: see `lb.Completion`.

    A file may hold linear measurements instead (`lb.Sensing`), or the moments of data (`lb.Regression`).
    """

    name: ClassVar[str] = "completion"
    selected_by: ClassVar[tuple[str, ...]] = ("observed", "fraction", "entries")
    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = (("observed", "fraction", "entries"),)
    excludes: ClassVar[dict[str, tuple[str, ...]]] = {"observed": ("mask_seed", "symmetric_mask")}
    target: Annotated[Target, OneOf(TARGETS)] = Field(default=Teacher(), description="where the target comes from")
    observed: Annotated[Any, PathOf("observed entries")] = Field(
        default=None,
        description="fit only these entries: a mask (.npy, table or image, not 0 where observed), or the observed.npz "
        "of a run",
    )
    fraction: Fraction | None = Field(default=None, description="fit only this share of the entries, drawn at random")
    entries: Annotated[Any, Accepts("a number of entries, or their positions")] = Field(
        default=None, description="fit only so many entries, drawn at random"
    )
    seed: Annotated[Seed, Word("mask_seed")] = Field(default=0, description="seed of the observed entries")
    symmetric_mask: Switch = Field(
        default=False,
        description="draw entries of a square target in pairs (i, j), (j, i); fraction and entries count pairs",
    )
    reduction: Reduction = Field(default="sum", description="the loss of observed entries: their sum or their mean")

    @model_validator(mode="after")
    def _check_file(self) -> "ObservedEntries":
        if self.observed is not None:
            reason = "the entries are those of a file"
            check_settable("seed" not in self.model_fields_set, "mask_seed", self.seed, reason)
            check_settable(not self.symmetric_mask, "symmetric_mask", self.symmetric_mask, reason)
        return self

    def make(self, depth: int) -> Problem:
        made = self.target.make(depth)
        if self.observed is not None:
            return self._from_file(made)
        return Completion(
            made.matrix,
            fraction=self.fraction,
            entries=self.entries,
            seed=self.seed,
            reduction=self.reduction,
            source=made.source,
            symmetric_mask=self.symmetric_mask,
        )

    def _from_file(self, made: Made) -> Problem:
        found = load_observed(self.observed)
        from_file = isinstance(self.target, TargetFile)
        if "matrices" in found:
            known = found.get("truth_known", from_file)  # a file of a run says so itself
            return Sensing(found["matrices"], found["values"], made.matrix if known else None, self.reduction)
        if "mask" not in found:
            check(from_file, "observed", self.observed, "a target file beside what a run keeps of data")
            check(self.reduction == "sum", "reduction", self.reduction, "a setting of observed entries, not of data")
            return restore(made.matrix, found)
        target = np.where(found["known"], made.matrix, np.nan) if "known" in found else made.matrix
        try:
            return Completion(target, found["mask"], reduction=self.reduction, source=made.source)
        except InvalidInput as error:  # here the mask has another name
            raise InvalidInput(str(error).replace("mask =", "observed =", 1)) from None
