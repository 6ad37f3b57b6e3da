"""Events to fold: builders, strategies of histories, and what they must come to whatever the way they arrive."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.contract import (
    DATA_TYPES,
    NO_RAW,
    Category,
    Charge,
    CheckoutSession,
    Data,
    Dispute,
    Event,
    Invoice,
    InvoicePayment,
    PaymentIntent,
    Price,
    Product,
    Refund,
    Subscription,
    SubscriptionItem,
)
from service.projections.model import Links, ObjectKey, ObjectState, Observation, Projection
from service.projections.ordering import continues, fold

START: Final = datetime(2026, 11, 20, 10, tzinfo=UTC)

PROPERTY: Final = settings(derandomize=True, deadline=None, max_examples=150)
"""The same examples in every run, and no verdict by the clock."""

Rows: TypeAlias = Mapping[tuple[str, ObjectKey], Mapping[str, Any]]
"""(table, key) → columns."""

_OBJECT_TYPES: Final = {data_type: name for name, data_type in DATA_TYPES.items() if name != "plan"}
_CATEGORIES: Final[Sequence[tuple[str, Category]]] = (
    ("charge.refund", "refund"),
    ("refund.", "refund"),
    ("invoice_payment.", "payment"),
    ("customer.subscription.", "subscription"),
    ("invoice.", "subscription"),
    ("product.", "catalog"),
    ("price.", "catalog"),
    ("plan.", "catalog"),
    ("", "payment"),
)


# Builders ------------------------------------------------------------------------------------------------------------


def at(second: int) -> datetime:
    """So many seconds after the start of every history."""
    return START + timedelta(seconds=second)


def event(
    event_type: str,
    data: Data,
    *,
    second: int = 0,
    event_id: str = "evt_1",
    previous: Mapping[str, Any] | None = None,
    account: str = "default",
    livemode: bool = True,
) -> Event:
    """A normalized event about an object."""
    object_type, object_id = _object_of(event_type, data)
    return Event(
        category=next(category for prefix, category in _CATEGORIES if event_type.startswith(prefix)),
        event_id=event_id,
        event_type=event_type,
        account=account,
        livemode=livemode,
        endpoint="shop",
        created_at=at(second),
        received_at=at(second + 1),
        api_version="2026-10-28.endive",
        request_id=None,
        idempotency_key=None,
        object_type=object_type,
        object_id=object_id,
        data=data,
        previous=previous,
        raw=NO_RAW,
    )


def key(object_id: str) -> ObjectKey:
    """An object of the default account, live."""
    return ObjectKey("default", True, object_id)


def observation(
    event_type: str,
    data: Data,
    *,
    second: int = 0,
    event_id: str = "evt_1",
    previous: Mapping[str, Any] | None = None,
) -> Observation:
    """What an event says of its own object."""
    object_type, object_id = _object_of(event_type, data)
    return Observation(
        key=key(object_id),
        object_type=object_type,
        event_id=event_id,
        event_type=event_type,
        created_at=at(second),
        api_version=None,
        data=data,
        previous=previous,
    )


def _object_of(event_type: str, data: Data) -> tuple[str, str]:
    """Its type and its id. A plan is a price but for its events' name."""
    object_type = _OBJECT_TYPES[type(data)]
    object_id: str = getattr(data, f"{object_type}_id")
    return ("plan" if event_type.startswith("plan.") else object_type), object_id


# What a set of events comes to -----------------------------------------------------------------------------------------


