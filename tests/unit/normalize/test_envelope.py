"""The envelope: what makes a signed body an event, and what is read of it besides its object."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
import pytest

from service.contract import Event, Other
from service.events import Endpoint, Mode, QuarantineReason, Unprocessable
from service.normalize import normalize
from tests.unit.normalize.building import at, endpoint, event, headers, normalized, published, refused, verified

CHARGE = {"id": "ch_1", "object": "charge"}
CREATED = event(CHARGE, "charge.succeeded")
THIN: dict[str, Any] = {
    "id": "evt_test_65",
    "object": "v2.core.event",
    "type": "v1.payment_intent.succeeded",
    "livemode": False,
    "created": "2026-10-28T12:00:00.123Z",
    "context": None,
    "reason": {"type": "request", "request": {"id": "req_v2", "idempotency_key": "idem"}},
    "related_object": {"id": "pi_1", "type": "payment_intent", "url": "/v1/payment_intents/pi_1"},
}
LONGEST_ID = "evt_" + "a" * 255


def without(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key != name}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"id": "evt_1"',
        b"\xff\xfe",
        b'\xef\xbb\xbf{"id":"evt_1"}',
        b'{"a": NaN}',
        b'{"id": "evt_\\ud800"}',
        b"[" * 5000 + b"]" * 5000,
    ],
)
def test_bytes_that_are_not_json_are_kept_as_malformed(body: bytes) -> None:
    outcome = normalize(verified(body))

    assert isinstance(outcome, Unprocessable)
    assert (outcome.reason, outcome.detail, outcome.event_id) == (QuarantineReason.MALFORMED_JSON, "body", None)
    assert outcome.body == body


@pytest.mark.parametrize("tree", [None, 1, "event", [], [CREATED], {}, {**CREATED, "object": "charge"},
                                  {**CREATED, "object": ["event"]}, without(CREATED, "object")])  # fmt: skip
def test_json_that_is_not_an_event_is_refused(tree: object) -> None:
    outcome = refused(tree)

    assert (outcome.reason, outcome.detail, outcome.event_id) == (QuarantineReason.NOT_AN_EVENT, "object", None)


@pytest.mark.parametrize(
    ("changed", "reason", "detail"),
    [
        ({"id": None}, QuarantineReason.EVENT_ID_MISSING, "id"),
        ({"id": ""}, QuarantineReason.EVENT_ID_MALFORMED, "id"),
        ({"id": 7}, QuarantineReason.EVENT_ID_MALFORMED, "id"),
        ({"id": "pi_1"}, QuarantineReason.EVENT_ID_MALFORMED, "id"),
        ({"id": "evt_"}, QuarantineReason.EVENT_ID_MALFORMED, "id"),
        ({"id": "evt_1\n"}, QuarantineReason.EVENT_ID_MALFORMED, "id"),
        ({"id": "evt_ä"}, QuarantineReason.EVENT_ID_MALFORMED, "id"),
        ({"id": LONGEST_ID + "a"}, QuarantineReason.EVENT_ID_MALFORMED, "id"),
        ({"type": None}, QuarantineReason.EVENT_TYPE_MALFORMED, "type"),
        ({"type": ""}, QuarantineReason.EVENT_TYPE_MALFORMED, "type"),
        ({"type": "charge succeeded"}, QuarantineReason.EVENT_TYPE_MALFORMED, "type"),
        ({"type": "charge.succeeded\n"}, QuarantineReason.EVENT_TYPE_MALFORMED, "type"),
        ({"type": "a" * 101}, QuarantineReason.EVENT_TYPE_MALFORMED, "type"),
        ({"type": 1}, QuarantineReason.EVENT_TYPE_MALFORMED, "type"),
        ({"created": None}, QuarantineReason.CREATED_MALFORMED, "created"),
        ({"created": True}, QuarantineReason.CREATED_MALFORMED, "created"),
        ({"created": -1}, QuarantineReason.CREATED_MALFORMED, "created"),
        ({"created": 1.5}, QuarantineReason.CREATED_MALFORMED, "created"),
        ({"created": 253_402_300_800}, QuarantineReason.CREATED_MALFORMED, "created"),
        ({"created": 2**64 - 1}, QuarantineReason.CREATED_MALFORMED, "created"),
        ({"created": "2026-10-28T12:00:00Z"}, QuarantineReason.CREATED_MALFORMED, "created"),
        ({"livemode": None}, QuarantineReason.LIVEMODE_MALFORMED, "livemode"),
        ({"livemode": 0}, QuarantineReason.LIVEMODE_MALFORMED, "livemode"),
        ({"livemode": "false"}, QuarantineReason.LIVEMODE_MALFORMED, "livemode"),
        ({"account": 5}, QuarantineReason.ACCOUNT_MALFORMED, "account"),
        ({"account": ""}, QuarantineReason.ACCOUNT_MALFORMED, "account"),
        ({"account": "acct_1/live"}, QuarantineReason.ACCOUNT_MALFORMED, "account"),
        ({"data": None}, QuarantineReason.OBJECT_MISSING, "data.object"),
        ({"data": []}, QuarantineReason.OBJECT_MISSING, "data.object"),
        ({"data": {}}, QuarantineReason.OBJECT_MISSING, "data.object"),
        ({"data": {"object": None}}, QuarantineReason.OBJECT_MISSING, "data.object"),
        ({"data": {"object": "ch_1"}}, QuarantineReason.OBJECT_MISSING, "data.object"),
        ({"data": {"object": {"object": "charge"}}}, QuarantineReason.OBJECT_MALFORMED, "data.object.id"),
        ({"data": {"object": {**CHARGE, "id": 1}}}, QuarantineReason.OBJECT_MALFORMED, "data.object.id"),
        ({"data": {"object": {**CHARGE, "object": 1}}}, QuarantineReason.OBJECT_MALFORMED, "data.object.object"),
    ],
)  # fmt: skip
def test_an_envelope_that_cannot_be_read_says_which_field(
    changed: dict[str, Any], reason: QuarantineReason, detail: str
) -> None:
    outcome = refused({**CREATED, **changed})

    assert (outcome.reason, outcome.detail) == (reason, detail)
    assert outcome.event_id == (None if "id" in changed else "evt_1")
    assert outcome.endpoint.name == "shop"
    assert orjson.loads(outcome.body) == {**CREATED, **changed}


@pytest.mark.parametrize("name", ["id", "type", "created", "livemode", "data"])
def test_an_envelope_without_a_field_it_needs_is_refused(name: str) -> None:
    assert refused(without(CREATED, name)).detail in {name, "data.object"}


def test_the_envelope_is_read() -> None:
    body = orjson.dumps(CREATED, option=orjson.OPT_INDENT_2)

    found = normalize(verified(body))

    assert isinstance(found, Event)
    assert found.category == "payment"
    assert found.event_id == "evt_1"
    assert found.event_type == "charge.succeeded"
    assert found.account == "default"
    assert found.livemode is False
    assert found.endpoint == "shop"
    assert found.created_at == at(1_700_000_000)
    assert found.received_at == datetime(2026, 11, 20, 10, 0, 1, 123_000, UTC)
    assert found.api_version == "2020-08-27"
    assert (found.object_type, found.object_id) == ("charge", "ch_1")
    assert found.previous is None
    assert bytes(found.raw) == body


def test_the_longest_event_id_is_taken() -> None:
    assert normalized({**CREATED, "id": LONGEST_ID}).event_id == LONGEST_ID


@pytest.mark.parametrize(
    ("request_field", "expected"),
    [
        ({"request": {"id": "req_1", "idempotency_key": "key-1"}}, ("req_1", "key-1")),
        ({"request": {"id": None, "idempotency_key": None}}, (None, None)),
        ({"request": {}}, (None, None)),
        ({"request": "iar_1"}, ("iar_1", None)),
        ({"request": None}, (None, None)),
        ({"request": 7}, (None, None)),
    ],
)
def test_the_request_is_an_object_or_a_plain_id_or_nothing(
    request_field: dict[str, Any], expected: tuple[str | None, str | None]
) -> None:
    found = normalized({**CREATED, **request_field})

    assert (found.request_id, found.idempotency_key) == expected


def test_an_event_without_request_and_api_version_has_neither() -> None:
    found = normalized(without(without(CREATED, "request"), "api_version"))

    assert (found.request_id, found.idempotency_key, found.api_version) == (None, None, None)


@pytest.mark.parametrize(
    ("mode", "livemode", "taken"),
    [
        ("live", True, True),
        ("live", False, False),
        ("test", False, True),
        ("test", True, False),
        ("any", True, True),
        ("any", False, True),
    ],
)
@pytest.mark.parametrize("tree", [CREATED, THIN], ids=["snapshot", "thin"])
def test_an_endpoint_takes_events_of_its_mode_only(
    tree: dict[str, Any], mode: Mode, livemode: bool, taken: bool
) -> None:
    outcome = normalize(verified(orjson.dumps({**tree, "livemode": livemode}), endpoint(mode=mode)))

    if taken:
        assert isinstance(outcome, Event)
        assert outcome.livemode is livemode
    else:
        assert isinstance(outcome, Unprocessable)
        assert (outcome.reason, outcome.detail) == (QuarantineReason.MODE_MISMATCH, "livemode")
        assert outcome.event_id == tree["id"]


def test_a_thin_type_may_name_a_part_of_its_object() -> None:
    found = normalized({**THIN, "type": "v2.core.account[requirements].updated"})

    assert (found.category, found.event_type) == ("other", "v2.core.account[requirements].updated")


@pytest.mark.parametrize(("mode", "livemode"), [("live", True), ("test", False)])
def test_where_an_event_does_not_say_its_mode_the_endpoint_of_one_mode_does(mode: Mode, livemode: bool) -> None:
    found = normalized(without(CREATED, "livemode"), endpoint(mode=mode))

    assert found.livemode is livemode


@pytest.mark.parametrize(
    ("to", "fields", "account"),
    [
        (endpoint(), {}, "default"),
        (endpoint(), {"account": None}, "default"),
        (endpoint(), {"account": "acct_2"}, "acct_2"),
        (endpoint(account="acct_1"), {}, "acct_1"),
        (endpoint(account="acct_1"), {"account": "acct_1"}, "acct_1"),
        (endpoint(account="acct_1", connect=True), {"account": "acct_2"}, "acct_2"),
        (endpoint(account="acct_1", connect=True), {}, "acct_1"),
        (endpoint(), {"context": "acct_3"}, "acct_3"),
        (endpoint(), {"context": "org_1/acct_3"}, "acct_3"),
        (endpoint(), {"context": "ctx_3"}, "default"),
        (endpoint(), {"context": "acct_3\n"}, "default"),
        (endpoint(), {"context": {"account": "acct_3"}}, "default"),
        (endpoint(), {"context": "acct_3", "account": "acct_2"}, "acct_2"),
    ],
)
@pytest.mark.parametrize("tree", [CREATED, THIN], ids=["snapshot", "thin"])
def test_the_account_is_the_events_else_the_endpoints_else_default(
    tree: dict[str, Any], to: Endpoint, fields: dict[str, Any], account: str
) -> None:
    assert normalized({**tree, **fields}, to).account == account


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ("org_1/acct_3", "org_1/acct_3"),
        ("acct_3", "acct_3"),
        (None, None),
        ("", None),
        ("org_1/", None),
        ("/acct_3", None),
        ("org_1\r\n/acct_3", None),
        ("a" * 1024, "a" * 1024),
        ("a" * 1025, None),
        (7, None),
    ],
)
@pytest.mark.parametrize("tree", [CREATED, THIN], ids=["snapshot", "thin"])
def test_the_context_is_carried_where_it_can_be_one(tree: dict[str, Any], context: object, told: str | None) -> None:
    event = normalized({**tree, "context": context, "account": "acct_3"})

    assert event.context == told
    assert headers(published(event)).get("stripe_context") == told


@pytest.mark.parametrize("tree", [CREATED, THIN], ids=["snapshot", "thin"])
@pytest.mark.parametrize("fields", [{"account": "acct_2"}, {"context": "acct_2"}])
def test_an_endpoint_refuses_the_events_of_another_account(tree: dict[str, Any], fields: dict[str, Any]) -> None:
    outcome = refused({**tree, **fields}, endpoint(account="acct_1"))

    assert (outcome.reason, outcome.detail) == (QuarantineReason.ACCOUNT_MISMATCH, "account")


def test_an_unknown_event_type_goes_to_other_with_its_object() -> None:
    found = normalized(event({"id": "wid_1", "object": "widget", "customer": "cus_1"}, "widget.polished"))

    assert (found.category, found.object_type, found.object_id) == ("other", "widget", "wid_1")
    assert found.data == Other(customer_id="cus_1")


def test_a_thin_event_is_kept_with_the_object_it_names() -> None:
    found = normalized(THIN)

    assert (found.category, found.event_type) == ("other", "v1.payment_intent.succeeded")
    assert (found.object_type, found.object_id) == ("payment_intent", "pi_1")
    assert found.data == Other()
    assert found.created_at == datetime(2026, 10, 28, 12, 0, 0, 123_000, UTC)
    assert (found.api_version, found.previous) == (None, None)
    assert (found.request_id, found.idempotency_key) == ("req_v2", "idem")
    assert msgspec.json.decode(found.raw) == THIN


@pytest.mark.parametrize("related", [{}, {"related_object": None}])
def test_a_thin_event_without_a_related_object_is_about_itself(related: dict[str, Any]) -> None:
    found = normalized({**without(THIN, "related_object"), "reason": None, **related})

    assert (found.object_type, found.object_id) == ("v2.core.event", None)
    assert (found.request_id, found.idempotency_key) == (None, None)


def test_a_thin_event_names_a_session_as_a_snapshot_does() -> None:
    related = {"id": "cs_1", "type": "checkout.session", "url": "/v1/checkout/sessions/cs_1"}

    assert normalized({**THIN, "related_object": related}).object_type == "checkout_session"


@pytest.mark.parametrize(
    ("related", "detail"),
    [
        ("pi_1", "related_object.type"),
        ([], "related_object.type"),
        ({"id": 1, "type": "payment_intent"}, "related_object.id"),
    ],
)
def test_a_thin_event_whose_related_object_cannot_be_read_is_refused(related: object, detail: str) -> None:
    outcome = refused({**THIN, "related_object": related})

    assert (outcome.reason, outcome.detail) == (QuarantineReason.OBJECT_MALFORMED, detail)


@pytest.mark.parametrize(
    "created",
    [None, 1_700_000_000, "", "yesterday", "2026-10-28T12:00:00", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:00",
     "9999-12-31T23:59:59-23:00"],
)  # fmt: skip
def test_a_thin_event_whose_time_is_not_iso_8601_is_refused(created: object) -> None:
    outcome = refused({**THIN, "created": created})

    assert (outcome.reason, outcome.detail) == (QuarantineReason.CREATED_MALFORMED, "created")


def test_a_thin_events_time_is_brought_to_utc_in_milliseconds() -> None:
    found = normalized({**THIN, "created": "2026-10-28T14:00:00.123456+02:00"})

    assert found.created_at == datetime(2026, 10, 28, 12, 0, 0, 123_000, UTC)


def test_a_refusal_never_shows_a_value() -> None:
    secret = "tok-value-nobody-may-see"
    bodies = [
        {**CREATED, "id": secret},
        {**CREATED, "created": secret},
        {**CREATED, "data": {"object": {**CHARGE, "amount": secret}}},
        {**CREATED, "data": {"object": CHARGE, "previous_attributes": {"amount": secret}}},
    ]

    shown = [repr(refused(body)) for body in bodies] + [repr(normalize(verified(f'{{"{secret}'.encode())))]

    assert not any(secret in text for text in shown)


@pytest.mark.parametrize(("containers", "reason"), [(50_000, None), (100_000, "too_many_containers")])
def test_a_body_may_hold_only_so_many_containers(containers: int, reason: str | None) -> None:
    body = orjson.dumps(event({"id": "x_1", "object": "review", "parts": [{}] * containers}, "review.opened"))
    outcome = normalize(verified(body))

    assert (outcome.reason if isinstance(outcome, Unprocessable) else None) == reason


@pytest.mark.parametrize("stated", [None, ""])
def test_an_api_version_that_says_nothing_is_none(stated: str | None) -> None:
    assert (
        normalized({**event({"id": "x_1", "object": "review"}, "review.opened"), "api_version": stated}).api_version
        is None
    )


def test_an_api_version_may_have_suffixes_but_must_fit_a_header() -> None:
    tree = event({"id": "x_1", "object": "review"}, "review.opened")
    beta = "2023-10-16; risk_in_requirements_beta=v1"

    assert normalized({**tree, "api_version": beta}).api_version == beta
    for impossible in ("2023\n10", "2023-10-16é", "x" * 501, 20231016):
        assert refused({**tree, "api_version": impossible}).reason is QuarantineReason.API_VERSION_MALFORMED


def test_a_connected_account_was_called_user_id_once() -> None:
    tree = event({"id": "x_1", "object": "review"}, "review.opened")

    assert normalized({**tree, "user_id": "acct_7"}).account == "acct_7"
    assert normalized({**tree, "user_id": "acct_7", "account": "acct_8"}).account == "acct_8"
