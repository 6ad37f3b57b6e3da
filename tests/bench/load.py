"""Load: signed deliveries of a simulated shop, over connections that are kept alive."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from service.events import Secret
from service.local.ports import LOOPBACK
from service.signature import sign
from service.simulator.events import render
from service.simulator.shop import STORY_SPAN, deliveries, shop

ANSWER_SECONDS_MAX = 30.0


class NotAccepted(click.ClickException):
    """A delivery got another answer than "accepted": what was measured is something else than a server at work."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one run; `latencies` in seconds."""

    seconds: float
    latencies: Sequence[float]

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds


def bodies() -> Iterator[bytes]:
    """Events without end, no two with one id, as Stripe would send them: shop after shop, each out of order."""
    now = datetime.now(UTC)
    for seed in itertools.count(time.time_ns()):
        story = shop(seed, now - STORY_SPAN)
        unique = {event["id"]: event for event in deliveries(story, seed)}
        yield from map(render, unique.values())


def request(body: bytes, path: str, secret: Secret) -> bytes:
    """The delivery as it goes over the wire, signed now."""
    head = (
        f"POST {path} HTTP/1.1\r\n"
        "Host: hooks.example.com\r\n"
        "User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
        "Accept: */*; q=0.5, application/xml\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
        "Cache-Control: no-cache\r\n"
        f"Stripe-Signature: {sign(body, secret, int(time.time()))}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    )
    return head.encode("ascii") + body


async def drive(port: int, requests: Sequence[bytes], *, connections: int, per_second: float | None = None) -> Load:
    """Send each request once. Raises `NotAccepted`.

    Without `per_second` each connection sends its next request when its last one was answered (a closed loop). With
    it the requests are due at a steady pace, whatever the server does, and latency counts from when one was due: a
    server that stalls is charged for all that waited behind it. The load's own timers are up to 1 ms late.
    """
    clock = time.perf_counter  # the loop's own counts whole milliseconds
    waiting = iter(enumerate(requests))
    latencies: list[float] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for index, sent in waiting:
            began = clock()
            if per_second is not None:
                began = start + index / per_second
                await asyncio.sleep(began - clock())
            writer.write(sent)
            await _accepted(reader)
            latencies.append(clock() - began)

    streams = [await asyncio.open_connection(LOOPBACK, port) for _ in range(connections)]
    try:
        start = clock()
        try:
            async with asyncio.TaskGroup() as clients:
                for stream in streams:
                    clients.create_task(client(*stream))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return Load(clock() - start, latencies)
    finally:
        for _, writer in streams:
            writer.close()


async def _accepted(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        head = await reader.readuntil(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length: ")
        body = await reader.readexactly(int(length.partition(b"\r")[0]))
    if not head.startswith(b"HTTP/1.1 200 ") or b'"accepted"' not in body:
        status = head.partition(b"\r")[0].decode("ascii", "replace")
        raise NotAccepted(f"a delivery was not accepted: {status} {body[:200].decode(errors='replace')}")
