from collections.abc import Sequence
from datetime import datetime
from itertools import permutations
from typing import Any

import msgspec
import pytest

from service.contract import (
    Charge,
    Invoice,
    PaymentIntent,
    Product,
    Refund,
    Subscription,
    SubscriptionItem,
)
from service.projections.model import ObjectState, Observation
from service.projections.ordering import LINKED_EVENTS_MAX, Folded, fold
from tests.support.histories import at, observation


def subscription(status: str, **fields: object) -> Subscription:
    return msgspec.convert({"subscription_id": "sub_1", "status": status, **fields}, Subscription)


def intent(status: str, **fields: object) -> PaymentIntent:
    return msgspec.convert({"payment_intent_id": "pi_1", "status": status, **fields}, PaymentIntent)


def refund(status: str | None, **fields: object) -> Refund:
    return msgspec.convert({"refund_id": "re_1", "status": status, **fields}, Refund)


def updated(data: Subscription, event_id: str, *, second: int = 0, was: str | None = None) -> Observation:
    return observation(
        "customer.subscription.updated",
        data,
        event_id=event_id,
        second=second,
        previous=None if was is None else {"status": was},
    )


def status(folded: Folded) -> object:
    return getattr(folded.state.data, "status", None)


def fold_in_every_order(observations: Sequence[Observation], after: ObjectState | None = None) -> Folded:
    """The one result that all orders of arrival must have."""
    results = [fold(order, after=after) for order in permutations(observations)]
    assert all(result == results[0] for result in results)
    return results[0]


ACTIVE = fold([updated(subscription("active"), "evt_0", second=0)]).state


@pytest.mark.parametrize("ids", list(permutations(["evt_1", "evt_2"])))
def test_a_cycle_within_one_second_ends_where_its_links_end(ids: Sequence[str]) -> None:
    cycle = [
        updated(subscription("past_due"), ids[0], second=1, was="active"),
        updated(subscription("active", latest_invoice_id="in_2"), ids[1], second=1, was="past_due"),
    ]
    folded = fold_in_every_order(cycle, ACTIVE)
    assert (status(folded), folded.state.undecided) == ("active", 0)
    assert folded.state.last_event_id == ids[1]


def test_the_other_half_of_the_cycle_starts_from_the_other_state() -> None:
    past_due = fold([updated(subscription("past_due"), "evt_0", second=0)]).state
    cycle = [
        updated(subscription("past_due"), "evt_1", second=1, was="active"),
        updated(subscription("active"), "evt_2", second=1, was="past_due"),
    ]
    assert status(fold_in_every_order(cycle, past_due)) == "past_due"


@pytest.mark.parametrize("ids", list(permutations(["evt_1", "evt_2"])))
def test_a_refund_that_fails_in_the_second_in_which_it_succeeded_has_failed(ids: Sequence[str]) -> None:
    folded = fold_in_every_order(
        [
            observation("refund.created", refund("succeeded"), event_id=ids[0]),
            observation("refund.failed", refund("failed"), event_id=ids[1]),
        ]
    )
    assert status(folded) == "failed"


def test_payment_intent_events_of_one_second_are_ranked_by_type() -> None:
    types = {
        "payment_intent.succeeded": "succeeded",
        "payment_intent.payment_failed": "requires_payment_method",
        "payment_intent.processing": "processing",
        "payment_intent.created": "requires_confirmation",
    }
    history = [observation(name, intent(said), event_id=f"evt_{n}") for n, (name, said) in enumerate(types.items())]
    folded = fold_in_every_order(history)
    assert (status(folded), folded.state.undecided) == ("succeeded", 0)
    assert status(fold_in_every_order(history[1:])) == "requires_payment_method"


def test_a_later_second_wins_whatever_its_rank() -> None:
    folded = fold_in_every_order(
        [
            updated(subscription("unpaid"), "evt_2", second=0),
            updated(subscription("incomplete"), "evt_1", second=1),
        ]
    )
    assert status(folded) == "incomplete"


def test_the_second_event_object_for_one_change_is_a_no_op() -> None:
    change = updated(subscription("past_due"), "evt_2", second=1, was="active")
    twin = updated(subscription("past_due"), "evt_3", second=1, was="active")
    back = updated(subscription("active"), "evt_4", second=1, was="past_due")
    folded = fold_in_every_order([change, twin, back], ACTIVE)
    assert folded.no_ops == {"evt_3"}
    assert (status(folded), folded.state.undecided) == ("active", 0)


def test_an_event_that_repeats_the_state_a_second_later_is_a_no_op_that_moves_the_clock() -> None:
    folded = fold([updated(subscription("active"), "evt_9", second=1)], after=ACTIVE)
    assert folded.no_ops == {"evt_9"}
    assert folded.state.last_event_at == at(1)


