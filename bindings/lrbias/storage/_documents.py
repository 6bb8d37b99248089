"""What config.json and progress.json of a run hold, checked before anything relies on it.

A checksum finds damage; these types find a document that somebody wrote who is not lrbias.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lrbias.errors import StoreError, shorten

NonNegativeInt = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Count = Annotated[int, Field(ge=1, lt=2**63, strict=True)]
Crc = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Text = Annotated[str, Field(strict=True)]
Name = Annotated[str, Field(strict=True, pattern=r"^\w[\w-]*(/\w[\w-]*)*$")]  # a path below the log, and not out of it
Dtype = Annotated[str, Field(strict=True, pattern=r"^([fiuc][1248]|c16|b1)$")]
Run = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{32}$")]


class _Document(BaseModel):
    model_config = ConfigDict(extra="allow")


class Quantity(_Document):
    interval: Count
    shape: list[NonNegativeInt] = Field(max_length=32)
    dtype: Dtype


class _Layer(_Document):
    name: Text
    kind: Text
    rows: Count
    columns: Count


class _File(_Document):
    bytes: NonNegativeInt
    crc32: Crc


class _RunConfig(_Document):
    settings: dict[Text, Any]
    quantities: dict[Name, Quantity]
    made_with: dict[Text, Any]
    run: Run | None = None
    files: dict[Text, _File] = {}


class _NetworkConfig(_RunConfig):
    """Of a deep linear network."""

    widths: list[Count] = Field(min_length=2)
    functions: list[Text]
    target_crc32: Crc
    observed_crc32: Crc | None = None
    target_source: Any
    output_scale: float = 1.0


class _ModelConfig(_RunConfig):
    """Of a model that was tracked or trained by lrbias.nn."""

    kind: Literal["model"]
    layers: list[_Layer] = Field(min_length=1)


class _Progress(_Document):
    step: NonNegativeInt
    checkpoint: NonNegativeInt
    status: Text
    detail: Text
    rows: dict[Annotated[str, Field(pattern=r"^[1-9]\d{0,18}$")], NonNegativeInt]
    losses: NonNegativeInt
    tail: bool
    elapsed: float
    checkpoints: list[NonNegativeInt] | None = None


def check_config(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """`config`, read from `path`; StoreError unless it describes a run."""
    kind = _ModelConfig if config.get("kind") == "model" else _NetworkConfig
    return _check(kind, path, config)


def check_progress(path: Path, progress: dict[str, Any]) -> dict[str, Any]:
    """`progress`, read from `path`; StoreError unless it says how far a run got."""
    found = _check(_Progress, path, progress)
    most = found["step"] + 1
    if found["losses"] > most or any(rows > found["step"] // int(n) + 1 for n, rows in found["rows"].items()):
        raise StoreError(f"{path} counts more rows than {found['step']} steps have; restore it from a copy.")
    return found


def _check(kind: type[BaseModel], path: Path, document: dict[str, Any]) -> dict[str, Any]:
    try:
        kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise StoreError(
            f"{path} is not what lrbias writes ({shorten(where)}: {first['msg']}); restore it from a copy."
        ) from None
    return document
