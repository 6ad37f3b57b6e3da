"""What the spine has the event log remember: every body of Stripe's that came, whatever became of it, and no other."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.adapters.memory_event_log import MemoryEventLog
from service.clock import SystemClock
from service.errors import (
    BrokerUnavailable,
    PublishOutcomeUnknown,
    PublishRefused,
    SignatureRefused,
    Unavailable,
)
from service.events import Arrival, Endpoint, IngestSource, Secret, TrustedEvent
from service.receiver.dedupe import Deduplicator
from service.receiver.ingest import Ingest, Ingested, Taken, ingest, retake, take
from service.signature import fingerprint
from service.telemetry.metrics import ReceiverMetrics
from service.telemetry.observers import DedupeMetricsObserver
from service.tracing import NO_TRACING
from tests.support.receiving import TOPICS, ScriptedPublisher
from tests.support.signing import NOW, SECRET, SIGNED_AT, signed_delivery

SHOP = Endpoint(name="shop", path="/webhooks/shop", secrets=(SECRET,), mode="live", account="acct_1")
CREATED = NOW - timedelta(seconds=2)


class ClockAtNow:
    """The moment that deliveries are signed at."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class Spine:
    """The spine with a log in memory."""

    def __init__(self) -> None:
        self.publisher = ScriptedPublisher()
        self.log = MemoryEventLog()
        self.deps = Ingest(
            publisher=self.publisher,
            deduplicator=Deduplicator(
                MemoryDedupeStore(SystemClock(), max_entries=100),
                DedupeMetricsObserver(ReceiverMetrics(CollectorRegistry())),
                timeout_seconds=2,
            ),
            clock=ClockAtNow(),
            topics=TOPICS,
            include_raw=True,
            tolerance_seconds=300,
            event_log=self.log,
        )

    async def deliver(self, body: bytes, *, seconds: float = 2.0, **signing: Any) -> Ingested:
        deadline = asyncio.get_running_loop().time() + seconds
        delivery = signed_delivery(body, to=SHOP, **signing)
        return await ingest(delivery, self.deps, deadline=deadline, span=NO_TRACING.root("test"))

    async def take(self, body: bytes, source: IngestSource) -> Taken:
        known = TrustedEvent(SHOP, body, NOW - timedelta(days=3))
        return await take(known, source, self.deps, deadline=asyncio.get_running_loop().time() + 2)

    @property
    def only(self) -> Arrival:
        (arrival,) = self.log.arrivals
        return arrival

    @property
    def outcomes(self) -> list[str]:
        return [arrival.outcome for arrival in self.log.arrivals]


@pytest.fixture
async def spine() -> AsyncIterator[Spine]:
    made = Spine()
    yield made
    await made.deps.deduplicator.close(timeout_seconds=1)


def body(event_id: str | None = "evt_1", /, *, type_: str = "payment_intent.succeeded", **changes: Any) -> bytes:
    event = {
        "id": event_id,
        "object": "event",
        "type": type_,
        "api_version": "2026-10-28.endive",
        "created": int(CREATED.timestamp()),
        "livemode": True,
        "data": {
            "object": {
                "id": "pi_1",
                "object": "payment_intent",
                "customer": "cus_1",
                "description": "Jenny Rosen's order",
                "receipt_email": "jenny@example.com",
            }
        },
    } | changes
    return orjson.dumps(event)


async def test_an_accepted_delivery_is_noted_with_all_that_is_known_of_it(spine: Spine) -> None:
    ingested = await spine.deliver(body())

    assert spine.only == Arrival(
        received_at=NOW,
        ingest_source="webhook",
        endpoint="shop",
        outcome="accepted",
        event_id="evt_1",
        event_type="payment_intent.succeeded",
        account="acct_1",
        livemode=True,
        object_type="payment_intent",
        object_id="pi_1",
        customer_id="cus_1",
        created_at=CREATED,
        api_version="2026-10-28.endive",
        signed_at=datetime.fromtimestamp(SIGNED_AT, UTC),
        secret=fingerprint(SECRET),
        topic="stripe.payments",
        partition=0,
        record_offset=0,
        dedupe="checked",
        reason=None,
        trace_id=ingested.trace_id,
    )


