"""What is redacted is nowhere: values planted in every redacted place, and then looked for in all that the service keeps.

Without redaction the same search finds them in the topics and the tables, so it would find them with it.
"""

import asyncio
import copy
import io
import logging
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec
import orjson
import pytest
import structlog

from service.bootstrap.consumer import run_consumer
from service.bootstrap.receiver import receiver
from service.bootstrap.recovery import keep_reconciled
from service.commands.topics import read_newest
from service.config import AdminConfig, Config
from service.events import ConsumedRecord, Partition, Secret
from service.local.arrivals import until_caught_up
from service.local.kafka import LocalKafka
from service.local.ports import free_port
from service.projections import PROJECTIONS
from service.records import quarantined_body
from service.redaction import CannotUnseal, RedactionKeys, Sealing
from service.signature import sign
from service.simulator.shop import STORY_SPAN, shop
from service.telemetry.logging import configure
from tests.support.deployment import TEST_SECRET, Deployment, deployment
from tests.unit.redaction.old_shapes import OLD_SHAPES

pytestmark = pytest.mark.timeout(300)

MARK: Final = "LeakedValue"
KEY: Final = b64encode(bytes(range(32))).decode()
START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC) - STORY_SPAN

PLANTED_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "customer": ("email", "name", "phone", "address.line1", "description", "tax_info.tax_id"),
    "charge": ("billing_details.email", "billing_details.address.line1", "receipt_email", "description", "failure_message",
               "payment_method_details.card.fingerprint", "payment_method_details.card.last4"),
    "payment_intent": ("description", "receipt_email", "shipping.name", "last_payment_error.message"),
    "payment_method": ("billing_details.phone",),
    "source": ("owner.email", "card.last4"),
    "refund": ("description", "destination_details.reference"),
    "dispute": ("evidence.customer_name",),
    "checkout.session": ("customer_email", "customer_details.email", "client_reference_id"),
    "subscription": ("description", "cancellation_details.comment"),
    "invoice": ("customer_email", "customer_name", "description"),
    "line_item": ("description",),
    "product": ("name", "description"),
    "price": ("nickname",),
    "plan": ("nickname",),
}  # fmt: skip
"""Object type → fields that get a planted value, wherever an object of the type stands."""

REDACT: Final = (
    "customer.email", "hash:customer.name", "hash:customer.phone", "customer.address", "customer.description",
    "customer.tax_info", "charge.billing_details", "hash:charge.receipt_email", "hash:charge.description",
    "charge.failure_message", "hash:charge.payment_method_details.card", "hash:payment_intent.description",
    "payment_intent.receipt_email", "payment_intent.shipping.name", "payment_intent.last_payment_error.message",
    "*.billing_details", "source.owner", "source.card.last4", "refund.description",
    "hash:refund.destination_details", "dispute.evidence", "checkout.session.customer_email",
    "hash:checkout_session.customer_details", "checkout.session.client_reference_id", "subscription.description",
    "hash:subscription.cancellation_details.comment", "invoice.customer_email", "hash:invoice.customer_name",
    "invoice.description", "line_item.description", "product.name", "hash:product.description", "price.nickname",
    "plan.nickname", "*.metadata.ssn", "hash:*.metadata.contact", "event.request.idempotency_key",
    "v2.core.event.reason.request.idempotency_key", "hash:v2.core.event.data",
)  # fmt: skip

TABLES: Final = {
    "payments": ("payment_id", {"description", "failure_message", "metadata"}),
    "refunds": ("refund_id", {"metadata"}),
    "subscriptions": ("subscription_id", {"metadata"}),
    "subscription_items": ("subscription_item_id", frozenset[str]()),
    "invoices": ("invoice_id", {"metadata"}),
    "products": ("product_id", {"name", "description", "metadata"}),
    "prices": ("price_id", {"nickname", "metadata"}),
}
"""Table → its key, and the columns that hold something redacted."""

_numbers = count(10_000)


def token() -> str:
    """A value like no other."""
    return f"{MARK}{next(_numbers)}"


# --- planting --------------------------------------------------------------------------------------------------------


def plant(tree: dict[str, Any], fields: str) -> None:
    *containers, last = fields.split(".")
    for name in containers:
        below = tree.get(name)
        if not isinstance(below, dict):
            below = tree[name] = {}
        tree = below
    tree[last] = token()


