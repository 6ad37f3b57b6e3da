"""`normalize` is total: whatever Stripe, or nobody, could send, it answers and never raises."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import DATA_TYPES, Event, Other
from service.events import Unprocessable
from service.normalize import normalize
from tests.support.corpus import CORPUS, payloads
from tests.unit.normalize.building import endpoint, event, verified

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
    """What `normalize` makes of a body, which must be whole: `detail` a path, `data` of its object's type."""
    outcome = normalize(verified(body, endpoint(mode="any")))
    if isinstance(outcome, Unprocessable):
        assert outcome.body == body
        assert outcome.detail.replace(".", "").replace("_", "").isalpha()
    else:
        assert outcome.category != "other" or type(outcome.data) in {Other, *DATA_TYPES.values()}
        assert bytes(outcome.raw) == body
    return outcome


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


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    if not CORPUS.is_dir():
        pytest.skip("no corpus of real payloads in shared/events beside the repository: nothing to mutate here")
    return [orjson.dumps(payload.event) for payload in payloads()]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_real_payload_with_anything_in_place_of_anything_is_answered(
    bodies: list[bytes], data: st.DataObject
) -> None:
    tree = orjson.loads(bodies[data.draw(st.integers(0, len(bodies) - 1))])
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
@given(st.data())
def test_a_real_payload_with_damaged_bytes_is_answered(bodies: list[bytes], data: st.DataObject) -> None:
    body = bytearray(bodies[data.draw(st.integers(0, len(bodies) - 1))])
    start = data.draw(st.integers(0, len(body)))
    body[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))

    settled(bytes(body))
