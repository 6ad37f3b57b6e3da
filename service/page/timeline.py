"""An object's timeline: what each event changed in it, as the ledger tells."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from service.contract import DATA_TYPES, Data, Other
from service.ports import LedgerLine
from service.projections.model import ObjectKey, Observation
from service.projections.ordering import in_order

_EMPTY: Final[Sequence[object]] = (None, {}, [])


def entries(lines: Sequence[LedgerLine], *, cut: bool) -> Sequence[Mapping[str, object]]:
    """The lines in their order, the oldest first, each with its changes.

    Lines of one object that share a second stand as the tables' own rule orders them. `cut` says that older ones may
    be missing: what the oldest line of an object changed is then told only where it says so itself.
    """
    by_object: defaultdict[ObjectKey, list[LedgerLine]] = defaultdict(list)
    for line in lines:
        by_object[ObjectKey(line.account, line.livemode, line.object_id)].append(line)
    told: list[tuple[LedgerLine, Sequence[Mapping[str, object]]]] = []
    for history in sorted(by_object.values(), key=_begins):
        before: Mapping[str, Any] | None = None if cut else {}
        for line in _ordered(history):
            told.append((line, list(changes(line, before))))
            before = line.data
    # Stable: what shares a second stays in its object's order, and objects in theirs.
    told.sort(key=lambda each: each[0].created_at)
    return [_entry(line, changed) for line, changed in told]


def changes(line: LedgerLine, before: Mapping[str, Any] | None) -> Iterator[Mapping[str, object]]:
    """What an event changed: by its own word where it has said so, else against what stood there before it.

    `before` is None where that is not known.
    """
    if line.previous is not None:
        old = line.previous
    elif before is not None:
        # A field that one rendering has and another has not is no change; what nobody has said is not told as new.
        old = {name: before.get(name) for name in line.data}
    else:
        return
    for name, value in old.items():
        new = line.data.get(name)
        if value != new and not (value in _EMPTY and new in _EMPTY):
            yield {"field": name, "from": value, "to": new}


def _begins(history: Sequence[LedgerLine]) -> tuple[datetime, bool, str]:
    """Of objects that share a second, the one that was there first, and the payment before what belongs to it."""
    first = min(history, key=lambda line: line.created_at)
    return first.created_at, first.object_type != "payment_intent", first.object_id


def _entry(line: LedgerLine, changed: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    return {
        "event_id": line.event_id,
        "event_type": line.event_type,
        "object_type": line.object_type,
        "object_id": line.object_id,
        "created_at": line.created_at,
        "applied_at": line.applied_at,
        "no_op": line.no_op,
        "changes": changed,
    }


def _ordered(history: Sequence[LedgerLine]) -> Sequence[LedgerLine]:
    by_event = {line.event_id: line for line in history}
    try:
        return [by_event[each.event_id] for each in in_order(map(_observation, by_event.values()))]
    except msgspec.ValidationError:
        # A line that this version cannot read has no place of its own; it is shown all the same.
        return sorted(by_event.values(), key=lambda line: (line.created_at, line.event_id))


def _observation(line: LedgerLine) -> Observation:
    return Observation(
        key=ObjectKey(line.account, line.livemode, line.object_id),
        object_type=line.object_type,
        event_id=line.event_id,
        event_type=line.event_type,
        created_at=line.created_at,
        api_version=None,
        data=msgspec.convert(line.data, _data_type(line.object_type)),
        previous=line.previous,
    )


def _data_type(object_type: str) -> type[Data]:
    return DATA_TYPES.get(object_type, Other)