def planted_object(tree: Any) -> None:
    if isinstance(tree, list):
        for member in tree:
            planted_object(member)
    elif isinstance(tree, dict):
        for value in list(tree.values()):
            planted_object(value)
        for fields in PLANTED_FIELDS.get(str(tree.get("object")), ()):
            plant(tree, fields)
        if isinstance(tree.get("metadata"), dict):
            tree["metadata"] |= {"ssn": token(), "contact": token()}


def planted(event: Mapping[str, Any], **envelope: Any) -> dict[str, Any]:
    """The event with a value of its own in every redacted place it has, in the object and in what was before."""
    made: dict[str, Any] = copy.deepcopy({**event, **envelope})
    planted_object(made)
    if made["object"] == "v2.core.event":
        made["reason"]["request"]["idempotency_key"] = token()
        made["data"] = {"summary": token(), "all": [token()]}
        return made
    made["request"] = {"id": "req_1", "idempotency_key": token()}
    previous = made["data"].get("previous_attributes")
    if previous is not None:
        for fields in PLANTED_FIELDS.get(made["data"]["object"]["object"], ()):
            plant(previous, fields)
        previous["metadata"] = {"ssn": token(), "contact": token()}
    return made


def events() -> list[dict[str, Any]]:
    """A shop's life in today's shapes, old and expanded shapes of everything, and each also as it was before."""
    story = shop(5, START).events
    old = [planted(event, id=f"evt_old{number}") for number, event in enumerate(OLD_SHAPES)]
    before = [
        planted({**event, "data": {**event["data"], "previous_attributes": {}}}, id=f"evt_before{number}")
        for number, event in enumerate(OLD_SHAPES)
        if "data" in event and event["object"] == "event"
    ]
    return [*(planted(event) for event in story), *old, *before]


def intent(event_id: str, **fields: Any) -> dict[str, Any]:
    """A payment intent's event, with more fields, and values planted in it."""
    stripe_object = {
        "id": f"pi_of_{event_id}",
        "object": "payment_intent",
        "amount": 1,
        "currency": "eur",
        "metadata": {},
    }
    data = {"object": {**stripe_object, **fields}}
    return planted({
        "id": event_id, "object": "event", "api_version": "2020-08-27", "created": 1_700_000_000, "data": data,
        "livemode": False, "type": "payment_intent.succeeded",
    })  # fmt: skip


def unprocessable() -> dict[str, bytes]:
    """Bodies for the quarantine, by reason: no JSON, no event, a field that cannot be, the wrong mode."""
    return {
        "malformed_json": f'{{"email": "{token()}"'.encode(),
        "not_an_event": orjson.dumps({"object": "customer", "email": token()}),
        "object_malformed": orjson.dumps(intent("evt_malformed", status=[token()])),
        "mode_mismatch": orjson.dumps({**intent("evt_live"), "livemode": True}),
        # Kept twice, in `data` and in `raw`, this is over the limit of 4 MiB.
        "record_too_large": orjson.dumps(intent("evt_large", last_payment_error={"code": 2_200_000 * "x"})),
    }


POISON: Final = "evt_poison"
"""A text with a NUL, which Postgres has no place for: its consumer buries it."""


# --- the service, and everything it keeps ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """All that the service has written, as bytes, by where."""

    records: Mapping[str, Sequence[bytes]]
    rows: Mapping[str, Sequence[bytes]]
    logs: bytes
    metrics: bytes
    answers: bytes

    def places_with(self, value: str) -> set[str]:
        """Where a value can be found."""
        sought = value.encode()
        by_place = {
            **{f"topic {name}": written for name, written in self.records.items()},
            **{f"table {name}": written for name, written in self.rows.items()},
            "logs": [self.logs],
            "metrics": [self.metrics],
            "answers": [self.answers],
        }
        return {place for place, written in by_place.items() if any(sought in text for text in written)}