async def test_the_record_its_log_row_and_the_answer_have_one_trace(spine: Spine) -> None:
    ingested = await spine.deliver(body())

    (record,) = spine.publisher.records
    version, trace_id, span_id, flags = dict(record.headers)["traceparent"].decode().split("-")
    assert (version, trace_id, flags) == ("00", ingested.trace_id, "01")
    assert len(span_id) == 16
    assert spine.only.trace_id == ingested.trace_id


async def test_a_duplicate_is_an_arrival_of_its_own_with_its_own_trace(spine: Spine) -> None:
    await spine.deliver(body())
    again = await spine.deliver(body(), signed_at=SIGNED_AT + 60)

    first, second = spine.log.arrivals
    assert spine.outcomes == ["accepted", "duplicate"]
    assert second.event_id == first.event_id
    assert second.signed_at == datetime.fromtimestamp(SIGNED_AT + 60, UTC)
    assert (second.topic, second.partition, second.record_offset, second.dedupe) == (None, None, None, None)
    assert second.trace_id == again.trace_id != first.trace_id


async def test_deliveries_of_one_event_that_come_at_once_are_noted_each(spine: Spine) -> None:
    await asyncio.gather(*(spine.deliver(body()) for _ in range(3)))

    assert sorted(spine.outcomes) == ["accepted", "duplicate", "duplicate"]


@pytest.mark.parametrize(
    ("payload", "reason", "event_id", "event_type"),
    [
        (b"{", "malformed_json", None, None),
        (body(None), "event_id_missing", None, "payment_intent.succeeded"),
        (body("Jenny Rosen"), "event_id_malformed", None, "payment_intent.succeeded"),
        (body(livemode=False), "mode_mismatch", "evt_1", "payment_intent.succeeded"),
        (body(type_="jenny@example.com"), "event_type_malformed", "evt_1", None),
        (body(api_version="x\ny"), "api_version_malformed", "evt_1", "payment_intent.succeeded"),
    ],
)
async def test_a_quarantined_body_is_known_by_what_is_well_formed_in_it(
    spine: Spine, payload: bytes, reason: str, event_id: str | None, event_type: str | None
) -> None:
    await spine.deliver(payload)
    await spine.deliver(payload)

    first, again = spine.log.arrivals
    assert (first.outcome, first.reason, first.event_id, first.event_type) == (
        "quarantined",
        reason,
        event_id,
        event_type,
    )
    assert (first.topic, first.partition, first.record_offset, first.dedupe) == ("stripe.quarantine", 0, 0, "checked")
    assert (first.account, first.object_id, first.customer_id, first.created_at) == (None, None, None, None)
    assert (again.outcome, again.reason, again.topic) == ("quarantined", reason, None)


async def test_an_event_too_large_for_its_topic_is_noted_once_as_what_became_of_it(spine: Spine) -> None:
    spine.publisher.limit_bytes = 100

    await spine.deliver(body())

    assert (spine.only.outcome, spine.only.reason) == ("quarantined", "record_too_large")
    assert (spine.only.event_id, spine.only.object_id, spine.only.topic) == ("evt_1", "pi_1", "stripe.quarantine")


@pytest.mark.parametrize(
    ("failure", "tag"),
    [
        (BrokerUnavailable("away"), "broker_unavailable"),
        (PublishOutcomeUnknown("no answer"), "broker_unavailable"),
        (PublishRefused("no"), "publish_refused"),
        (ValueError("jenny@example.com"), "internal_error"),
    ],
)
async def test_a_verified_delivery_that_nothing_took_is_noted_by_why(
    spine: Spine, failure: Exception, tag: str
) -> None:
    spine.publisher.failures = [failure]

    with pytest.raises(type(failure)):
        await spine.deliver(body())

    assert (spine.only.outcome, spine.only.event_id, spine.only.object_id) == (tag, "evt_1", "pi_1")
    assert (spine.only.topic, spine.only.record_offset) == (None, None)


