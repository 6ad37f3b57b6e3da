"""What all tables' rows have in common."""

from collections.abc import Iterable
from typing import Any

import msgspec

from service.projections.model import ObjectState


def fields_of(data: msgspec.Struct, *, without: frozenset[str]) -> dict[str, Any]:
    """A column per field, under the contract's names."""
    return {name: getattr(data, name) for name in data.__struct_fields__ if name not in without}


def last_event_of(states: Iterable[ObjectState]) -> dict[str, Any]:
    """The last event that a row rests on: the latest, and among those of one second the greatest id."""
    last = max(states, key=lambda state: (state.last_event_at, state.last_event_id))
    return {"last_event_id": last.last_event_id, "last_event_at": last.last_event_at}