@pytest.fixture
def written_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """All log lines, down to debug, as the processes write them."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    levels = {name: logging.getLogger(name).level for name in (None, "service", "aiokafka")}
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    configure("json", "debug")
    structlog.configure(cache_logger_on_first_use=False)  # other tests configure their own
    yield log
    root.handlers[:] = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.reset_defaults()


def with_ports(config: Config, port: int) -> Config:
    return msgspec.structs.replace(config, admin=AdminConfig(port=port))


@asynccontextmanager
async def consuming(config: Config, ports: Mapping[str, int]) -> AsyncIterator[None]:
    """All consumers, the admin side of each on the given port."""
    stop = asyncio.Event()
    consumers = [
        asyncio.create_task(run_consumer(with_ports(config, port), name, stop)) for name, port in ports.items()
    ]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*consumers)


async def deliver(session: aiohttp.ClientSession, url: str, bodies: Sequence[bytes]) -> list[dict[str, object]]:
    limit = asyncio.Semaphore(8)

    async def one(body: bytes) -> dict[str, object]:
        async with limit:
            headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(time.time()))}
            async with session.post(f"{url}/webhooks/test", data=io.BytesIO(body), headers=headers) as response:
                answer: dict[str, object] = await response.json()
                assert response.status == 200, answer
                return answer

    return list(await asyncio.gather(*(one(body) for body in bodies)))


async def everything_kept(deployed: Deployment, bodies: Sequence[bytes], log: io.StringIO) -> Kept:
    """Deliver the bodies, let the consumers apply them, and gather all there is then."""
    config = deployed.config
    ports = {name: free_port() for name in ("receiver", *PROJECTIONS)}
    log.truncate(0)
    log.seek(0)
    async with (
        receiver(with_ports(config, ports["receiver"]), [keep_reconciled]) as url,
        aiohttp.ClientSession() as session,
        consuming(config, {name: ports[name] for name in PROJECTIONS}),
    ):
        answers = await deliver(session, url, bodies)
        assert await until_caught_up(
            config.kafka.bootstrap_servers, config.database_url, deployed.topics, timeout_seconds=120
        )
        metrics = [await scraped(session, port) for port in ports.values()]
    records: dict[str, list[bytes]] = {}
    for record in await deployed.records():
        parts = [record.key or b"", record.value or b"", *(part for _, part in record.headers)]
        records.setdefault(record.topic.rpartition(".")[2], []).extend(parts)
    return Kept(
        records, await dumped(config.database_url), log.getvalue().encode(), b"".join(metrics), orjson.dumps(answers)
    )


async def scraped(session: aiohttp.ClientSession, port: int) -> bytes:
    async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
        assert response.status == 200
        return await response.read()


async def dumped(database_url: str) -> Mapping[str, Sequence[bytes]]:
    """Every row of every table and view as text; bytes as they are, whatever form a column has."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SET bytea_output = 'escape'")
        names = await connection.fetch("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        return {
            name: [row[0].encode() for row in await connection.fetch(f'SELECT t::text FROM "{name}" t')]
            for (name,) in names
        }
    finally:
        await connection.close()


async def table_rows(database_url: str, *, without: bool) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """The rows of the tables by account and id; `without` the columns that hold something redacted."""
    connection = await asyncpg.connect(database_url)
    try:
        return {
            table: {
                f"{row['account']} {row[key]}": {
                    name: value
                    for name, value in row.items()
                    if name != "applied_at" and not (without and name in redacted)
                }
                for row in await connection.fetch(f"SELECT * FROM {table}")
            }
            for table, (key, redacted) in TABLES.items()
        }
    finally:
        await connection.close()


def configured(plain: Deployment, **kafka: Any) -> Deployment:
    """The deployment with other settings, and with room for bodies of 3 MiB."""
    config = plain.config
    return Deployment(
        msgspec.structs.replace(
            config,
            kafka=msgspec.structs.replace(config.kafka, **kafka),
            receiver=msgspec.structs.replace(config.receiver, max_body_bytes=3 * 1024 * 1024),
        )
    )


# --- what it shows ---------------------------------------------------------------------------------------------------