async def test_a_body_that_even_quarantine_did_not_take_says_what_it_was_to_be_there_for(spine: Spine) -> None:
    spine.publisher.failures = [BrokerUnavailable("away")]

    with pytest.raises(BrokerUnavailable):
        await spine.deliver(b"{")

    assert (spine.only.outcome, spine.only.reason) == ("broker_unavailable", "malformed_json")


async def test_a_delivery_that_is_late_is_noted_when_it_is_answered(spine: Spine) -> None:
    spine.publisher.gate = asyncio.Event()

    with pytest.raises(Unavailable):
        await spine.deliver(body(), seconds=0.05)
    assert spine.outcomes == ["broker_unavailable"]
    spine.publisher.gate.set()
    await spine.deliver(body())

    assert spine.outcomes == ["broker_unavailable", "duplicate"]


async def test_a_delivery_that_is_cut_off_at_the_end_is_noted(spine: Spine) -> None:
    spine.publisher.gate = asyncio.Event()
    delivering = asyncio.create_task(spine.deliver(body()))
    await spine.publisher.started.wait()

    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering

    assert spine.outcomes == ["shutting_down"]


@pytest.mark.parametrize(
    "signing",
    [{"secret": Secret("whsec_not_this_one")}, {"signed_at": SIGNED_AT - 3600}, {"signed_at": SIGNED_AT + 3600}],
    ids=["another secret", "a replay", "from the future"],
)
async def test_nothing_is_noted_of_what_is_not_shown_to_be_stripes(spine: Spine, signing: dict[str, Any]) -> None:
    with pytest.raises(SignatureRefused):
        await spine.deliver(body(), **signing)

    assert spine.log.arrivals == []


@pytest.mark.parametrize("source", ["reconcile", "backfill", "replay"])
async def test_what_was_recovered_is_noted_as_such_and_as_of_now(spine: Spine, source: IngestSource) -> None:
    await spine.take(body(), source)

    assert (spine.only.outcome, spine.only.ingest_source, spine.only.received_at) == ("accepted", source, NOW)
    assert (spine.only.signed_at, spine.only.secret) == (None, None)


async def test_a_replayed_body_that_is_unfit_still_is_noted_as_still_quarantined(spine: Spine) -> None:
    known = TrustedEvent(SHOP, b"{", NOW)

    await retake(known, "replay", spine.deps, deadline=asyncio.get_running_loop().time() + 2)

    assert (spine.only.outcome, spine.only.ingest_source, spine.only.reason, spine.only.topic) == (
        "quarantined",
        "replay",
        "malformed_json",
        None,
    )
    assert spine.publisher.records == []


@pytest.mark.parametrize(
    ("given", "customer_id"),
    [
        ({"id": "cus_7", "object": "customer", "email": "jenny@example.com"}, "cus_7"),
        ({"id": "pi_1", "object": "payment_intent", "customer": {"id": "cus_8", "object": "customer"}}, "cus_8"),
        ({"id": "prod_1", "object": "product"}, None),
        ({"id": "cbtxn_1", "object": "customer_balance_transaction", "customer": "cus_9"}, "cus_9"),
    ],
)
async def test_the_customer_is_the_one_that_the_object_names(
    spine: Spine, given: dict[str, Any], customer_id: str | None
) -> None:
    await spine.deliver(body(type_=f"{given['object']}.updated", data={"object": given}))

    assert (spine.only.customer_id, spine.only.object_id) == (customer_id, given["id"])


async def test_nothing_personal_is_in_a_row_whatever_becomes_of_a_body(spine: Spine) -> None:
    await spine.deliver(body())
    await spine.deliver(body("evt_2", livemode="jenny@example.com"))
    await spine.deliver(b'{"jenny@example.com": ')
    spine.publisher.failures = [BrokerUnavailable("jenny@example.com")]
    with pytest.raises(BrokerUnavailable):
        await spine.deliver(body("evt_3"))

    assert spine.outcomes == ["accepted", "quarantined", "quarantined", "broker_unavailable"]
    assert "jenny" not in repr(spine.log.arrivals).lower()


async def test_without_a_log_everything_goes_its_way(spine: Spine) -> None:
    spine.deps = replace(spine.deps, event_log=None)

    assert (await spine.deliver(body())).outcome.tag == "accepted"
