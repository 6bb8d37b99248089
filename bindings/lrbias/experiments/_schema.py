"""The JSON schema of an experiment file, with which editors complete and check it."""

from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from lrbias.experiments._words import SECTIONS
from lrbias.settings import Kind, Kinds, Settings, accepted_by, kinds_of, written_fields

BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
DIALECT = "http://json-schema.org/draft-07/schema#"


def schema() -> dict[str, Any]:
    """A JSON schema (draft 7, which editors of TOML read) of experiment files and sweeps."""
    tables = {section: _table(part) for section, part in SECTIONS.items()}
    axes = {"type": "object", "description": "settings that a sweep varies, each with its list of values"}
    properties = {**tables, "sweep": {**axes, "additionalProperties": {"type": "array"}}}
    return {
        "$schema": DIALECT,
        "title": "An experiment of lrbias",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _table(part: Kinds | type[Settings]) -> dict[str, Any]:
    if not isinstance(part, Kinds):
        return _model(part, {})
    return {"description": f"what the {part.section} is", "anyOf": [_of_kind(part, model) for model in part]}


def _of_kind(kinds: Kinds, model: type[Kind]) -> dict[str, Any]:
    """The table of one kind, which may leave out its name where its keys tell it."""
    told = model.name == kinds.default or bool(model.selected_by)
    kind = {"kind": {"const": model.name, "description": _first_line(model)}}
    table = _model(model, kind)
    return table if told else {**table, "required": ["kind", *table.get("required", [])]}


def _first_line(model: type[Settings]) -> str:
    return (model.__doc__ or model.__name__).strip().splitlines()[0]


def _model(model: type[Settings], kind: dict[str, Any]) -> dict[str, Any]:
    properties = {name: _field(field) for name, field in written_fields(model).items()}
    required = [name for name, field in written_fields(model).items() if field.is_required()]
    table = {
        "title": _first_line(model),
        "type": "object",
        "properties": {**kind, **properties},
        "additionalProperties": False,
    }
    return {**table, "required": required} if required else table


def _field(field: FieldInfo) -> dict[str, Any]:
    inner = kinds_of(field)
    if inner is not None:
        return {**_table(inner), "description": field.description}
    described = {"description": f"{field.description} ({accepted_by(field)})"}
    if not field.is_required() and field.default is not None:
        described["default"] = TypeAdapter(Any).dump_python(field.default, mode="json")
    return {**_type(field), **described}


def _type(field: FieldInfo) -> dict[str, Any]:
    """What JSON says of a type. TOML has no null: what may be None is left out instead."""
    made = TypeAdapter(field.rebuild_annotation()).json_schema(mode="validation")
    options = [option for option in made.pop("anyOf", [made]) if option.get("type") != "null"]
    chosen = options[0] if len(options) == 1 else {"anyOf": options}
    return _standard({key: value for key, value in chosen.items() if key not in ("default", "title")})


def _standard(made: Any) -> Any:
    """Pydantic keeps its own words for the bounds of a number that is read before it is checked."""
    if isinstance(made, list):
        return [_standard(part) for part in made]
    return {BOUNDS.get(key, key): _standard(value) for key, value in made.items()} if isinstance(made, dict) else made