async def test_planted_values_are_nowhere_and_the_tables_are_the_same(
    kafka: LocalKafka, database_url: str, topic_prefix: str, another_database_url: str, written_log: io.StringIO
) -> None:
    plain = configured(await deployment(kafka.bootstrap_servers, database_url, f"{topic_prefix}p"))
    redacting = configured(
        await deployment(kafka.bootstrap_servers, another_database_url, f"{topic_prefix}r"),
        redact=REDACT,
        redact_key=Secret(KEY),
    )
    quarantined = unprocessable()
    poison = intent(POISON, cancellation_reason="a\x00b")
    bodies = [*map(orjson.dumps, [*events(), poison]), *quarantined.values()]

    shown = await everything_kept(plain, bodies, written_log)
    hidden = await everything_kept(redacting, bodies, written_log)

    topics = {"payments", "refunds", "subscriptions", "customers", "catalog", "other", "quarantine", "dead-letter"}
    tables = {"payments", "refunds", "subscriptions", "products", "prices"}
    tables |= {"payment_events", "subscription_events", "refund_events", "catalog_events"}
    everywhere = {f"topic {name}" for name in topics} | {f"table {name}" for name in tables}
    assert shown.places_with(MARK) >= everywhere
    assert hidden.records.keys() == shown.records.keys() == topics
    assert hidden.places_with(MARK) == set()
    assert shown.places_with(MARK).isdisjoint({"logs", "metrics", "answers"})
    assert b"delivery.accepted" in hidden.logs
    assert b"stripe_ingest_" in hidden.metrics
    assert KEY.encode() not in hidden.logs
    assert await table_rows(another_database_url, without=True) == await table_rows(database_url, without=True)
    await check_hashes(database_url, another_database_url)
    await check_quarantine(redacting, quarantined)


async def check_hashes(database_url: str, redacted_database_url: str) -> None:
    """Equal descriptions have equal hashes, different ones different; metadata keeps its keys."""
    plain = (await table_rows(database_url, without=False))["payments"]
    redacted = (await table_rows(redacted_database_url, without=False))["payments"]
    described = {plain[name]["description"]: redacted[name]["description"] for name in plain}
    metadata = [orjson.loads(row["metadata"]) for row in redacted.values()]

    assert len(described) > 5
    assert all(value.startswith("hmac-sha256:") for given, value in described.items() if given is not None)
    assert len(set(described.values())) == len(described)
    assert any(found["contact"].startswith("hmac-sha256:") for found in metadata if found)
    assert not any("ssn" in found for found in metadata)


async def check_quarantine(deployed: Deployment, sent: Mapping[str, bytes]) -> None:
    """The bodies can be read by who has the key, whole, and by nobody else."""
    sealing, other = Sealing(RedactionKeys.of(KEY)), Sealing(RedactionKeys.of(b64encode(bytes(32)).decode()))
    kept = {
        dict(record.headers)["reason"].decode(): ConsumedRecord(
            Partition(record.topic, record.partition), record.offset, record.key, record.value, record.headers, 0
        )
        for record in await deployed.records(deployed.topics.quarantine)
    }

    assert {reason: quarantined_body(record, sealing) for reason, record in kept.items()} == sent
    shown = [orjson.loads(line) for line in await read_newest(deployed.config, "quarantine", 100)]
    assert {line["headers"]["reason"]: line["value"] for line in shown} == {
        reason: body.decode() if reason == "malformed_json" else orjson.loads(body) for reason, body in sent.items()
    }
    for record in kept.values():
        assert dict(record.headers)["encryption"] == b"aes-256-gcm"
        with pytest.raises(CannotUnseal):
            quarantined_body(record, other)


async def test_without_raw_what_is_not_normalized_is_nowhere(
    kafka: LocalKafka, database_url: str, topic_prefix: str, another_database_url: str, written_log: io.StringIO
) -> None:
    with_raw = configured(await deployment(kafka.bootstrap_servers, database_url, f"{topic_prefix}w"))
    without_raw = configured(
        await deployment(kafka.bootstrap_servers, another_database_url, f"{topic_prefix}o"), include_raw=False
    )
    bodies = [
        orjson.dumps(event)
        for event in shop(6, START).events
        if event["data"]["object"].setdefault("unheard_of", {"below": [token()]})
    ]

    shown = await everything_kept(with_raw, bodies, written_log)
    hidden = await everything_kept(without_raw, bodies, written_log)

    assert shown.places_with(MARK) == {f"topic {name}" for name in shown.records}
    assert len(shown.records) == 5
    assert hidden.records.keys() == shown.records.keys()
    assert hidden.places_with(MARK) == set()
    assert await table_rows(another_database_url, without=False) == await table_rows(database_url, without=False)
