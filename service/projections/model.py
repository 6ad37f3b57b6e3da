"""The values that the folds work on: what events say about objects, what is believed of an object, and rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from service.contract import Category, Data, Event


class ObjectKey(NamedTuple):
    """One Stripe object: an object id is unique within its account and mode.

    A tuple, since a batch hashes and compares keys tens of thousands of times.
    """

    account: str
    livemode: bool
    object_id: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What one event says about one object. An event may speak of several (a charge and its embedded refunds).

    `event_id` and `key` together identify it: the ledger holds it once.
    `previous` holds the normalized fields that the event changed, with their old values as they stand on the wire.
    """

    key: ObjectKey
    object_type: str
    event_id: str
    event_type: str
    created_at: datetime
    api_version: str | None
    data: Data
    previous: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class ObjectState:
    """What all observations of an object come to.

    `undecided` counts the seconds in which neither the events' links nor their ranks said what came last; a snapshot
    settles those before it.
    """

    key: ObjectKey
    object_type: str
    data: Data
    last_event_id: str
    last_event_type: str
    last_event_at: datetime
    undecided: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. `columns` are all but `applied_at` and what `key` says: account, mode and the row's id."""

    table: str
    key: ObjectKey
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowSet:
    """The rows that one root comes to, and the tables in which it owns all rows that name it.

    Rows of `owned` tables that name the root in `owned[table]` (a column) and are not among `rows` are removed: the
    items that a subscription no longer has, the row of a charge that turns out to have a payment intent.
    """

    rows: tuple[Row, ...]
    owned: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Links:
    """Which roots (ids of rows) an observation's object belongs to.

    `roots` are stated by the event itself. `refs` are further ids that the event shows to belong to those roots
    (its charge, its invoice). Where `roots` is empty, `via` names the id through which the roots will be known:
    the object belongs to whatever roots `via` belongs to, now or later.
    """

    roots: frozenset[str]
    refs: frozenset[str]
    via: str | None


class Projection(Protocol):
    """One projection: pure functions from events to rows. `name` is the consumer's and its tables' prefix."""

    @property
    def name(self) -> str:
        """`payments`, `refunds`, `subscriptions`, `catalog`."""
        ...

    @property
    def ledger(self) -> str:
        """The ledger table's name: `payment_events`, …"""
        ...

    @property
    def categories(self) -> tuple[Category, ...]:
        """Which topics it reads."""
        ...

    def observe(self, event: Event) -> tuple[Observation, ...]:
        """What an event says about this projection's objects; empty where it says nothing."""
        ...

    def links(self, observation: Observation) -> Links:
        """Which rows the observation's object belongs to."""
        ...

    def rows(self, root: ObjectKey, states: Sequence[ObjectState]) -> RowSet:
        """The rows of one root, from the states of all objects linked to it; a function of the set."""
        ...
