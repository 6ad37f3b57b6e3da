"""The one ordering rule: what an object's events come to, whatever the order and number of their arrivals.

Stripe's `created` has whole seconds, and several events of one object often share one. Comparing events pairwise by
several criteria is cyclic (active → past_due → active within a second), so nothing here is a comparator:

1. Events are grouped by `created`; groups follow each other in time.
2. Two Event objects for one change (Stripe sends such) are one: the second, by id, is a no-op.
3. Inside a group, phases follow each other: snapshots, `*.created`, the rest; and after them, in the same order, what
   says that the object has ended, `*.deleted` last of all. Inside a phase the canonical order is a total order: by
   rank (below), then by event id.
4. Links may change the canonical order inside a phase. A link holds when the fields that an event says it changed
   (`previous`) had those old values just before it; the first link is to the state before that phase. Of all orders
   of up to `PERMUTED_EVENTS_MAX` events the one with the most links wins, the first in canonical order among equals.
   More events are chained link by link, and above `LINKED_EVENTS_MAX` they keep the canonical order.
5. The end is final: once an object has ended (deleted, or a subscription canceled or expired), only events that say
   so too still change it. Any other is a no-op, so that no late or stray update brings an object back.
6. An id may have several lives. Products and plans have ids that people choose, and use again once the object is
   deleted; what was created later is another object, which begins anew. Inside a second, lives follow each other.

The result depends on the set of observations alone; where `new` continues `state`, `fold(new, after=state)` equals
folding everything.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby, pairwise, permutations
from typing import Any, Final

import msgspec

from service.contract import (
    Charge,
    CheckoutSession,
    Data,
    Dispute,
    Invoice,
    InvoicePayment,
    Price,
    Product,
    Refund,
    Subscription,
    old_values,
)
from service.projections.model import ObjectState, Observation
from service.projections.sticky import merge

PERMUTED_EVENTS_MAX: Final = 6
"""6! = 720 orders are looked at, at most."""

LINKED_EVENTS_MAX: Final = 50
"""50² = 2500 pairs are asked for a link, at most: a few milliseconds."""

SNAPSHOT_SUFFIX: Final = ".snapshot"
"""A read of Stripe's API: it loses to events of its own second (they may be later), wins over all before."""

_PAYMENT_INTENT_RANK: Final = {
    "payment_intent.created": 0,
    "payment_intent.requires_action": 1,
    "payment_intent.partially_funded": 2,
    "payment_intent.processing": 3,
    "payment_intent.amount_capturable_updated": 4,
    "payment_intent.payment_failed": 5,  # may follow processing: the status then goes back, the event does not
    "payment_intent.succeeded": 6,
    "payment_intent.canceled": 6,
}
_CHARGE_RANK: Final = {"charge.pending": 0, "charge.succeeded": 1, "charge.failed": 1, "charge.captured": 2,
                       "charge.updated": 3, "charge.refunded": 3, "charge.expired": 4}  # fmt: skip
_REFUND_RANK: Final = {"pending": 0, "requires_action": 1, "succeeded": 2, "canceled": 3, "failed": 4}
_SUBSCRIPTION_RANK: Final = {"incomplete": 0, "trialing": 1, "active": 2, "past_due": 3, "unpaid": 4, "paused": 4,
                             "incomplete_expired": 9, "canceled": 9}  # fmt: skip
_INVOICE_RANK: Final = {"draft": 0, "open": 1, "uncollectible": 2, "paid": 3, "void": 3}
_SESSION_RANK: Final = {"open": 0, "complete": 1, "expired": 1}
_INVOICE_PAYMENT_RANK: Final = {"open": 0, "paid": 1, "canceled": 1}
_DISPUTE_RANK: Final = {"warning_needs_response": 0, "warning_under_review": 1, "needs_response": 2,
                        "under_review": 3, "warning_closed": 4, "prevented": 4, "won": 4, "lost": 4,
                        "appeal_needs_response": 5, "appeal_under_review": 6}  # fmt: skip

