"""Redaction of a tree: every occurrence of a path, wherever its object stands, and nothing else."""

import copy
import hashlib
import hmac
import sys
from base64 import b64encode
from typing import Any

import orjson
import pytest

from service.contract import Event, Subscription
from service.events import Unprocessable
from service.normalize import normalize
from service.normalize.event_types import CATALOGUE
from service.normalize.objects import type_of
from service.redaction import HASHES_MAX, Redaction, RedactionKeys, parse_paths
from service.redaction.object_types import OBJECT_TYPES
from tests.unit.normalize.building import endpoint, event, updated, verified

SECRET = bytes(range(32))
KEYS = RedactionKeys.of(b64encode(SECRET).decode())


def redaction(*paths: str) -> Redaction:
    return Redaction.of(parse_paths(paths), KEYS)


def redacted(tree: dict[str, Any], *paths: str) -> dict[str, Any]:
    before = copy.deepcopy(tree)
    after = redaction(*paths).apply(tree)
    assert tree == before
    return after


def hashed(value: str) -> str:
    """RFC 5869 and HMAC, by hand."""
    extracted = hmac.new(bytes(32), SECRET, hashlib.sha256).digest()
    key = hmac.new(extracted, b"stripe-ingest redaction hashing\x01", hashlib.sha256).digest()
    return "hmac-sha256:" + hmac.new(key, value.encode(), hashlib.sha256).hexdigest()


