"""A consumer that has nothing but the published files and public libraries: no code of ours reads a record here."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import orjson
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from jsonschema import Draft7Validator, Draft202012Validator

from service.events import Record

PUBLISHED: Final = Path(str(files("service.contract"))) / "published"
ASYNCAPI: Final[dict[str, Any]] = orjson.loads((PUBLISHED / "asyncapi.json").read_bytes())
SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    path.stem: orjson.loads(path.read_bytes()) for path in sorted((PUBLISHED / "schemas").glob("*.json"))
}

_HEADERS: Final[dict[str, Any]] = ASYNCAPI["components"]["schemas"]["EventHeaders"]


@cache
def validator(dataschema: str) -> Draft202012Validator:
    """What checks a record's value by the schema that its header `ce_dataschema` names, formats included."""
    (schema,) = [schema for schema in SCHEMAS.values() if schema["$id"] == dataschema]
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def violations(dataschema: str, value: object) -> list[str]:
    """Why a value is none of this schema: a line each, with the path."""
    return [f"{error.json_path}: {error.message}" for error in validator(dataschema).iter_errors(value)]


def references(document: object) -> Iterator[str]:
    """Every `$ref` of a document."""
    if isinstance(document, dict):
        if isinstance(document.get("$ref"), str):
            yield document["$ref"]
        for value in document.values():
            yield from references(value)
    elif isinstance(document, list):
        for value in document:
            yield from references(value)


def resolved(reference: str, document: Mapping[str, Any]) -> Any:
    """What a local reference names; `KeyError` where there is nothing."""
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def complaints(record: Record) -> list[str]:
    """All that the contract does not say of a record."""
    headers = {name: value.decode() for name, value in record.headers}
    channel = ASYNCAPI["channels"][record.topic.removeprefix("stripe.")]
    value = orjson.loads(record.value)
    check = Draft7Validator(_HEADERS, format_checker=Draft7Validator.FORMAT_CHECKER)
    found = [f"headers: {error.message}" for error in check.iter_errors(headers)]
    found += [f"{name}: an unknown header" for name in headers if name not in _HEADERS["properties"]]
    if headers["ce_dataschema"] not in {message["x-dataschema"] for message in channel["messages"].values()}:
        found.append(f"{headers['ce_dataschema']}: not on {record.topic}")
    found += violations(headers["ce_dataschema"], value)
    found += unknown(value, SCHEMAS[headers["ce_dataschema"].rpartition(":")[2]])
    if record.key.decode() != key(value, channel["x-key"]):
        found.append("the key is not what the rule makes")
    cloud = from_binary_event(KafkaMessage(dict(record.headers), record.key, record.value))
    said = (cloud.get_id(), cloud.get_type(), cloud.get_subject(), cloud.get_data())
    if said != (value["event_id"], f"com.stripe.{value['event_type']}", value["object_id"], value):
        found.append("the CloudEvent is another than the value")
    return found


def unknown(value: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Fields of a record that its schema does not describe."""
    own = schema["$defs"][schema["properties"]["data"]["$ref"].rpartition("/")[2]]
    return [f"{name}: an unknown field" for name in value if name not in schema["properties"]] + [
        f"data.{name}: an unknown field" for name in value["data"] if name not in own["properties"]
    ]


def key(value: Mapping[str, Any], rule: Iterable[str]) -> str | None:
    """The key that a topic's rule makes: what the first of its paths leads to that is there."""
    for path in rule:
        found: Any = value
        for step in path.split("."):
            found = found.get(step) if found is not None else None
        if found:
            return str(found)
    return None
