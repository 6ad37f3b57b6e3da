"""Arrival order never matters: rows are a function of the set of events, however it is cut into batches."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.contract import Event, Refund, Subscription
from service.projections import PROJECTIONS
from service.projections.ordering import LINKED_EVENTS_MAX, fold, is_deleted
from service.projections.sticky import STICKY_FIELDS
from tests.support.histories import (
    PROPERTY,
    Replica,
    arrivals,
    catalog_histories,
    event,
    key,
    observation,
    oracle_rows,
    payment_histories,
    subscription_histories,
)


def check_any_arrival(name: str, history: Sequence[Event], batches: Sequence[Sequence[Event]]) -> None:
    """What a store comes to, batch by batch, is what all events at once come to: states, no-ops and rows."""
    projection = PROJECTIONS[name]
    at_once, in_batches = Replica(projection), Replica(projection)
    at_once.apply(history)
    for batch in batches:
        in_batches.apply(batch)
    assert in_batches.states == at_once.states
    assert in_batches.no_ops == at_once.no_ops
    assert in_batches.rows() == at_once.rows()


@PROPERTY
@given(st.data())
def test_any_arrival_of_subscription_events_gives_the_same_rows(data: st.DataObject) -> None:
    history = data.draw(subscription_histories)
    check_any_arrival("subscriptions", history, data.draw(arrivals(history)))


@PROPERTY
@given(st.data())
def test_any_arrival_of_payment_events_gives_the_same_payments(data: st.DataObject) -> None:
    history = data.draw(payment_histories)
    check_any_arrival("payments", history, data.draw(arrivals(history)))


@PROPERTY
@given(st.data())
def test_any_arrival_of_refund_events_gives_the_same_refunds(data: st.DataObject) -> None:
    history = data.draw(payment_histories)
    check_any_arrival("refunds", history, data.draw(arrivals(history)))


@PROPERTY
@given(st.data())
def test_any_arrival_of_catalog_events_gives_the_same_products_and_prices(data: st.DataObject) -> None:
    history = data.draw(catalog_histories)
    check_any_arrival("catalog", history, data.draw(arrivals(history)))


@PROPERTY
@given(subscription_histories)
def test_events_in_order_of_their_seconds_are_never_folded_anew(history: Sequence[Event]) -> None:
    """The incremental way is really taken, so that the properties above compare two different ways."""
    replica = Replica(PROJECTIONS["subscriptions"])
    by_second: dict[object, list[Event]] = {}
    for each in sorted(history, key=lambda e: e.created_at):
        by_second.setdefault(each.created_at, []).append(each)
    for batch in by_second.values():
        replica.apply(batch)
    seconds = sum(len({o.created_at for o in observed.values()}) for observed in replica.ledger.values())
    at_once = Replica(PROJECTIONS["subscriptions"])
    at_once.apply(history)
    assert replica.incremental_folds == seconds - len(replica.ledger)
    assert replica.states == at_once.states


@PROPERTY
@given(subscription_histories)
def test_a_subscription_that_was_deleted_never_comes_back(history: Sequence[Event]) -> None:
    deleted = event(
        "customer.subscription.deleted", Subscription(subscription_id="sub_1", status="canceled"), event_id="evt_end"
    )
    replica = Replica(PROJECTIONS["subscriptions"])
    replica.apply([*history, deleted])
    state = replica.states[key("sub_1")]
    assert isinstance(state.data, Subscription)
    assert is_deleted(state) or state.data.status in ("canceled", "incomplete_expired")


@PROPERTY
@given(payment_histories)
def test_sticky_fields_never_go_back_to_null(history: Sequence[Event]) -> None:
    projection = PROJECTIONS["payments"]
    replica = Replica(projection)
    replica.apply(history)
    for object_key, state in replica.states.items():
        for name in STICKY_FIELDS[state.object_type]:
            seen = {getattr(o.data, name) for o in replica.ledger[object_key].values()} - {None}
            value = getattr(state.data, name)
            assert value in seen if seen else value is None


@PROPERTY
@given(st.data(), st.integers(min_value=2, max_value=LINKED_EVENTS_MAX))
def test_a_chain_of_changes_within_one_second_is_followed_to_its_end(data: st.DataObject, length: int) -> None:
    ids = data.draw(st.permutations(range(length)))
    chain = [
        observation(
            "customer.subscription.updated",
            Subscription(subscription_id="sub_1", status="active", metadata={"n": str(n + 1)}),
            event_id=f"evt_{ids[n]:04}",
            previous={"metadata": {"n": str(n)}},
        )
        for n in range(length)
    ]
    folded = fold(data.draw(st.permutations(chain)))
    assert isinstance(folded.state.data, Subscription)
    assert folded.state.data.metadata == {"n": str(length)}
    assert folded.state.undecided == 0


@settings(PROPERTY, max_examples=10)
@given(st.data())
def test_hundreds_of_events_of_one_second_in_any_order_give_the_same_refund(data: st.DataObject) -> None:
    statuses = ("pending", "requires_action", "succeeded", "succeeded", "failed")
    history = [
        event(
            "refund.updated",
            Refund(refund_id="re_1", status=statuses[n % 5], amount_minor=n % 7),
            event_id=f"evt_{n:04}",
            previous={"status": statuses[(n * 3) % 5]} if n % 2 else None,
        )
        for n in range(400)
    ]
    shuffled = list(history)
    data.draw(st.randoms(use_true_random=False)).shuffle(shuffled)
    projection = PROJECTIONS["refunds"]
    assert oracle_rows(projection, shuffled) == oracle_rows(projection, history)


@PROPERTY
@given(payment_histories)
def test_accounts_and_modes_do_not_mix(history: Sequence[Event]) -> None:
    projection = PROJECTIONS["payments"]
    others = [replace(e, account="acct_2") for e in history] + [replace(e, livemode=False) for e in history]
    alone, together = oracle_rows(projection, history), oracle_rows(projection, [*history, *others])
    assert {identity: columns for identity, columns in together.items() if identity in alone} == alone
    assert len(together) == 3 * len(alone)
