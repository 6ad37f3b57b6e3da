"""Records as the publisher makes them: one of each object type, written by hand."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from service.contract import DATA_TYPES, Category, Data, Event, Other
from service.contract.asyncapi import OBJECT_TYPES
from service.contract.schema import OTHER
from service.events import Record
from service.records import Topics, encode, marked

TOPICS: Final = Topics("stripe")
TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

CATEGORIES: Final[dict[str, Category]] = {
    name: category for category, names in reversed([*OBJECT_TYPES.items()]) for name in names
}
"""Object type → the first category that has it."""


def filled(data_type: type[Any]) -> Any:
    """A value of a type with every field set."""
    return msgspec.convert(
        {field.name: _sample(field.type) for field in msgspec.structs.fields(data_type)}, data_type, strict=True
    )


def _sample(field_type: Any) -> Any:
    match msgspec.inspect.type_info(field_type):
        case msgspec.inspect.UnionType(types=types):
            (known,) = [each for each in types if not isinstance(each, msgspec.inspect.NoneType)]
        case known:
            pass
    match known:
        case msgspec.inspect.StrType():
            return "x_1"
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.IntType():
            return 1234
        case msgspec.inspect.DateTimeType():
            return "2026-11-20T10:00:00Z"
        case msgspec.inspect.DictType():
            return {"order": "42"}
        case msgspec.inspect.VarTupleType(item_type=msgspec.inspect.StructType(cls=of)):
            return [msgspec.to_builtins(filled(of))]
        case msgspec.inspect.VarTupleType():
            return ["x_1"]
        case msgspec.inspect.StructType(cls=of):
            return msgspec.to_builtins(filled(of))
        case _:
            raise AssertionError(f"no sample of {known}")


def event(name: str = "payment_intent", data: Data | None = None, **changes: Any) -> Event:
    """An event about an object type, or with `other` about something that has no type."""
    fields: dict[str, Any] = {
        "category": CATEGORIES[name],
        "event_id": "evt_1",
        "event_type": f"{name}.updated",
        "account": "default",
        "livemode": True,
        "endpoint": "shop",
        "created_at": datetime(2026, 11, 20, 10, 0, 0, tzinfo=UTC),
        "received_at": datetime(2026, 11, 20, 10, 0, 1, 123000, tzinfo=UTC),
        "api_version": "2020-08-27",
        "request_id": "req_1",
        "idempotency_key": None,
        "object_type": "mandate" if name == OTHER else name,
        "object_id": "x_1",
        "data": data or filled(DATA_TYPES.get(name, Other)),
        "previous": {},
        "raw": msgspec.Raw(b'{"id": "evt_1"}'),
    }
    return Event(**(fields | changes))


def record(given: Event, *, include_raw: bool = True) -> Record:
    encoded = encode(given, topics=TOPICS, ingest_source="webhook", include_raw=include_raw, traceparent=TRACEPARENT)
    return marked(encoded, "checked")
