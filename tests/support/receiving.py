"""A receiver on a free loopback port, with whatever stands behind it; and raw requests to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from service.clock import SystemClock
from service.events import Endpoint, Position, Record
from service.ports import Clock, DedupeStore, Publisher
from service.receiver.dedupe import Deduplicator
from service.receiver.http import RUNNER_OPTIONS, Limits, Receiver, build_app
from service.receiver.ingest import Ingest
from service.records import Topics
from service.telemetry.metrics import ReceiverMetrics
from service.telemetry.observers import DedupeMetricsObserver

LIMITS = Limits(max_body_bytes=64 * 1024, max_in_flight=32, answer_timeout_seconds=2.0)
TOPICS = Topics("stripe")


class ScriptedPublisher:
    """A publisher whose answers a test writes: a failure to raise, or a gate to wait at."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.failures: list[Exception] = []
        self.gate: asyncio.Event | None = None
        self.limit_bytes: int | None = None
        self.started = asyncio.Event()
        self.available = True

    async def publish(self, record: Record, *, deadline: float) -> Position:  # noqa: ARG002 -- the port's
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.records.append(record)
        return Position(record.topic, 0, len(self.records) - 1)

    def fits(self, record: Record) -> bool:
        return (
            self.limit_bytes is None or not record.topic.endswith("payments") or len(record.value) <= self.limit_bytes
        )


def receiver(
    endpoints: list[Endpoint],
    publisher: Publisher,
    store: DedupeStore,
    *,
    clock: Clock | None = None,
    limits: Limits = LIMITS,
    registry: CollectorRegistry | None = None,
) -> Receiver:
    """The receiver as bootstrap composes it, on the given ports."""
    metrics = ReceiverMetrics(registry or CollectorRegistry())
    return Receiver(
        endpoints={endpoint.path: endpoint for endpoint in endpoints},
        ingest=Ingest(
            publisher=publisher,
            deduplicator=Deduplicator(store, DedupeMetricsObserver(metrics), timeout_seconds=2),
            clock=clock or SystemClock(),
            topics=TOPICS,
            include_raw=True,
            tolerance_seconds=300,
        ),
        limits=limits,
        metrics=metrics,
    )


@asynccontextmanager
async def serving(given: Receiver) -> AsyncIterator[str]:
    """The base URL of the receiver, while it serves."""
    runner = web.AppRunner(build_app(given), shutdown_timeout=1, **RUNNER_OPTIONS)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def raw_exchange(url: str, request: bytes, *, end: bool = False) -> bytes:
    """Send bytes as they are on a connection of their own; everything that comes back until it is closed."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        if end:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(64 * 1024), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def post(
    session: aiohttp.ClientSession, url: str, body: bytes, signature: str | None
) -> tuple[int, dict[str, object]]:
    """POST a delivery; status and JSON of the answer."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if signature is not None:
        headers["Stripe-Signature"] = signature
    async with session.post(url, data=body, headers=headers) as response:
        return response.status, await response.json()
