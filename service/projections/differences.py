"""What stands in the tables against what the ledger comes to, as typed values."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import msgspec

from service.contract import Data
from service.projections.model import ObjectKey, ObjectState, Observation

Kind: TypeAlias = Literal["missing", "extra", "differs"]
"""An entry that should stand there, one that should not, and one of which a column says something else."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference of one table: of an entry as a whole, where `column` is None, or of one column.

    The values are as JSON has them; of a column that holds an object, only its fields that differ. They are for whoever
    asked, and for no log.
    """

    kind: Kind
    table: str
    key: ObjectKey
    column: str | None
    stands: Any = field(repr=False)
    should_be: Any = field(repr=False)
    event_id: str | None = None
    """Which entry of the object, where the table is a ledger."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What a ledger has of one observation, besides what identifies it; `data` and `previous` as JSON texts."""

    object_type: str
    event_type: str
    api_version: str | None
    data: str
    previous: str | None
    no_op: bool
    via: str | None


@dataclass(frozen=True, slots=True)
class StoredState:
    """What stands in an object's anchor; `data` as JSON text."""

    object_type: str | None
    data: str
    last_event_id: str | None
    last_event_type: str | None
    last_event_at: str | None
    undecided: int


ReadData: TypeAlias = Callable[[str, str], Data]
"""(object type, JSON text) → typed data; raises `msgspec.DecodeError`."""

_STATE_COLUMNS: Final = ("object_type", "last_event_id", "last_event_type", "last_event_at", "undecided")


def state_differences(
    table: str, key: ObjectKey, stands: StoredState | None, should_be: ObjectState | None, read: ReadData
) -> Iterator[Difference]:
    """Of one object's state. What an earlier version has written with fewer fields says the same."""
    if should_be is None:
        if stands is not None:
            yield Difference("extra", table, key, None, _plain(stands), None)
        return
    wanted = StoredState(
        should_be.object_type,
        msgspec.json.encode(should_be.data).decode(),
        should_be.last_event_id,
        should_be.last_event_type,
        should_be.last_event_at.isoformat(),
        should_be.undecided,
    )
    if stands is None:
        yield Difference("missing", table, key, None, None, _plain(wanted))
        return
    if not says(stands.data, should_be.object_type, should_be.data, read):
        yield Difference("differs", table, key, "data", *_fields(stands.data, wanted.data))
    for name in _STATE_COLUMNS:
        old, new = getattr(stands, name), getattr(wanted, name)
        if old != new:
            yield Difference("differs", table, key, name, old, new)


def entry_differences(
    table: str, observation: Observation, via: str | None, stands: LedgerEntry | None, read: ReadData
) -> Iterator[Difference]:
    """Of a ledger's entry, against an observation of the same event and object; its mark is another matter."""
    key, event_id = observation.key, observation.event_id
    data, previous = msgspec.json.encode(observation.data).decode(), _previous(observation)
    if stands is None:
        whole = {
            "event_type": observation.event_type,
            "object_type": observation.object_type,
            "data": msgspec.json.decode(data),
            "previous": None if previous is None else msgspec.json.decode(previous),
        }
        yield Difference("missing", table, key, None, None, whole, event_id)
        return
    for name in ("object_type", "event_type"):
        old, new = getattr(stands, name), getattr(observation, name)
        if old != new:
            yield Difference("differs", table, key, name, old, new, event_id)
    if not says(stands.data, observation.object_type, observation.data, read):
        yield Difference("differs", table, key, "data", *_fields(stands.data, data), event_id)
    if _value(stands.previous) != _value(previous):
        yield Difference("differs", table, key, "previous", *_fields(stands.previous, previous), event_id)
    if stands.via != via:
        yield Difference("differs", table, key, "via", stands.via, via, event_id)


def row_differences(
    table: str, key: ObjectKey, stands: Mapping[str, Any] | None, should_be: Mapping[str, Any]
) -> Iterator[Difference]:
    """Of one row, column by column; columns that `should_be` does not know are not ours."""
    if stands is None:
        yield Difference("missing", table, key, None, None, should_be)
        return
    for name, new in should_be.items():
        if stands.get(name) != new:
            yield Difference("differs", table, key, name, stands.get(name), new)


def says(text: str, object_type: str, data: Data, read: ReadData) -> bool:
    """Whether a JSON text says what typed data says."""
    try:
        return read(object_type, text) == data
    except msgspec.DecodeError:
        return False


def _previous(observation: Observation) -> str | None:
    return None if observation.previous is None else msgspec.json.encode(observation.previous).decode()


def _plain(state: StoredState) -> Mapping[str, Any]:
    return {**{name: getattr(state, name) for name in _STATE_COLUMNS}, "data": _value(state.data)}


def _fields(stands: str | None, should_be: str | None) -> tuple[Any, Any]:
    """Two JSON texts as values: of two objects, only the fields in which they differ."""
    old, new = _value(stands), _value(should_be)
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return old, new
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return {n: old[n] for n in names if n in old}, {n: new[n] for n in names if n in new}


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
