"""`normalize` is total: whatever Stripe, or nobody, could send, it answers and never raises."""

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import DATA_TYPES, Event
from service.events import Unprocessable
from service.normalize import normalize
from tests.fuzz.seeds import seeds
from tests.fuzz.target import settle, signed
from tests.unit.normalize.building import event, verified

NAMES = st.sampled_from(
    ["id", "object", "type", "created", "livemode", "account", "context", "request", "reason", "related_object", "data",
     "previous_attributes", "status", "amount", "currency", "customer", "charge", "refunds", "charges", "latest_charge",
     "items", "price", "plan", "recurring", "parent", "subscription_details", "subscription", "lines", "payments",
     "payment", "metadata", "total_taxes", "tax", "last_payment_error", "payment_method", "payment_method_types",
     "source", "dispute", "deleted", "current_period_end", "status_transitions", "paid_at"]
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["event", "v2.core.event", "evt_1", "charge.refunded", *DATA_TYPES, "2026-10-28T12:00:00Z"])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=6),
    max_leaves=25,
)
OBJECTS = st.dictionaries(NAMES, TREES, max_size=12)
EVENT_TYPES = st.sampled_from(["charge.refunded", "payment_intent.succeeded", "customer.subscription.updated",
                               "invoice.paid", "checkout.session.completed", "widget.created"])  # fmt: skip


def settled(body: bytes) -> Event | Unprocessable:
    """What `normalize` makes of a body, once all that must hold on the way to the projections has been seen to hold."""
    settle(signed(body))
    return normalize(verified(body))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_answered(body: bytes) -> None:
    settled(body)


@settings(deadline=None)
@given(TREES)
def test_any_json_is_answered(tree: object) -> None:
    settled(orjson.dumps(tree))


@settings(deadline=None)
@given(OBJECTS, EVENT_TYPES, st.sampled_from([*DATA_TYPES, "checkout.session", "widget"]), st.none() | OBJECTS)
def test_an_event_of_any_object_is_answered(
    tree: dict[str, Any], event_type: str, object_type: str, previous: dict[str, Any] | None
) -> None:
    whole = {"id": "x_1", **tree, "object": object_type}
    body = orjson.dumps(event(whole, event_type, data={"object": whole, "previous_attributes": previous}))

    outcome = settled(body)

    if isinstance(outcome, Unprocessable):
        assert outcome.event_id == "evt_1"
        assert outcome.detail.startswith(("data.object.", "data.previous_attributes."))


BODIES = st.deferred(lambda: st.sampled_from(seeds()))
"""The simulator's samples, and the real payloads where they lie beside the repository."""


@settings(max_examples=300, deadline=None)
@given(BODIES, st.data())
def test_a_real_payload_with_anything_in_place_of_anything_is_answered(body: bytes, data: st.DataObject) -> None:
    tree = orjson.loads(body)
    node = tree
    for _ in range(data.draw(st.integers(0, 5))):
        inner = [
            value
            for value in (node.values() if isinstance(node, dict) else node)
            if value and type(value) in (dict, list)
        ]
        if not inner:
            break
        node = data.draw(st.sampled_from(inner))
    places = list(node) if isinstance(node, dict) else range(len(node))
    node[data.draw(st.sampled_from(places))] = data.draw(TREES)

    settled(orjson.dumps(tree))


@settings(max_examples=300, deadline=None)
@given(BODIES, st.data())
def test_a_real_payload_with_damaged_bytes_is_answered(body: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(body)))
    rest = body[start + data.draw(st.integers(0, 40)) :]

    settled(body[:start] + data.draw(st.binary(max_size=40)) + rest)