CUSTOMER = {"id": "cus_1", "object": "customer", "email": "a@example.org", "name": "Ada"}
PLAIN = {"id": "cus_1", "object": "customer", "name": "Ada"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (event(CUSTOMER, "customer.created"), event(PLAIN, "customer.created")),
        (event({"object": "charge", "customer": CUSTOMER}, "c"), event({"object": "charge", "customer": PLAIN}, "c")),
        (event({"object": "x", "list": [[CUSTOMER], 1]}, "c"), event({"object": "x", "list": [[PLAIN], 1]}, "c")),
        (
            event({"object": "x", "deep": {"deeper": {"object": "list", "data": [CUSTOMER]}}}, "c"),
            event({"object": "x", "deep": {"deeper": {"object": "list", "data": [PLAIN]}}}, "c"),
        ),
        (
            updated(CUSTOMER, "customer.updated", {"email": "b@example.org", "name": "Bob"}),
            updated(PLAIN, "customer.updated", {"name": "Bob"}),
        ),
        (
            updated({"object": "charge", "customer": CUSTOMER}, "c", {"customer": {"email": "b@example.org"}}),
            updated({"object": "charge", "customer": PLAIN}, "c", {"customer": {}}),
        ),
        (
            updated({"object": "x", "all": {"object": "list", "data": [CUSTOMER]}}, "c", {"all": [{"email": "b", "n": 1}, None]}),
            updated({"object": "x", "all": {"object": "list", "data": [PLAIN]}}, "c", {"all": [{"n": 1}, None]}),
        ),
        (
            updated({"object": "x", "all": [{"object": "card"}, CUSTOMER]}, "c", {"all": [{"email": "b"}, {"email": "c"}, {"email": "d"}]}),
            updated({"object": "x", "all": [{"object": "card"}, PLAIN]}, "c", {"all": [{"email": "b"}, {}, {}]}),
        ),
        (
            updated({"object": "x", "all": [CUSTOMER]}, "c", {"all": {"data": [CUSTOMER]}}),
            updated({"object": "x", "all": [PLAIN]}, "c", {"all": {"data": [PLAIN]}}),
        ),
        (event({"object": "charge", "email": "a@example.org"}, "c"), event({"object": "charge", "email": "a@example.org"}, "c")),
    ],
    ids=["top", "expanded", "in lists", "in a list object", "before", "before, in part", "before, by index", "before, of several types", "before, whole", "another's"],
)  # fmt: skip
def test_a_field_goes_from_every_object_of_its_type(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert redacted(given, "customer.email") == expected


@pytest.mark.parametrize("path", ["checkout.session.customer_email", "checkout_session.customer_email"])
@pytest.mark.parametrize("kind", [{"object": "checkout.session"}, {"object": "checkout_session"}, {"object": None}, {}])
def test_a_session_goes_by_stripes_name_and_ours(path: str, kind: dict[str, str]) -> None:
    given = updated({**kind, "customer_email": "a"}, "checkout.session.completed", {"customer_email": "b"})

    assert redacted(given, path) == updated(kind, "checkout.session.completed", {})


def test_an_object_that_does_not_say_what_it_is_has_the_type_that_its_event_gives_it() -> None:
    body = orjson.dumps(event({"id": "cus_1", "email": "a@example.org"}, "customer.deleted"))

    outcome = normalize(verified(body, endpoint()), redaction("customer.email"))

    assert isinstance(outcome, Event)
    assert outcome.object_type == "customer"
    assert b"example" not in bytes(outcome.raw)


def test_a_path_goes_through_lists_bare_or_as_objects() -> None:
    bare = event({"object": "invoice", "lines": [{"description": "a"}, [{"description": "b"}]]}, "i")
    whole = event({"object": "invoice", "lines": {"object": "list", "data": [{"description": "a"}], "url": "/"}}, "i")

    for path in ("invoice.lines.description", "*.lines.description"):
        assert redacted(bare, path)["data"]["object"]["lines"] == [{}, [{}]]
        assert redacted(whole, path)["data"]["object"]["lines"] == {"object": "list", "data": [{}], "url": "/"}
    assert redacted(whole, "invoice.lines.data.description")["data"]["object"]["lines"]["data"] == [{}]


@pytest.mark.parametrize("path", ["invoice.lines.description", "invoice.lines.data.description", "*.lines.description",
                                  "hash:invoice.lines.description", "line_item.description"])  # fmt: skip
@pytest.mark.parametrize(
    "lines",
    [
        [{"description": "PLANTED"}, [{"description": "PLANTED"}]],
        {"object": "list", "data": [{"description": "PLANTED"}]},
        {"object": None, "data": [{"description": "PLANTED"}]},
        {"object": "card", "data": [{"description": "PLANTED"}]},
        {"data": [{"description": "PLANTED"}]},
        {"data": {"data": [{"description": "PLANTED"}]}},
        {"subscriptions": [{"description": "PLANTED"}], "prorations": [], "invoiceitems": {"data": [{"description": "PLANTED"}]}},
    ],
    ids=["bare", "list", "null", "card", "data", "data in data", "by kind"],
)  # fmt: skip
def test_lines_have_no_shape_in_which_they_escape(path: str, lines: Any) -> None:
    given = updated({"object": "invoice", "lines": lines}, "i", {"lines": lines})
    whole = {"object": "event", "data": {"object": {"object": "charge", "invoice": {"lines": lines}}}}

    assert b"PLANTED" not in orjson.dumps(redacted(given, path))
    assert b"PLANTED" not in orjson.dumps(redacted(whole, path))


@pytest.mark.parametrize("path", ["customer.sources.data", "hash:customer.sources.data"])
@pytest.mark.parametrize(
    "sources",
    [["PLANTED", {"name": "PLANTED"}], {"data": [{"name": "PLANTED"}]}, {"object": "list", "data": ["PLANTED"]}],
)
def test_a_path_may_end_in_the_members_of_a_list(path: str, sources: Any) -> None:
    after = redacted(event({"object": "customer", "sources": sources}, "c"), path)

    assert b"PLANTED" not in orjson.dumps(after)
    assert "sources" in after["data"]["object"]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (event({"object": None, "email": "PLANTED"}, "customer.updated"), "customer.email"),
        (event({"email": "PLANTED"}, "customer"), "customer.email"),
        (event({"object": None, "cardholder": {"email": "PLANTED"}}, "issuing_card.created"), "issuing.cardholder.email"),
        (event({"cancel_comment": "PLANTED"}, "issuing_card.created"), "issuing.card.cancel_comment"),
        (event({"last4": "PLANTED"}, "customer.source.created"), "card.last4"),
        (updated({"object": "customer"}, "c", {"object": None, "email": "PLANTED"}), "customer.email"),
        (updated({"object": "customer"}, "c", {"object": "card", "email": "PLANTED"}), "customer.email"),
        (updated({"object": "customer"}, "c", {"object": "card", "name": "PLANTED"}), "card.name"),
        (updated({}, "customer.updated", {"object": "card", "email": "PLANTED"}), "customer.email"),
        (updated({"object": "charge", "customer": "cus_1"}, "c", {"customer": {"email": "PLANTED"}}), "customer.email"),
        (updated({"object": "customer"}, "c", {"sources": {"data": [{"name": "PLANTED"}]}}), "card.name"),
        (updated({"object": "customer"}, "c", {"sources": {"data": [{"owner": {"email": "PLANTED"}}]}}), "source.owner"),
        (updated({"object": "customer", "sources": {"data": [{"object": "bank_account"}]}}, "c",
                 {"sources": [{"name": "PLANTED"}]}), "card.name"),
        (event({"object": "charge", "customer": {"id": "cus_1", "email": "PLANTED"}}, "c"), "customer.email"),
        (event({"object": "charge", "customer": {"object": 5, "email": "PLANTED"}}, "c"), "customer.email"),
        (event({"object": "charge", "customer": {"object": "customer_of_2040", "email": "PLANTED"}}, "c"), "customer.email"),
        (event({"object": "x", "y": {"payment_intent": {"latest_charge": {"receipt_email": "PLANTED"}}}}, "c"), "charge.receipt_email"),
        (event({"object": "checkout_session", "customer_email": "PLANTED"}, "c"), "checkout.session.customer_email"),
        (event({"object": "x", "y": {"object": "checkout_session", "customer_email": "PLANTED"}}, "c"), "checkout_session.customer_email"),
        (updated({"object": "customer"}, "c", [{"email": "PLANTED"}]), "customer.email"),
        (updated({"object": "customer"}, "c", "PLANTED"), "customer.email"),
        ({**event({"object": "customer"}, "c"), "previous_attributes": {"email": "PLANTED"}}, "customer.email"),
        ({**event({"object": "customer"}, "c"), "previous_attributes": ["PLANTED"]}, "customer.email"),
        (event({}, "c", data={"object": {"object": "customer"}, "email": "PLANTED"}), "customer.email"),
        (event({}, "c", data={"object": {"object": "charge"}, "customer": {"email": "PLANTED"}}), "customer.email"),
        (event({}, "c", data={"object": {"object": "charge"}, "refunds": [{"description": "PLANTED"}]}), "refund.description"),
        (event({"object": "charge", "metadata": {"a.b": "PLANTED"}}, "c"), "*.metadata.a.b"),
    ],
)  # fmt: skip
def test_no_odd_shape_is_a_way_out(given: dict[str, Any], path: str) -> None:
    for written in (path, f"hash:{path}"):
        assert b"PLANTED" in orjson.dumps(given)
        assert b"PLANTED" not in orjson.dumps(redacted(given, written))