class Replica:
    """What a store does, in memory and without its engine's help.

    New observations that are later than what is known of their object are folded after it; any other makes the object
    be folded anew from its ledger.
    """

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self.ledger: defaultdict[ObjectKey, dict[str, Observation]] = defaultdict(dict)
        self.states: dict[ObjectKey, ObjectState] = {}
        self.no_ops: dict[ObjectKey, frozenset[str]] = {}
        self.incremental_folds = 0

    def apply(self, batch: Iterable[Event]) -> None:
        """Take a batch as it arrives, repetitions included."""
        for object_key, new in self._record(batch).items():
            state = self.states.get(object_key)
            if state is None or continues(state, new):
                self.incremental_folds += state is not None
                folded = fold(new, after=state)
                self.no_ops[object_key] = self.no_ops.get(object_key, frozenset()) | folded.no_ops
            else:
                folded = fold(self.ledger[object_key].values())
                self.no_ops[object_key] = folded.no_ops
            self.states[object_key] = folded.state

    def rows(self) -> Rows:
        """All rows, by table and key."""
        members: defaultdict[ObjectKey, list[ObjectState]] = defaultdict(list)
        for object_key, roots in self._roots().items():
            if object_key in self.states:
                for root in roots:
                    members[root].append(self.states[object_key])
        return {
            (row.table, row.key): row.columns
            for root, states in members.items()
            for row in self.projection.rows(root, states).rows
        }

    def _record(self, batch: Iterable[Event]) -> Mapping[ObjectKey, list[Observation]]:
        new: defaultdict[ObjectKey, list[Observation]] = defaultdict(list)
        for each in batch:
            if each.category in self.projection.categories:
                for seen in self.projection.observe(each):
                    if seen.event_id not in self.ledger[seen.key]:
                        self.ledger[seen.key][seen.event_id] = seen
                        new[seen.key].append(seen)
        return new

    def _roots(self) -> Mapping[ObjectKey, Collection[ObjectKey]]:
        """Each id's roots: the least that satisfies all links."""
        roots: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)
        waiting: set[tuple[ObjectKey, ObjectKey]] = set()
        for seen in (o for observations in self.ledger.values() for o in observations.values()):
            links: Links = self.projection.links(seen)
            here = seen.key
            for root_id in links.roots:
                for member_id in (root_id, here.object_id, *links.refs):
                    roots[_near(here, member_id)].add(_near(here, root_id))
            if links.via is not None:
                waiting.add((_near(here, links.via), here))
        growing = True
        while growing:  # ends: roots only grow, and there are finitely many
            growing = False
            for via, member in waiting:
                if not roots[via] <= roots[member]:
                    roots[member] |= roots[via]
                    growing = True
        return roots


def oracle_rows(projection: Projection, events: Iterable[Event]) -> Rows:
    """All rows that a set of events comes to: every object folded once, from all its observations.

    Of several renderings of one event the first counts; otherwise the order is of no account.
    """
    replica = Replica(projection)
    replica.apply(events)
    return replica.rows()


def _near(object_key: ObjectKey, object_id: str) -> ObjectKey:
    return ObjectKey(object_key.account, object_key.livemode, object_id)


# Strategies ------------------------------------------------------------------------------------------------------------

_seconds: Final = st.integers(min_value=0, max_value=3)
_amounts: Final = st.sampled_from([None, 0, 30, 50, 100])
_some_metadata: Final = st.sampled_from([{}, {"n": "1"}, {"n": "2"}])
_subscription_statuses: Final = st.sampled_from(
    ["incomplete", "trialing", "active", "past_due", "unpaid", "canceled", "incomplete_expired", "new_status", None]
)


def _maybe(value: str) -> st.SearchStrategy[str | None]:
    return st.sampled_from([value, None])


def _one_of(*values: str) -> st.SearchStrategy[str | None]:
    return st.sampled_from([*values, None])


_rarely: Final = st.sampled_from([False] * 7 + [True])