def test_a_snapshot_wins_over_what_came_before_and_loses_to_its_own_second() -> None:
    snapshot = observation("subscription.snapshot", subscription("unpaid"), event_id="snapshot:sub_1", second=5)
    before = updated(subscription("active"), "evt_1", second=4)
    beside = updated(subscription("trialing"), "evt_2", second=5)
    assert status(fold_in_every_order([before, snapshot])) == "unpaid"
    assert status(fold_in_every_order([before, snapshot, beside])) == "trialing"


def described(event_id: str, data_status: str, event_type: str = "customer.subscription.updated") -> Observation:
    """An update whose old values any object without metadata happens to have."""
    data = subscription(data_status, metadata={"n": "1"})
    return observation(event_type, data, event_id=event_id, previous={"metadata": {}})


@pytest.mark.parametrize("event_type", ["customer.subscription.deleted", "customer.subscription.updated"])
def test_the_end_is_last_in_its_second_even_where_links_say_otherwise(event_type: str) -> None:
    end = observation(event_type, subscription("canceled"), event_id="evt_1")
    assert status(fold_in_every_order([end, described("evt_2", "active")])) == "canceled"


def test_deletion_comes_after_every_other_word_of_the_end() -> None:
    deleted = observation("customer.subscription.deleted", subscription("canceled"), event_id="evt_1")
    folded = fold_in_every_order([deleted, described("evt_2", "canceled")])
    assert folded.state.last_event_type == "customer.subscription.deleted"


def test_creation_is_first_in_its_second_even_where_ranks_say_otherwise() -> None:
    created = observation("customer.subscription.created", subscription("active"), event_id="evt_2")
    assert status(fold_in_every_order([created, updated(subscription("trialing"), "evt_1")])) == "trialing"


def test_updates_are_linked_to_the_creation_of_their_second() -> None:
    history = [
        observation("customer.subscription.created", subscription("active"), event_id="evt_3"),
        updated(subscription("past_due"), "evt_2", was="active"),
        updated(subscription("active", latest_invoice_id="in_2"), "evt_1", was="past_due"),
    ]
    assert status(fold_in_every_order(history)) == "active"


@pytest.mark.parametrize("event_type", ["invoice.updated", "invoice.snapshot", "invoice.created"])
def test_nothing_that_comes_after_a_deletion_changes_the_object(event_type: str) -> None:
    deleted = observation("invoice.deleted", Invoice(invoice_id="in_1", status="draft"), event_id="evt_1", second=1)
    stray = observation(event_type, Invoice(invoice_id="in_1", status="open"), event_id="evt_2", second=2)
    folded = fold_in_every_order([deleted, stray])
    assert folded.state.last_event_type == "invoice.deleted"
    assert status(folded) == "draft"
    assert folded.no_ops == {"evt_2"}
    assert fold([stray], after=fold([deleted]).state).state == folded.state


def test_a_canceled_subscription_can_still_be_described_but_not_revived() -> None:
    end = [
        observation("customer.subscription.deleted", subscription("canceled"), event_id="evt_1", second=1),
        updated(subscription("canceled", metadata={"why": "price"}), "evt_2", second=2),
        updated(subscription("active"), "evt_3", second=3),
    ]
    folded = fold_in_every_order(end)
    assert folded.state.data == subscription("canceled", metadata={"why": "price"})


def test_null_does_not_erase_what_only_some_api_versions_say() -> None:
    folded = fold_in_every_order(
        [
            observation("payment_intent.created", intent("processing", invoice_id="in_1"), event_id="evt_1"),
            observation("payment_intent.succeeded", intent("succeeded"), event_id="evt_2", second=1),
        ]
    )
    assert folded.state.data == intent("succeeded", invoice_id="in_1")


def test_null_erases_what_stripe_takes_back() -> None:
    folded = fold_in_every_order(
        [
            observation("payment_intent.payment_failed", intent("x", failure_code="card_declined"), event_id="evt_1"),
            observation("payment_intent.succeeded", intent("succeeded"), event_id="evt_2", second=1),
        ]
    )
    assert folded.state.data == intent("succeeded")