def test_what_is_known_by_its_field_alone_is_not_taken_for_something_else() -> None:
    discounted = event({"object": "discount", "source": {"coupon": "c1", "name": "n", "type": "coupon"}}, "c")
    known = event({"object": "charge", "customer": {"object": "account", "email": "a"}}, "c")
    nested = event({"object": "payment_method", "card": {"last4": "4242"}}, "c")

    assert redacted(discounted, "source.name", "card.name") == discounted
    assert redacted(known, "customer.email") == known
    assert redacted(nested, "card.last4") == nested


def test_an_object_that_says_nothing_is_what_its_event_is_about() -> None:
    ours = {event_type: type_of({}, event_type) for event_type in sorted(CATALOGUE)}
    stripes = {event_type: name.replace("checkout_session", "checkout.session") for event_type, name in ours.items()}
    known = {event_type: name for event_type, name in stripes.items() if name in OBJECT_TYPES}

    left = {
        event_type: name
        for event_type, name in known.items()
        if redacted(event({"x": 1, "y": 2}, event_type), f"{name}.x") != event({"y": 2}, event_type)
    }

    assert left == {}
    assert len(known) > 150


def test_any_object_is_any_that_json_knows() -> None:
    given = event({"object": "charge", "billing_details": {"email": "a", "name": "n"}, "email": "b", "list": [{"email": "c"}]}, "c")  # fmt: skip

    after = redacted(given, "*.email")

    assert after == event({"object": "charge", "billing_details": {"name": "n"}, "list": [{}]}, "c")


def test_the_envelope_is_an_object_too() -> None:
    given = event(CUSTOMER, "customer.created")
    thin = {"object": "v2.core.event", "data": {"email": "a"}, "id": "evt_1"}

    assert redacted(given, "event.request.idempotency_key") == event(CUSTOMER, "customer.created", request={"id": "req_1"})  # fmt: skip
    assert redacted(thin, "v2.core.event.data") == {"object": "v2.core.event", "id": "evt_1"}


def test_a_hash_is_the_same_for_the_same_value_and_keyed() -> None:
    given = updated(CUSTOMER, "customer.updated", {"email": "b@example.org"})

    after = redacted(given, "hash:customer.email")

    assert after["data"]["object"]["email"] == hashed("a@example.org")
    assert after["data"]["previous_attributes"]["email"] == hashed("b@example.org")
    other = Redaction.of(parse_paths(["hash:customer.email"]), RedactionKeys.of(b64encode(bytes(32)).decode()))
    assert other.apply(given)["data"]["object"]["email"] != after["data"]["object"]["email"]


def test_a_hash_keeps_the_shape_and_no_value() -> None:
    given = {"object": "charge", "billing_details": {"name": "Ada", "age": 7, "of_age": True, "none": None, "empty": "",
             "lines": ["a", 1, {"b": "c", "object": "x"}]}}  # fmt: skip

    after = redacted(event(given, "charge.succeeded"), "hash:charge.billing_details")["data"]["object"]

    assert after["billing_details"] == {
        "name": hashed("Ada"), "age": None, "of_age": None, "none": None, "empty": hashed(""),
        "lines": [hashed("a"), None, {"b": hashed("c"), "object": hashed("x")}],
    }  # fmt: skip


