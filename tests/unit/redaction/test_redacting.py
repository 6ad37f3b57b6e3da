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
from service.normalize import normalize
from service.redaction import Redaction, RedactionKeys, parse_paths
from tests.unit.normalize.building import endpoint, event, updated, verified

SECRET = bytes(range(32))
KEYS = RedactionKeys.of(b64encode(SECRET).decode())


def redaction(*paths: str) -> Redaction:
    return Redaction.of(parse_paths(paths), KEYS)


def redacted(tree: dict[str, Any], *paths: str, top_type: str | None = None) -> dict[str, Any]:
    before = copy.deepcopy(tree)
    after = redaction(*paths).apply(tree, top_type)
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
@pytest.mark.parametrize(
    ("kind", "top_type"), [({"object": "checkout.session"}, "checkout_session"), ({}, "checkout_session")]
)
def test_a_session_goes_by_stripes_name_and_ours(path: str, kind: dict[str, str], top_type: str) -> None:
    given = updated({**kind, "customer_email": "a"}, "checkout.session.completed", {"customer_email": "b"})

    assert redacted(given, path, top_type=top_type) == updated(kind, "checkout.session.completed", {})


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
    assert other.apply(given, None)["data"]["object"]["email"] != after["data"]["object"]["email"]


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
        given.apply(tree, None)
    finally:
        sys.setprofile(None)
    return calls


def test_the_work_grows_with_the_size_of_the_event_and_no_faster() -> None:
    given = redaction("*.a.a.a.b", "*.a.b", "hash:customer.a.c", "customer.a.a.d", "list.url", "*.data2.a")

    def deep(levels: int) -> dict[str, Any]:
        tree: dict[str, Any] = {"b": "x"}
        for level in range(levels):
            tree = {"object": "customer", "a": tree} if level % 3 else {"object": "list", "data": [tree]}
        return {"object": "event", "x": tree}

    def wide(members: int) -> dict[str, Any]:
        return {"object": "event", "x": {"object": "list", "data": [{"object": "customer", "a": {"c": "v"}}] * members}}

    for make in (deep, wide):
        once, twice = calls_for(make(300), given), calls_for(make(600), given)
        assert once > 300
        assert twice <= 2.1 * once