def _lives_of(name: str, *others: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{name}.{what}" for what in ("created", "updated", "updated", "deleted", *others)])


_items: Final = st.lists(
    st.builds(
        SubscriptionItem,
        subscription_item_id=st.sampled_from(["si_1", "si_2"]),
        price_id=st.just("price_1"),
        quantity=st.sampled_from([1, 2]),
    ),
    max_size=2,
    unique_by=lambda item: item.subscription_item_id,
).map(tuple)

_subscriptions: Final[st.SearchStrategy[Data]] = st.builds(
    Subscription,
    subscription_id=st.just("sub_1"),
    status=_subscription_statuses,
    items=_items,
    latest_invoice_id=_one_of("in_1", "in_2"),
    currency=_maybe("eur"),
    metadata=_some_metadata,
)
_invoices: Final[st.SearchStrategy[Data]] = st.builds(
    Invoice,
    invoice_id=st.sampled_from(["in_1", "in_2"]),
    status=_one_of("draft", "open", "paid", "void"),
    subscription_id=_maybe("sub_1"),
    amount_paid_minor=_amounts,
    attempt_count=st.sampled_from([0, 1, 2]),
)
_intents: Final[st.SearchStrategy[Data]] = st.builds(
    PaymentIntent,
    payment_intent_id=st.sampled_from(["pi_1", "pi_2"]),
    status=_one_of("requires_payment_method", "processing", "succeeded", "canceled"),
    amount_minor=_amounts,
    latest_charge_id=_one_of("ch_1", "ch_2"),
    invoice_id=_one_of("in_1", "in_2"),
    failure_code=_maybe("card_declined"),
)
_refunds: Final[st.SearchStrategy[Refund]] = st.builds(
    Refund,
    refund_id=st.sampled_from(["re_1", "re_2", "re_3"]),
    charge_id=_one_of("ch_1", "ch_2", "ch_3"),
    payment_intent_id=_one_of("pi_1", "pi_2"),
    status=_one_of("pending", "succeeded", "failed", "canceled"),
    amount_minor=_amounts,
    balance_transaction_id=_maybe("txn_1"),
    created_at=st.sampled_from([at(0), at(2), None]),
)
_charges: Final[st.SearchStrategy[Data]] = st.builds(
    Charge,
    charge_id=st.sampled_from(["ch_1", "ch_2", "ch_3"]),
    payment_intent_id=_one_of("pi_1", "pi_2"),
    invoice_id=_one_of("in_1", "in_2"),
    status=_one_of("pending", "succeeded", "failed"),
    amount_minor=_amounts,
    amount_captured_minor=_amounts,
    amount_refunded_minor=_amounts,
    disputed=st.sampled_from([True, False, None]),
    refunds=st.lists(_refunds, max_size=2, unique_by=lambda refund: refund.refund_id).map(tuple),
)
_disputes: Final[st.SearchStrategy[Data]] = st.builds(
    Dispute,
    dispute_id=st.sampled_from(["dp_1", "dp_2"]),
    charge_id=_one_of("ch_1", "ch_2"),
    payment_intent_id=_maybe("pi_1"),
    status=_one_of("needs_response", "under_review", "won", "lost"),
)
_sessions: Final[st.SearchStrategy[Data]] = st.builds(
    CheckoutSession,
    checkout_session_id=st.sampled_from(["cs_1", "cs_2"]),
    payment_intent_id=_maybe("pi_1"),
    invoice_id=_one_of("in_1", "in_2"),
    status=_one_of("open", "complete", "expired"),
)
_invoice_payments: Final[st.SearchStrategy[Data]] = st.builds(
    InvoicePayment,
    invoice_payment_id=st.sampled_from(["inpay_1", "inpay_2"]),
    invoice_id=_one_of("in_1", "in_2"),
    payment_intent_id=_one_of("pi_1", "pi_2"),
    charge_id=_maybe("ch_3"),
    status=_one_of("open", "paid"),
)
_births: Final = st.sampled_from([at(0), at(0), at(1), at(2), None])
_products: Final[st.SearchStrategy[Data]] = st.builds(
    Product,
    product_id=st.just("gold"),
    name=_one_of("Gold", "Club"),
    description=_maybe("For members"),
    active=st.sampled_from([True, False, None]),
    deleted=_rarely,
    metadata=_some_metadata,
    created_at=_births,
    updated_at=st.sampled_from([at(0), at(1), at(2), None]),
)
_prices: Final[st.SearchStrategy[Data]] = st.builds(
    Price,
    price_id=st.sampled_from(["gold", "price_1"]),
    product_id=_maybe("gold"),
    active=st.sampled_from([True, False, None]),
    unit_amount_minor=_amounts,
    lookup_key=_maybe("standard"),
    nickname=_one_of("Monthly", "Yearly"),
    tax_behavior=_one_of("exclusive", "inclusive"),
    deleted=_rarely,
    metadata=_some_metadata,
    created_at=_births,
)
_plans: Final[st.SearchStrategy[Data]] = st.builds(
    Price,
    price_id=st.just("gold"),
    product_id=_maybe("gold"),
    active=st.sampled_from([True, False, None]),
    unit_amount_minor=_amounts,
    nickname=_one_of("Monthly", "Yearly"),
    deleted=_rarely,
    metadata=_some_metadata,
    created_at=_births,
)

_subscription_types: Final = st.sampled_from(
    [
        "customer.subscription.created",
        *["customer.subscription.updated"] * 4,
        "customer.subscription.paused",
        "customer.subscription.deleted",
        "subscription.snapshot",
    ]
)
_previous: Final[st.SearchStrategy[Mapping[str, Any] | None]] = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={"status": _subscription_statuses, "metadata": _some_metadata, "latest_invoice_id": _maybe("in_1")}
    ),
)
_refund_previous: Final[st.SearchStrategy[Mapping[str, Any] | None]] = st.one_of(
    st.none(), st.fixed_dictionaries({"status": _one_of("pending", "succeeded")})
)
_catalog_previous: Final[st.SearchStrategy[Mapping[str, Any] | None]] = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={"active": st.booleans(), "metadata": _some_metadata, "nickname": _one_of("Monthly", "Yearly")}
    ),
)