def test_what_is_dropped_is_dropped_whatever_else_is_hashed() -> None:
    given = event({"object": "charge", "billing_details": {"email": "a", "name": "n"}}, "c")

    for paths in (
        ["charge.billing_details.email", "hash:charge.billing_details"],
        ["hash:charge.billing_details", "hash:charge.billing_details.email", "charge.billing_details.email"],
        ["hash:charge.billing_details", "*.email"],
    ):
        assert redacted(given, *paths)["data"]["object"]["billing_details"] == {"name": hashed("n")}


def test_data_previous_and_raw_are_made_of_the_redacted_tree() -> None:
    subscription = {"id": "sub_1", "object": "subscription", "status": "active", "metadata": {"ssn": "S1", "plan": "p"}}
    before = {"status": "trialing", "metadata": {"ssn": "S0", "plan": "p"}}
    body = orjson.dumps(updated(subscription, "customer.subscription.updated", before), option=orjson.OPT_INDENT_2)

    outcome = normalize(verified(body, endpoint()), redaction("*.metadata.ssn", "hash:subscription.metadata.plan"))

    assert isinstance(outcome, Event)
    assert isinstance(outcome.data, Subscription)
    assert outcome.data.metadata == {"plan": hashed("p")}
    assert outcome.previous == {"status": "trialing"}
    assert orjson.loads(bytes(outcome.raw)) == redacted(orjson.loads(body), "*.metadata.ssn", "hash:subscription.metadata.plan")  # fmt: skip
    assert b"S1" not in bytes(outcome.raw)


def test_a_name_given_twice_in_the_json_hides_nothing() -> None:
    body = orjson.dumps(event(CUSTOMER, "customer.created"))
    body = body.replace(b'"email":', b'"email":"PLANTED","email":')

    outcome = normalize(verified(body, endpoint()), redaction("customer.name"))

    assert isinstance(outcome, Event)
    assert b"PLANTED" not in bytes(outcome.raw)


def test_without_redaction_the_received_bytes_pass_through() -> None:
    body = orjson.dumps(event(CUSTOMER, "customer.created"), option=orjson.OPT_INDENT_2)

    outcome = normalize(verified(body, endpoint()))

    assert isinstance(outcome, Event)
    assert bytes(outcome.raw) == body


def calls_for(tree: dict[str, Any], given: Redaction) -> int:
    """How many functions are called to redact a tree: a measure of the work that no busy machine disturbs."""
    calls = 0

    def count(_frame: object, kind: str, _argument: object) -> None:
        nonlocal calls
        calls += kind in {"call", "c_call"}

    sys.setprofile(count)
    try:
        given.apply(tree)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(("strings", "reason"), [(HASHES_MAX, None), (HASHES_MAX + 1, "too_many_containers")])
def test_the_hashes_of_one_event_are_bounded(strings: int, reason: str | None) -> None:
    tree = {"id": "cus_1", "object": "customer", "odd": [[""] * (strings - 1), {"a": "", "b": None, "c": 1}]}
    body = orjson.dumps(event(tree, "customer.updated"))

    outcome = normalize(verified(body, endpoint()), redaction("hash:customer.odd"))

    if reason is None:
        assert isinstance(outcome, Event)
        assert bytes(outcome.raw).count(b"hmac-sha256:") == strings
    else:
        assert isinstance(outcome, Unprocessable)
        assert (outcome.reason, outcome.detail, outcome.event_id) == (reason, "kafka.redact", "evt_1")
        assert outcome.body == body
    assert isinstance(normalize(verified(body, endpoint()), redaction("customer.odd")), Event)


def test_the_work_grows_with_the_size_of_the_event_and_no_faster() -> None:
    given = redaction("*.a.a.a.b", "*.a.b", "hash:customer.a.c", "customer.a.a.d", "list.url", "*.data2.a")

    def deep(levels: int) -> dict[str, Any]:
        tree: dict[str, Any] = {"b": "x"}
        for level in range(levels):
            tree = {"object": "customer", "a": tree} if level % 3 else {"object": "list", "data": [tree]}
        return {"object": "event", "x": tree}

    def wide(members: int) -> dict[str, Any]:
        return {"object": "event", "x": {"object": "list", "data": [{"object": "customer", "a": {"c": "v"}}] * members}}

    def untyped(levels: int) -> dict[str, Any]:
        tree: dict[str, Any] = {"b": "x"}
        for level in range(levels):
            tree = {"source" if level % 2 else "destination": tree, "object": f"unknown_{level}"}
        return {"object": "charge", "sources": [tree]}

    for make in (deep, wide, untyped):
        once, twice = calls_for(make(300), given), calls_for(make(600), given)
        assert once > 300
        assert twice <= 2.1 * once