@pytest.mark.parametrize("ids", list(permutations(["evt_1", "evt_2", "evt_3"])))
def test_links_are_read_in_lists_and_times_as_json_has_them(ids: Sequence[str]) -> None:
    def with_item(quantity: int, ends: datetime) -> Subscription:
        item = SubscriptionItem(subscription_item_id="si_1", quantity=quantity, current_period_end=ends)
        return Subscription(subscription_id="sub_1", status="active", items=(item,))

    def old(data: Subscription) -> object:
        return msgspec.json.decode(msgspec.json.encode(data.items))

    states = [with_item(1, at(10)), with_item(2, at(10)), with_item(1, at(20)), with_item(3, at(20))]
    chain = [
        observation("customer.subscription.updated", new, event_id=event_id, previous={"items": old(before)})
        for before, new, event_id in zip(states, states[1:], ids, strict=False)
    ]
    folded = fold_in_every_order(chain)
    assert (folded.state.data, folded.state.undecided) == (states[3], 0)


def test_a_link_over_metadata_is_to_the_state_with_exactly_that_metadata() -> None:
    def updated_to(event_id: str, metadata: dict[str, str], was: dict[str, str]) -> Observation:
        data = Subscription(subscription_id="sub_1", metadata=metadata)
        return observation(
            "customer.subscription.updated", data, event_id=event_id, second=1, previous={"metadata": was}
        )

    folded = fold_in_every_order(
        [
            updated_to("evt_3", {"a": "1"}, {}),
            updated_to("evt_2", {"a": "1", "b": "2"}, {"a": "1"}),
            updated_to("evt_1", {}, {"a": "1", "b": "2"}),
        ],
        ACTIVE,
    )
    assert folded.state.last_event_id == "evt_1"


def test_what_neither_links_nor_ranks_decide_is_counted_once_for_each_second() -> None:
    def note(event_id: str, text: str, second: int) -> Observation:
        return updated(subscription("active", metadata={"note": text}), event_id, second=second)

    history = [note("evt_1", "a", 0), note("evt_2", "b", 0), note("evt_3", "a", 1), note("evt_4", "b", 1)]
    folded = fold_in_every_order(history)
    assert folded.state.undecided == 2
    assert folded.state.last_event_id == "evt_4"


def test_an_undecided_order_of_what_is_not_last_does_not_count() -> None:
    history = [
        updated(subscription("active", metadata={"note": "a"}), "evt_1"),
        updated(subscription("active", metadata={"note": "b"}), "evt_2"),
        updated(subscription("unpaid"), "evt_3"),
    ]
    assert fold_in_every_order(history).state.undecided == 0


@pytest.mark.parametrize("was", [None, "never_was"])
def test_ranks_decide_where_no_link_holds(was: str | None) -> None:
    history = [updated(subscription("past_due"), "evt_1", was=was), updated(subscription("active"), "evt_2", was=was)]
    folded = fold_in_every_order(history)
    assert (status(folded), folded.state.undecided) == ("past_due", 0)


@pytest.mark.parametrize("was", [None, "never_was"])
def test_ids_decide_where_neither_links_nor_ranks_do(was: str | None) -> None:
    history = [updated(subscription("active", currency=c), f"evt_{c}", was=was) for c in ("eur", "usd")]
    folded = fold_in_every_order(history)
    assert (folded.state.last_event_id, folded.state.undecided) == ("evt_usd", 1)


@pytest.mark.parametrize("was", [None, {"status": "never_was"}])
def test_events_that_say_the_same_under_two_types_need_no_decision(was: dict[str, str] | None) -> None:
    paid = Invoice(invoice_id="in_1", status="paid")
    history = [
        observation("invoice.paid", paid, event_id="evt_1", previous=was),
        observation("invoice.payment_succeeded", paid, event_id="evt_2", previous=was),
    ]
    assert fold_in_every_order(history).state.undecided == 0


def test_many_events_without_a_link_are_undecided() -> None:
    history = [updated(subscription("active", currency=str(n)), f"evt_{n}", was="never_was") for n in range(9)]
    folded = fold(reversed(history))
    assert (folded.state.last_event_id, folded.state.undecided) == ("evt_8", 1)


def test_after_a_chain_has_ended_the_next_begins_at_its_head() -> None:
    """Two updates follow the same one; of the branch that is taken last, the end is the end."""

    def counted(event_id: str, n: int, was: int) -> Observation:
        data = subscription("active", metadata={"n": str(n)})
        return observation(
            "customer.subscription.updated", data, event_id=event_id, previous={"metadata": {"n": str(was)}}
        )

    trunk = [counted(f"evt_a{n}", n + 1, n) for n in range(6)]
    branch = [counted("evt_c", 20, 1), counted("evt_b", 21, 20)]
    assert fold([*branch, *trunk]).state.last_event_id == "evt_b"


def test_one_state_that_is_reached_by_two_changes_is_two_changes() -> None:
    history = [
        updated(subscription("past_due"), "evt_1", second=1, was="active"),
        updated(subscription("unpaid"), "evt_2", second=1, was="past_due"),
        updated(subscription("past_due"), "evt_3", second=1, was="unpaid"),
    ]
    folded = fold_in_every_order(history, ACTIVE)
    assert (folded.state.last_event_id, folded.no_ops) == ("evt_3", frozenset())


