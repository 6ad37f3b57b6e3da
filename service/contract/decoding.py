"""A record's value as a typed event: the reading side of the contract.

    for message in consumer:
        event = decode(message.value)
        match event.data:
            case PaymentIntent(status="succeeded", amount_minor=int(amount), currency=str(currency)):
                ...  # amounts are integers in the currency's minor unit
            case _:
                pass  # object types and statuses that are not yours, or not yet known

Any Kafka client will do; msgspec is all that this package needs. Records come at least once: skip an `event_id` that
you have handled. Commit after the work.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from service.contract.types import DATA_TYPES, Data, Event, Other


class ContractError(ValueError):
    """The bytes are no event of this contract. `reason` is a tag; the message names a path, never a value."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


_Wire: Final[Any] = msgspec.defstruct(
    "_Wire",
    [
        (field.name, msgspec.Raw if field.name == "data" else field.type, *(() if field.required else (field.default,)))
        for field in msgspec.structs.fields(Event)
    ],
    kw_only=True,
    frozen=True,
)
"""`Event` with `data` not decoded yet: its type depends on `object_type`."""

_wire_decoder: Final = msgspec.json.Decoder(_Wire)
_data_decoders: Final[Mapping[str, msgspec.json.Decoder[Data]]] = {
    object_type: msgspec.json.Decoder(data_type) for object_type, data_type in DATA_TYPES.items()
}
_other_decoder: Final[msgspec.json.Decoder[Data]] = msgspec.json.Decoder(Other)


def decode(value: bytes) -> Event:
    """The typed event of a record's value.

    Fields that these types do not know are passed over, fields that an earlier release did not write have their
    defaults, and an object type that is not known here has `Other` for its data. `event.raw` is Stripe's event as JSON
    bytes, or `NO_RAW`.

    Raises `ContractError`, with the reason `not_json` or `schema_mismatch`: such a record will never be readable.
    """
    try:
        wire = _wire_decoder.decode(value)
        decoder = _other_decoder if wire.category == "other" else _data_decoders.get(wire.object_type, _other_decoder)
        data = decoder.decode(wire.data)
    except msgspec.ValidationError as error:
        raise ContractError("schema_mismatch", f"not as in schema version 1: {_where(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ContractError("not_json", "the value is not JSON") from None
    fields = {name: getattr(wire, name) for name in wire.__struct_fields__}
    return Event(**{**fields, "data": data})


def _where(error: msgspec.ValidationError) -> str:
    """The path that the error names. Its other half may quote the value."""
    _, found, path = str(error).rpartition(" - at ")
    return path if found else "`$`"