_LAST_LIFE: Final = datetime.max.replace(tzinfo=UTC)
_ENDED_SUBSCRIPTION: Final = frozenset({"canceled", "incomplete_expired"})


@dataclass(frozen=True, slots=True)
class Folded:
    """An object's state, and which of the folded events changed nothing in it."""

    state: ObjectState
    no_ops: frozenset[str]


def fold(observations: Iterable[Observation], *, after: ObjectState | None = None) -> Folded:
    """Fold one object's observations, onto the state `after` where they continue it.

    Raises `ValueError` when there is nothing to fold, or when they do not continue it.
    """
    ordered = sorted(observations, key=lambda o: (o.created_at, o.event_id))
    if not ordered:
        raise ValueError("nothing to fold")
    if after is not None and not continues(after, ordered):
        raise ValueError("these observations need the object's whole history")
    first, *rest = (list(second) for _, second in groupby(ordered, key=lambda o: o.created_at))
    folded = _fold_second(first, after)
    no_ops = folded.no_ops
    for second in rest:
        folded = _fold_second(second, folded.state)
        no_ops |= folded.no_ops
    return Folded(folded.state, no_ops)


def in_order(observations: Iterable[Observation]) -> Sequence[Observation]:
    """One object's observations as `fold` takes them; what it passes over in a second stands behind the others."""
    state: ObjectState | None = None
    ordered: list[Observation] = []
    by_time = sorted(observations, key=lambda o: (o.created_at, o.event_id))
    for second in (list(members) for _, members in groupby(by_time, key=lambda o: o.created_at)):
        sequence, _ = _sequence(_without_twins(second), state)
        taken = {o.event_id for o in sequence}
        ordered += [*sequence, *(o for o in second if o.event_id not in taken)]
        state = _fold_second(second, state).state
    return ordered


def continues(state: ObjectState, observations: Iterable[Observation]) -> bool:
    """Whether observations can be folded onto a state; others need the object's whole history.

    They must all be of later seconds. And what came to a deleted object has left no trace in its state, though it may
    belong to the next life of its id, of which nothing was known then.
    """
    may_live_again = isinstance(state.data, Product | Price) and is_deleted(state)
    return not may_live_again and all(o.created_at > state.last_event_at for o in observations)


def is_deleted(state: ObjectState) -> bool:
    """Whether Stripe has deleted the object; the state of a deleted object is its last."""
    return _says_deleted(state.last_event_type, state.data)


def _fold_second(second: Sequence[Observation], before: ObjectState | None) -> Folded:
    distinct = _without_twins(second)
    if before is not None and _is_end(before.last_event_type, before.data):
        distinct = [o for o in distinct if _is_end(o.event_type, o.data) or _is_born_after(before, o.data)]
        if not distinct:
            return Folded(before, frozenset(o.event_id for o in second))
    sequence, decided = _sequence(distinct, before)
    no_ops = {o.event_id for o in second} - {o.event_id for o in sequence}
    state = _step(before, sequence[0])
    if before is not None and _says_the_same(before, state):
        no_ops.add(state.last_event_id)
    for observation in sequence[1:]:
        earlier, state = state, _step(state, observation)
        if _says_the_same(earlier, state):
            no_ops.add(state.last_event_id)
    if not decided:
        state = replace(state, undecided=state.undecided + 1)
    return Folded(state, frozenset(no_ops))


def _without_twins(second: Sequence[Observation]) -> Sequence[Observation]:
    """One second's observations (by event id) without those that repeat another one's type, data and `previous`."""
    if len(second) == 1:
        return second
    distinct: dict[bytes, Observation] = {}
    for o in second:
        distinct.setdefault(msgspec.json.encode((o.event_type, o.data, o.previous), order="deterministic"), o)
    return list(distinct.values())