def test_an_event_that_changes_nothing_beside_another_of_its_second_is_a_no_op() -> None:
    history = [updated(subscription("active"), "evt_1"), updated(subscription("active"), "evt_2", was="trialing")]
    assert fold_in_every_order(history).no_ops == {"evt_2"}


def test_a_tie_is_noticed_beyond_the_last_two() -> None:
    paid = Charge(charge_id="ch_1", status="succeeded")
    disputed = Charge(charge_id="ch_1", status="succeeded", disputed=True)
    history = [
        observation("charge.updated", disputed, event_id="evt_1"),
        observation("charge.updated", paid, event_id="evt_2"),
        observation("charge.refunded", paid, event_id="evt_3"),
    ]
    assert fold_in_every_order(history).state.undecided == 1


def test_more_events_than_are_linked_keep_the_order_of_their_ranks() -> None:
    many = LINKED_EVENTS_MAX + 1
    history = [
        observation(
            "refund.updated", refund("pending", reason=str(n)), event_id=f"evt_{n:04}", previous={"status": "failed"}
        )
        for n in range(many)
    ]
    history.append(observation("refund.updated", refund("failed"), event_id="evt_0000a"))
    assert status(fold(reversed(history))) == "failed"


def test_the_same_observation_given_twice_counts_once() -> None:
    once = updated(subscription("active"), "evt_1")
    assert fold([once, once]) == fold([once])


def test_folding_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to fold"):
        fold([])


@pytest.mark.parametrize("second", [-1, 0])
def test_an_observation_that_is_not_later_than_the_state_is_refused(second: int) -> None:
    with pytest.raises(ValueError, match="whole history"):
        fold([updated(subscription("active"), "evt_1", second=second)], after=ACTIVE)


def test_old_values_of_an_earlier_contract_still_link() -> None:
    """`previous` as it was published when refunds had fewer fields is no other value."""
    first = Refund(refund_id="re_1", amount_minor=50, status="succeeded")
    second = Refund(refund_id="re_2", amount_minor=50, status="succeeded")
    earlier = {"refund_id": "re_1", "amount_minor": 50, "status": "succeeded", "metadata": {}}
    history = [
        observation(
            "charge.refunded",
            Charge(charge_id="ch_1", amount_refunded_minor=50, refunds=(first,)),
            event_id="evt_b",
        ),
        observation(
            "charge.refunded",
            Charge(charge_id="ch_1", amount_refunded_minor=40, refunds=(second, first)),
            event_id="evt_a",
            previous={"refunds": [earlier]},
        ),
    ]
    assert fold(history).state.last_event_id == "evt_a"


@pytest.mark.parametrize("previous", [{"refunds": "none"}, {"amount_refunded_minor": "a"}, {"unheard_of": 1}])
def test_old_values_that_are_none_of_the_contracts_link_nothing(previous: dict[str, Any]) -> None:
    history = [
        observation("charge.updated", Charge(charge_id="ch_1", amount_refunded_minor=1), event_id="evt_a"),
        observation(
            "charge.updated", Charge(charge_id="ch_1", amount_refunded_minor=2), event_id="evt_b", previous=previous
        ),
    ]
    assert fold(history).state.last_event_id == "evt_b"


def test_what_came_to_a_deleted_product_counts_when_its_next_life_becomes_known() -> None:
    def product(name: str, kind: str, second: int, *, created: int | None = None) -> Observation:
        data = Product(product_id="gold", name=name, created_at=None if created is None else at(created))
        return observation(f"product.{kind}", data, event_id=f"evt_{name}", second=second)

    gone = product("gone", "deleted", 0, created=0)
    update = product("update", "updated", 2)
    reborn = product("reborn", "created", 1, created=1)
    deleted = fold([gone]).state

    assert fold_in_every_order([gone, update, reborn]).state.last_event_id == "evt_update"
    with pytest.raises(ValueError, match="whole history"):
        fold([update], after=deleted)


def test_a_snapshot_settles_what_was_undecided_before_it() -> None:
    tie = [
        observation("payment_intent.processing", intent("processing", description=name), event_id=f"evt_{name}")
        for name in ("one", "other")
    ]
    read = observation(
        "payment_intent.snapshot", intent("processing", description="as read"), event_id="snapshot:pi_1:5", second=5
    )
    after = fold(tie).state

    assert after.undecided == 1
    assert fold([read], after=after).state.undecided == 0
    assert fold_in_every_order([*tie, read]).state.undecided == 0
