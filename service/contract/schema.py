"""JSON Schema (2020-12) of every record's value, made from the types.

One document per object type, for the whole value: the envelope with that `object_type` and its `data`. Whatever has no
type of its own is described by `other`. The schemas are written for readers: `required` is what every record of this
schema version carries, whichever release wrote it, so a field that a later release added is never in it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from service.contract.meanings import meaning, paragraphs
from service.contract.previous import previous_type
from service.contract.types import DATA_TYPES, SCHEMA_VERSION, Event, Other

Json: TypeAlias = dict[str, Any]
"""A JSON object."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

OTHER: Final = "other"
"""The schema of records whose `data` is `Other`, whatever object they name: a thin event names a typed object too."""

SCHEMA_NAMES: Final = (*DATA_TYPES, OTHER)

_ALWAYS: Final = frozenset({"schema_version"})
"""What has a default for those who make an event, and is on the wire always."""

_FOR_READERS: Final = (
    "A writer of this version writes every field. What is not required may be missing from a record that an earlier "
    "release wrote: it then reads as its default. Pass over fields that are not described here: later releases add "
    "some."
)
_JSON_TYPES: Final[Mapping[type, str]] = {str: "string", int: "integer"}
_INT64: Final[Json] = {"format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1}


def schema_id(name: str) -> str:
    """The `$id` of a schema, and the header `ce_dataschema` of the records that it describes."""
    return f"urn:stripe-ingest:schema:{SCHEMA_VERSION}:{name}"


def schema_name(event: Event) -> str:
    """The name of the schema that describes an event's record."""
    return OTHER if isinstance(event.data, Other) else event.object_type


def schema(name: str) -> Json:
    """The self-contained JSON Schema of the records that carry this object type (one of `SCHEMA_NAMES`)."""
    definitions = definitions_of([name], ref_template="#/$defs/{name}")
    record = definitions.pop(record_title(name))
    return {"$schema": DIALECT, "$id": schema_id(name), **record, "$defs": definitions}


def definitions_of(names: Iterable[str], *, ref_template: str) -> dict[str, Json]:
    """The schemas of records and of all that they refer to, by title; `ref_template` says where they will stand."""
    _, components = msgspec.json.schema_components([_record_type(name) for name in names], ref_template=ref_template)
    return {title: _described(component) for title, component in components.items()}


def record_title(name: str) -> str:
    """The title of a record's schema: `PaymentIntentRecord` for `payment_intent`."""
    return f"{name.title().replace('_', '')}Record"


def _record_type(name: str) -> type[msgspec.Struct]:
    """`Event` with the types that it has for one object type."""
    data = DATA_TYPES.get(name, Other)
    own: Mapping[str, Any] = {
        "object_type": Literal[name] if name in DATA_TYPES else str,
        "data": data,
        "previous": previous_type(data) | None,
        "raw": Mapping[str, Any] | None,
    }
    fields = [
        (
            field.name,
            own.get(field.name, field.type),
            *(() if field.name in _ALWAYS or field.required else (field.default,)),
        )
        for field in msgspec.structs.fields(Event)
    ]
    documentation = f"{paragraphs(Event.__doc__ or '')}\n\n{_FOR_READERS}"
    return msgspec.defstruct(record_title(name), fields, kw_only=True, namespace={"__doc__": documentation})


def _described(component: Json) -> Json:
    documentation = component["description"]
    return {
        **component,
        "description": paragraphs(documentation),
        "properties": {
            field: _with_meaning(field, _plain(shape), documentation)
            for field, shape in component["properties"].items()
        },
    }


def _with_meaning(field: str, shape: Json, documentation: str) -> Json:
    if "$ref" in shape:
        return shape  # the referenced schema says it, and older dialects ignore what stands beside a reference
    return {"description": meaning(field, docstring=documentation, is_time=shape.get("format") == "date-time"), **shape}


def _plain(shape: Json) -> Json:
    """The same schema as people and generators of code like it best: `type: [string, null]`, `const`, int64 bounds."""
    match shape.get("anyOf"):
        case [{"type": _} as known, {"type": "null"}]:
            others = {keyword: value for keyword, value in shape.items() if keyword != "anyOf"}
            return _plain({**known, "type": [known["type"], "null"], **others})
        case _:
            plain = dict(shape)
    if "integer" in (shape.get("type"), *shape.get("type", ())):
        plain |= _INT64
    match shape.get("enum"):
        case [value]:
            del plain["enum"]
            plain |= {"type": _JSON_TYPES[type(value)], "const": value}
        case [value, *_]:
            plain |= {"type": _JSON_TYPES[type(value)]}
        case _:
            pass
    for inner in ("items", "additionalProperties"):
        if inner in shape:
            plain[inner] = _plain(shape[inner])
    if shape.get("default") == ():
        plain["default"] = []
    return plain