def _is_end(event_type: str, data: Data) -> bool:
    """Whether nothing but the end itself can be said of the object after this."""
    return _says_deleted(event_type, data) or (isinstance(data, Subscription) and data.status in _ENDED_SUBSCRIPTION)


def _says_deleted(event_type: str, data: Data) -> bool:
    """A snapshot of what is deleted says so in its data alone."""
    return event_type.endswith(".deleted") or (isinstance(data, Product | Price) and data.deleted)


def _born(data: Data) -> datetime:
    """When the object was created, where its id may have several lives; what does not say it is of the last one."""
    return (data.created_at or _LAST_LIFE) if isinstance(data, Product | Price) else _LAST_LIFE


def _is_born_after(state: ObjectState, data: Data) -> bool:
    """Whether this is another object under the same id."""
    born = _born(state.data)
    return (state.last_event_at if born is _LAST_LIFE else born) < _born(data) < _LAST_LIFE


def _step(state: ObjectState | None, observation: Observation) -> ObjectState:
    return ObjectState(
        key=observation.key,
        object_type=observation.object_type,
        data=_after(state, observation),
        last_event_id=observation.event_id,
        last_event_type=observation.event_type,
        last_event_at=observation.created_at,
        # A read of Stripe settles whatever was undecided before it.
        undecided=0 if state is None or observation.event_type.endswith(SNAPSHOT_SUFFIX) else state.undecided,
    )


def _after(state: ObjectState | None, observation: Observation) -> Data:
    if state is None or _is_born_after(state, observation.data):
        return observation.data
    return merge(observation.object_type, state.data, observation.data)


def _says_the_same(earlier: ObjectState, later: ObjectState) -> bool:
    return earlier.last_event_type == later.last_event_type and earlier.data == later.data


def _sequence(second: Collection[Observation], before: ObjectState | None) -> tuple[Sequence[Observation], bool]:
    """One second's observations in their order, and whether more than their ids decided what comes last."""
    if len(second) == 1:
        return list(second), True
    canonical = sorted(second, key=lambda o: (_phase(o), _rank(o), o.event_id))
    sequence: list[Observation] = []
    decided = True
    for _, phase in groupby(canonical, key=_phase):
        last = sequence[-1].data if sequence else None if before is None else before.data
        members, decided = _by_links(list(phase), last)
        sequence += members
    return sequence, decided


def _phase(observation: Observation) -> tuple[datetime, bool, int]:
    """The part of its second in which an observation belongs; no link moves it to another."""
    event_type = observation.event_type
    if event_type.endswith(SNAPSHOT_SUFFIX):
        part = 0
    elif event_type.endswith(".created"):
        part = 1
    elif event_type.endswith(".deleted"):
        part = 3
    else:
        part = 2
    return _born(observation.data), _is_end(event_type, observation.data), part


def _by_links(canonical: Sequence[Observation], before: Data | None) -> tuple[Sequence[Observation], bool]:
    """One phase's observations in the order that their links tell, and whether it is decided which is the last."""
    if len(canonical) == 1:
        return canonical, True
    if len(canonical) > LINKED_EVENTS_MAX or not any(o.previous for o in canonical):
        return canonical, _is_last_by_rank(canonical[-1], canonical)
    links = _Links.between(canonical, before)
    if len(canonical) > PERMUTED_EVENTS_MAX:
        order = links.chained()
        last = canonical[order[-1]]
        decided = links.follows(order[-2], order[-1]) or _is_last_by_rank(last, canonical)
        return [canonical[i] for i in order], decided
    best, *equals = links.best_orders()
    ranks = [_rank(o) for o in canonical]
    decided = not any(
        canonical[order[-1]].data != canonical[best[-1]].data and [ranks[i] for i in order] == [ranks[i] for i in best]
        for order in equals
    )
    return [canonical[i] for i in best], decided


