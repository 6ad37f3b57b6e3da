"""`previous` typed: the old values that an event tells, as the fields of `data` hold them."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Union

import msgspec

from service.contract.types import Data


@cache
def previous_type(data: type[Data]) -> type[msgspec.Struct]:
    """The fields of `data`, each there only where it changed. One type for all records that share it."""
    fields = [
        (field.name, Union[field.type, msgspec.UnsetType], msgspec.UNSET)  # noqa: UP007 -- types at run time
        for field in msgspec.structs.fields(data)
    ]
    documentation = "The fields of `data` that the event changed, with the values they had before.\n\n"
    return msgspec.defstruct(
        f"Previous{data.__name__}", fields, kw_only=True, namespace={"__doc__": documentation + (data.__doc__ or "")}
    )


def old_values(data: type[Data], previous: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The old values by field, to be compared with those of a `data`; None where they are not of its types.

    As they stand on the wire they cannot be compared: what an earlier version wrote lacks the fields that nested
    values (items, refunds) have since got. Fields that these types do not know are passed over.
    """
    try:
        values = msgspec.convert(previous, previous_type(data))
    except msgspec.ValidationError:
        return None
    return {name: value for name in values.__struct_fields__ if (value := getattr(values, name)) is not msgspec.UNSET}
