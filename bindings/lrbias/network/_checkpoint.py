"""The network of a checkpoint."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from lrbias.errors import InvalidInput, check, shorten
from lrbias.network._initialization import INITIALIZATIONS, Initialization, Start
from lrbias.network._widths import as_widths
from lrbias.settings import PathOf, Scale, Word, validate
from lrbias.system import Damaged, as_path, read_archive
from lrcore import layout

ACCEPTED = "the path of a checkpoint (.npz) of a lrbias run"


@INITIALIZATIONS.add
class Checkpoint(Initialization):
    """The network of a checkpoint of a run."""

    name: ClassVar[str] = "checkpoint"
    selected_by: ClassVar[tuple[str, ...]] = ("network",)
    path: Annotated[Any, PathOf("a checkpoint"), Word("network")] = Field(description="a checkpoint (.npz) of a run")

    def start(self, shape: tuple[int, int]) -> Start:
        path = str(as_path("network", self.path))
        check(Path(path).is_file(), "network", path, ACCEPTED)
        try:
            start = start_of(read_archive(path))
        except (Damaged, OSError, KeyError, ValueError, TypeError) as error:
            reason = shorten(str(error))
            raise InvalidInput(f"network = {path!r} is not accepted: expected {ACCEPTED} ({reason}).") from None
        try:
            check_start(start)
        except InvalidInput as error:
            raise InvalidInput(f"network = {path!r}: {error}") from None
        return start


def start_of(arrays: dict[str, Any]) -> Start:
    """The network of a checkpoint, {name: array}; of a linearised run the one that it linearised."""
    origin = "origin_" if "origin_params" in arrays else ""
    widths = tuple(int(n) for n in arrays[f"{origin}widths"])
    return Start(arrays[f"{origin}params"], widths, None, float(arrays.get(f"{origin}scale", 1)))


def check_start(start: Start) -> None:
    """InvalidInput unless the parameters fit the widths and are finite numbers."""
    params = start.params
    widths = as_widths(start.widths)
    known = params.ndim == 1 and params.dtype.name in ("float64", "float32")
    check(known, "params", f"<{params.dtype}, shape {params.shape}>", "a vector, float64 or float32")
    size = layout.size(widths)
    check(params.size == size, "params", f"<{params.size} numbers>", f"{size}, for widths {widths}")
    check(np.isfinite(params).all(), "params", f"<{size} numbers>", "finite numbers")
    validate(Scale, "output_scale", start.output_scale)