def _is_last_by_rank(last: Observation, members: Iterable[Observation]) -> bool:
    rank = _rank(last)
    return not any(_rank(other) == rank and other.data != last.data for other in members)


@dataclass(frozen=True, slots=True)
class _Links:
    """Which of one phase's observations, by their place in canonical order, can follow the state before or another."""

    first: Sequence[bool]
    next: Sequence[Sequence[bool]]

    @classmethod
    def between(cls, canonical: Sequence[Observation], before: Data | None) -> "_Links":
        told = [_told(o) for o in canonical]
        return cls(
            first=[before is not None and _holds(old, before) for old in told],
            next=[[_holds(old, earlier.data) for old in told] for earlier in canonical],
        )

    def follows(self, earlier: int, later: int) -> bool:
        return self.next[earlier][later]

    def best_orders(self) -> Sequence[tuple[int, ...]]:
        """All orders with the most links, in canonical order."""
        best: list[tuple[int, ...]] = []
        most = -1
        for order in permutations(range(len(self.first))):
            links = self.first[order[0]] + sum(self.next[i][j] for i, j in pairwise(order))
            if links > most:
                best, most = [order], links
            elif links == most:
                best.append(order)
        return best

    def chained(self) -> Sequence[int]:
        """An order made link by link.

        Next is what follows the one before, else what follows none of those left (a chain begins there), else the
        first left in canonical order.
        """
        left = list(range(len(self.first)))
        follows = self.first
        followed = [sum(row[j] for i, row in enumerate(self.next) if i != j) for j in left]
        order: list[int] = []
        while left:
            chosen = _first(j for j in left if follows[j])
            if chosen is None:
                chosen = _first(j for j in left if not followed[j])
            if chosen is None:
                chosen = left[0]
            left.remove(chosen)
            order.append(chosen)
            follows = self.next[chosen]
            for j in left:
                followed[j] -= follows[j]
        return order


def _first(candidates: Iterator[int]) -> int | None:
    return next(candidates, None)


def _told(observation: Observation) -> Mapping[str, Any]:
    """What the event says the fields were before; nothing where it says nothing that we know."""
    return (observation.previous and old_values(type(observation.data), observation.previous)) or {}


def _holds(old: Mapping[str, Any], data: Data) -> bool:
    """Whether the data has all the old values; an event that changed nothing we know is linked to nothing."""
    return bool(old) and all(getattr(data, name, None) == value for name, value in old.items())


def _rank(observation: Observation) -> tuple[int, ...]:
    """Where an observation stands in its phase, by what its type or status says."""
    event_type, data = observation.event_type, observation.data
    match data:
        case Charge():
            # Counters that only grow (but for a refund that fails, which `previous` tells) break ties among updates.
            return (
                _CHARGE_RANK.get(event_type, 3),
                data.amount_captured_minor or 0,
                data.amount_refunded_minor or 0,
            )
        case Refund():
            return (_REFUND_RANK.get(data.status or "", 0),)
        case Subscription():
            return (_SUBSCRIPTION_RANK.get(data.status or "", 2),)
        case Invoice():
            return (
                _INVOICE_RANK.get(data.status or "", 0),
                data.amount_paid_minor or 0,
                data.attempt_count or 0,
            )
        case CheckoutSession():
            return (_SESSION_RANK.get(data.status or "", 0), int(data.payment_status == "paid"))
        case InvoicePayment():
            return (_INVOICE_PAYMENT_RANK.get(data.status or "", 0),)
        case Dispute():
            return (_DISPUTE_RANK.get(data.status or "", 0),)
        case Product():
            return (0 if data.updated_at is None else int(data.updated_at.timestamp()),)
        case Price():
            # Stripe tells of a recurring price twice, and its plan knows less.
            return (0 if observation.object_type == "plan" else 1,)
        case _:
            return (_PAYMENT_INTENT_RANK.get(event_type, 3),)
