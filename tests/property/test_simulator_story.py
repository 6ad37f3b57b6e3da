"""What holds for every shop, whatever its seed."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import Event, Other
from service.normalize import normalize
from service.signature import verify
from service.simulator.events import render
from service.simulator.shop import DISORDER_WINDOW, DUPLICATED_SHARE, STORY_SPAN, deliveries, shop
from tests.support.signing import NOW, signed_delivery

SEEDS = st.integers(min_value=0, max_value=2**63 - 1)
STARTS = st.datetimes(
    min_value=datetime(2020, 1, 1),  # noqa: DTZ001 -- the strategy wants naive bounds, and adds the zone itself
    max_value=datetime(2030, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
FEW = settings(max_examples=15, deadline=None)

# Each status and those that may directly follow it.
NEXT: dict[str, dict[str, set[str]]] = {
    "payment_intent": {
        "requires_payment_method": {"requires_action", "processing", "requires_capture", "succeeded", "canceled"},
        "requires_action": {"requires_payment_method", "processing", "requires_capture", "succeeded", "canceled"},
        "succeeded": set(),
        "canceled": set(),
    },
    "charge": {"succeeded": set(), "failed": set()},
    "refund": {"pending": {"succeeded", "failed", "canceled"}, "succeeded": {"failed"}, "failed": set()},
    "subscription": {
        "incomplete": {"active", "incomplete_expired"},
        "active": {"past_due", "canceled"},
        "past_due": {"active", "unpaid", "canceled"},
        "canceled": set(),
    },
    "invoice": {"draft": {"open"}, "open": {"paid", "void", "uncollectible"}, "paid": set()},
    "checkout.session": {"complete": set(), "expired": set()},
    "invoice_payment": {"paid": set()},
}


@FEW
@given(seed=SEEDS, start=STARTS)
def test_statuses_follow_stripes_state_machines(seed: int, start: datetime) -> None:
    last: dict[str, str] = {}
    for event in shop(seed, start).events:
        obj = event["data"]["object"]
        if obj["object"] in NEXT:
            status = obj["status"]
            before = last.get(obj["id"], status)
            assert status == before or status in NEXT[obj["object"]][before], event["type"]
            last[obj["id"]] = status


def undone(obj: dict[str, Any], previous: dict[str, Any]) -> dict[str, Any]:
    """The object as it was before a change; what is null may as well be absent."""
    before = dict(obj)
    for name, old in previous.items():
        now = obj.get(name)
        before[name] = undone(now, old) if isinstance(old, dict) and isinstance(now, dict) else old
    return {name: value for name, value in before.items() if value is not None}


@FEW
@given(seed=SEEDS, start=STARTS)
def test_created_never_goes_back_and_stays_within_the_storys_span(seed: int, start: datetime) -> None:
    created = [event["created"] for event in shop(seed, start).events]
    assert created == sorted(created)
    assert created[0] == int(start.timestamp())
    assert created[-1] < (start + STORY_SPAN).timestamp()


@FEW
@given(seed=SEEDS, start=STARTS)
def test_taking_a_change_back_gives_the_object_as_it_was_told_before(seed: int, start: datetime) -> None:
    state: dict[str, dict[str, Any]] = {}
    checked = 0
    for event in shop(seed, start).events:
        obj = event["data"]["object"]
        previous = event["data"].get("previous_attributes")
        # Some changes are told by several events: the later ones find the object as it is already.
        if previous is not None and obj != state[obj["id"]]:
            # An object inside keeps its nulls, so the comparison needs the same treatment on both sides.
            assert undone(obj, previous) == undone(state[obj["id"]], previous)
            checked += 1
        if "id" in obj:
            state[obj["id"]] = obj
    assert checked >= 20


@FEW
@given(seed=SEEDS, start=STARTS)
def test_the_expected_facts_add_up_with_the_events(seed: int, start: datetime) -> None:
    story = shop(seed, start)
    last = {event["data"]["object"]["id"]: event["data"]["object"] for event in story.events}
    charges = [obj for obj in last.values() if obj["object"] == "charge"]
    assert all(0 <= charge["amount_refunded"] <= charge["amount_captured"] <= charge["amount"] for charge in charges)
    counted: Counter[str] = Counter()
    for refund_id, facts in story.expected["refunds"].items():
        refund = last[refund_id]
        assert (facts["status"], facts["amount_minor"]) == (refund["status"], refund["amount"])
        assert facts["amount_minor"] <= last[refund["charge"]]["amount"]
        if facts["status"] == "succeeded":
            counted[facts["payment_intent_id"]] += facts["amount_minor"]
    for payment_id, facts in story.expected["payments"].items():
        intent = last[payment_id]
        assert (facts["status"], facts["amount_minor"]) == (intent["status"], intent["amount"])
        assert facts["amount_received_minor"] == intent["amount_received"]
        assert facts["amount_refunded_minor"] == counted[payment_id] <= facts["amount_received_minor"]
    for invoice_id, facts in story.expected["invoices"].items():
        invoice = last[invoice_id]
        assert (facts["status"], facts["amount_paid_minor"]) == (invoice["status"], invoice["amount_paid"])
        assert facts["amount_paid_minor"] == sum(line["amount"] for line in invoice["lines"]["data"]) > 0
        assert facts["attempt_count"] == invoice["attempt_count"]


@FEW
@given(seed=SEEDS, start=STARTS)
def test_every_event_is_normalized_to_a_type_of_its_own(seed: int, start: datetime) -> None:
    for event in shop(seed, start).events:
        normalized = normalize(verify(signed_delivery(render(event)), now=NOW, tolerance_seconds=300))
        assert isinstance(normalized, Event), event["type"]
        assert not isinstance(normalized.data, Other)
        assert normalized.event_id == event["id"]


@FEW
@given(seed=SEEDS, start=STARTS, livemode=st.booleans(), account=st.none() | st.just("acct_1SimulatedShop"))
def test_a_story_is_a_function_of_its_arguments(
    seed: int, start: datetime, livemode: bool, account: str | None
) -> None:
    first = shop(seed, start, livemode=livemode, account=account)
    second = shop(seed, start, livemode=livemode, account=account)
    assert [render(event) for event in first.events] == [render(event) for event in second.events]
    assert first.expected == second.expected
    assert {event["livemode"] for event in first.events} == {livemode}
    assert {event.get("account") for event in first.events} == {account}


@FEW
@given(seed=SEEDS)
def test_two_shops_share_no_id(seed: int) -> None:
    start = NOW - STORY_SPAN
    ids = [{event["id"] for event in shop(each, start).events} for each in (seed, seed + 1)]
    assert not ids[0] & ids[1]
    assert all(len(of_one) == len(shop(seed, start).events) for of_one in ids)


@FEW
@given(seed=SEEDS, arrival_seed=SEEDS)
def test_deliveries_hold_every_event_some_twice_and_out_of_order(seed: int, arrival_seed: int) -> None:
    story = shop(seed, NOW - STORY_SPAN)
    arrived = deliveries(story, arrival_seed)
    assert arrived == deliveries(story, arrival_seed)
    times = Counter(event["id"] for event in arrived)
    assert times.keys() == {event["id"] for event in story.events}
    assert set(times.values()) == {1, 2}
    assert list(times.values()).count(2) == -(-len(story.events) // DUPLICATED_SHARE)

    place = {event["id"]: number for number, event in enumerate(story.events)}
    firsts = list(dict.fromkeys(place[event["id"]] for event in arrived))
    assert firsts != sorted(firsts)
    overtaken = max(max(firsts[: n + 1]) - number for n, number in enumerate(firsts))
    assert overtaken <= DISORDER_WINDOW