def _events_about(
    data: st.SearchStrategy[Data],
    event_types: st.SearchStrategy[str],
    previous: st.SearchStrategy[Mapping[str, Any] | None],
) -> st.SearchStrategy[Event]:
    return st.builds(event, event_types, data, second=_seconds, previous=previous)


def _numbered(events: Sequence[Event], ids: Sequence[int]) -> tuple[Event, ...]:
    return tuple(replace(e, event_id=f"evt_{n:04}") for e, n in zip(events, ids, strict=True))


def _histories(events: st.SearchStrategy[Event], max_size: int) -> st.SearchStrategy[tuple[Event, ...]]:
    """Events with ids that say nothing about their order."""
    return st.lists(events, min_size=1, max_size=max_size).flatmap(
        lambda drawn: st.permutations(range(len(drawn))).map(lambda ids: _numbered(drawn, ids))
    )


subscription_histories: Final = _histories(
    st.one_of(
        _events_about(_subscriptions, _subscription_types, _previous),
        _events_about(
            _invoices,
            st.sampled_from(["invoice.created", "invoice.updated", "invoice.paid", "invoice.deleted"]),
            st.one_of(st.none(), st.fixed_dictionaries({"status": _one_of("draft", "open")})),
        ),
    ),
    max_size=12,
)
"""Events about one subscription and its invoices, within a few seconds; they need not make sense."""

catalog_histories: Final = _histories(
    st.one_of(
        _events_about(_products, _lives_of("product", "snapshot"), _catalog_previous),
        _events_about(_prices, _lives_of("price", "snapshot"), _catalog_previous),
        _events_about(_plans, _lives_of("plan"), _catalog_previous),
    ),
    max_size=12,
)
"""Events about a product and two prices, one of them a plan as well, within a few seconds; they need not make sense.

The product and the plan have the same id, which they may be deleted with and made anew."""

payment_histories: Final = _histories(
    st.one_of(
        _events_about(
            _intents,
            st.sampled_from(["payment_intent.created", "payment_intent.succeeded", "payment_intent.payment_failed"]),
            st.none(),
        ),
        _events_about(
            _charges,
            st.sampled_from(["charge.succeeded", "charge.updated", "charge.refunded", "charge.snapshot"]),
            st.none(),
        ),
        _events_about(
            _refunds,
            st.sampled_from(["refund.created", "refund.updated", "charge.refund.updated", "refund.failed"]),
            _refund_previous,
        ),
        _events_about(_disputes, st.sampled_from(["charge.dispute.created", "charge.dispute.closed"]), st.none()),
        _events_about(_sessions, st.sampled_from(["checkout.session.completed"]), st.none()),
        _events_about(_invoice_payments, st.sampled_from(["invoice_payment.paid"]), st.none()),
    ),
    max_size=14,
)
"""Events about a few payments that share charges and invoices, within a few seconds; they need not make sense."""


@st.composite
def arrivals(draw: st.DrawFn, events: Sequence[Event]) -> list[list[Event]]:
    """One way for events to arrive: in any order, some of them again, in batches of any size."""
    again = draw(st.lists(st.sampled_from(list(events)), max_size=4))
    order = draw(st.permutations([*events, *again]))
    ends = draw(st.sets(st.integers(min_value=1, max_value=len(order))))
    return [order[begin:end] for begin, end in pairwise(sorted({0, len(order), *ends}))]
