"""Thin events of every type: accepted as they are, on the one topic, about the object they name."""

from typing import Any

import orjson
import pytest

from service.contract import Event, Other
from service.normalize import normalize
from service.normalize.event_types import CATALOGUE, PING, THIN_TYPES
from service.routing import object_of
from tests.support.corpus import CORPUS, NO_CORPUS, payloads
from tests.unit.normalize.building import endpoint, headers, normalized, published, verified


def related_type(event_type: str) -> str:
    return object_of(event_type).partition(" or ")[0]


def thin(event_type: str = "v1.charge.refunded", **fields: Any) -> dict[str, Any]:
    """A thin event as Stripe pushes it; `fields` replaces what it says."""
    return {
        "id": "evt_thin",
        "object": "v2.core.event",
        "type": event_type,
        "livemode": False,
        "created": "2026-10-28T12:00:01.123Z",
        "context": None,
        "reason": {"type": "request", "request": {"id": "req_v2", "idempotency_key": "idem"}},
        "related_object": {"id": "obj_1", "type": related_type(event_type), "url": "/v1/objects/obj_1"},
        **fields,
    }


def test_every_thin_type_is_published_as_it_is_about_the_object_it_names() -> None:
    for event_type in THIN_TYPES:
        tree = thin(event_type)
        event = normalized(tree)
        record = published(event)

        assert (record.topic, record.key) == ("stripe.other", b"obj_1"), event_type
        assert headers(record)["ce_subject"] == "obj_1", event_type
        assert headers(record)["ce_type"] == f"com.stripe.{event_type}", event_type
        assert (event.category, event.data) == ("other", Other()), event_type
        assert (event.object_type, event.object_id) == (related_type(event_type), "obj_1"), event_type
        assert orjson.loads(record.value)["raw"] == tree, event_type


def test_a_thin_event_that_names_no_object_is_keyed_by_its_account() -> None:
    for event_type in THIN_TYPES:
        for related in ({"related_object": None}, {}):
            tree = thin(event_type, context="org_1/acct_7", reason=None)
            del tree["related_object"]
            event = normalized({**tree, **related})
            record = published(event)

            assert (record.topic, record.key) == ("stripe.other", b"acct_7"), event_type
            assert "ce_subject" not in headers(record), event_type
            assert headers(record)["ce_source"] == "/stripe/acct_7/test", event_type
            assert (event.object_type, event.object_id) == ("v2.core.event", None), event_type
            assert (event.request_id, event.idempotency_key) == (None, None), event_type


def test_the_composed_thin_events_of_the_corpus_are_published() -> None:
    if not CORPUS.is_dir():
        pytest.skip(NO_CORPUS)
    seen = 0
    for payload in payloads():
        tree = payload.event
        if not payload.name.startswith("stripe+thin-composed/"):
            continue
        event = normalize(verified(orjson.dumps(tree), endpoint()))
        assert isinstance(event, Event), payload.name
        record = published(event)
        related = tree.get("related_object") or {}
        account = (tree.get("context") or "default").rpartition("/")[2]
        assert record.topic == "stripe.other", payload.name
        assert record.key.decode() == related.get("id", account), payload.name
        assert headers(record).get("ce_subject") == related.get("id"), payload.name
        assert event.account == account, payload.name
        assert event.event_type in CATALOGUE, payload.name
        seen += 1

    assert seen >= 12


@pytest.mark.parametrize("twin", ["evt_1", "evt_test_65composed001", "evt_" + "a" * 255])
def test_the_snapshot_event_that_the_body_names_is_a_field_and_a_header(twin: str) -> None:
    event = normalized(thin(snapshot_event=twin))

    assert event.snapshot_event == twin
    assert headers(published(event))["snapshot_event"] == twin


@pytest.mark.parametrize(
    "twin",
    [None, "", 7, [], {"id": "evt_1"}, "pi_1", "evt_", "evt_1\n", "evt_1 ", "x evt_1", "evt_é", "evt_" + "a" * 256],
)  # fmt: skip
def test_what_cannot_be_the_id_of_an_event_is_no_twin_and_no_reason_to_refuse(twin: object) -> None:
    event = normalized(thin(snapshot_event=twin))

    assert event.snapshot_event is None
    assert "snapshot_event" not in headers(published(event))


def test_a_snapshot_event_names_no_twin() -> None:
    tree = {
        "id": "evt_1",
        "object": "event",
        "type": "charge.refunded",
        "created": 1_700_000_000,
        "livemode": False,
        "data": {"object": {"id": "ch_1", "object": "charge"}},
        "snapshot_event": "evt_2",
    }

    assert normalized(tree).snapshot_event is None


def test_fields_that_are_new_change_nothing() -> None:
    extra: dict[str, Any] = {
        "data": {"anything": [1]},
        "changes": None,
        "api_version": "2027-01-01.next",
        "related": "?",
    }

    event, plain = normalized(thin(**extra)), normalized(thin())

    assert {name: getattr(event, name) for name in event.__struct_fields__ if name != "raw"} == {
        name: getattr(plain, name) for name in plain.__struct_fields__ if name != "raw"
    }


def test_a_ping_is_an_event_like_any_other() -> None:
    related = {"id": "ed_test_1", "type": "v2.core.event_destination", "url": "/v2/core/event_destinations/ed_test_1"}

    record = published(normalized(thin(PING, related_object=related, reason=None)))

    assert (record.topic, record.key) == ("stripe.other", b"ed_test_1")
