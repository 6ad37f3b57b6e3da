"""The sender posts as Stripe does, and plays crowds of deliveries."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import pytest
import stripe
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from service.events import Secret
from service.simulator import stripe_sender
from service.simulator.events import render, sample
from service.simulator.shop import deliveries, shop
from service.simulator.stripe_sender import (
    ANSWER_BYTES_MAX,
    LIVE_RETRY_SECONDS,
    SANDBOX_RETRY_SECONDS,
    Answer,
    DeliveryResult,
    StripeSender,
    compressed,
    play,
)
from tests.support.signing import NOW, SIGNED_AT

OLD = Secret("whsec_simulatedOld")
NEW = Secret("whsec_simulatedNew")
EVENT = sample("payment_intent.succeeded", seed=1, created=SIGNED_AT)
BODY = render(EVENT)


def answer(code: int, body: dict[str, Any]) -> web.Response:
    return web.Response(status=code, body=orjson.dumps(body), content_type="application/json")


ACCEPTED = {"status": "accepted", "id": EVENT["id"]}


@dataclass
class Receiver:
    """A receiver that answers as it is told, and remembers what came."""

    respond: Callable[[web.Request, bytes], web.StreamResponse]
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((dict(request.headers), body))
        return self.respond(request, body)

    @property
    def signatures(self) -> list[str]:
        return [headers["Stripe-Signature"] for headers, _ in self.requests]


@asynccontextmanager
async def receiving(handler: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("/webhooks/shop"))


@asynccontextmanager
async def answering(*answers: tuple[int, dict[str, Any]]) -> AsyncIterator[Receiver]:
    """A receiver that gives these answers in turn, the last one for ever."""
    coming = iter(answers)
    last = answers[-1]

    def respond(_: web.Request, __: bytes) -> web.Response:
        status, body = next(coming, last)
        return answer(status, body)

    receiver = Receiver(respond)
    async with receiving(receiver.handle) as receiver.url:
        yield receiver


class Ticking:
    """A clock that goes on by a second at each look, and a sleep that only notes how long it should be."""

    def __init__(self) -> None:
        self.time = float(SIGNED_AT)
        self.slept: list[float] = []

    def now(self) -> float:
        self.time += 1
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def sending(
    url: str, *secrets: Secret, retry_seconds: Iterable[float] = (), ticking: Ticking | None = None
) -> StripeSender:
    clock = ticking or Ticking()
    return StripeSender(url, secrets or (NEW,), retry_seconds=tuple(retry_seconds), now=clock.now, sleep=clock.sleep)


def stripe_verifies(body: bytes, header: str, secret: Secret) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(body.decode(), header, secret.value, tolerance=None))
    except stripe.SignatureVerificationError:
        return False


async def test_stripes_own_library_verifies_what_is_sent() -> None:
    async with answering((200, ACCEPTED)) as receiver, sending(receiver.url) as sender:
        result = await sender.deliver(BODY)
    ((_, body),) = receiver.requests
    assert body == BODY
    assert stripe_verifies(body, receiver.signatures[0], NEW)
    assert not stripe_verifies(body, receiver.signatures[0], OLD)
    assert not stripe_verifies(body + b" ", receiver.signatures[0], NEW)
    assert (result.status, result.answer, result.attempts) == (200, Answer.ACCEPTED, 1)
    assert orjson.loads(result.body) == ACCEPTED


async def test_while_a_secret_is_rolled_each_of_the_two_verifies() -> None:
    async with answering((200, ACCEPTED)) as receiver, sending(receiver.url, OLD, NEW) as sender:
        await sender.deliver(BODY)
    (header,) = receiver.signatures
    assert header.count("t=") == 1
    assert header.count("v1=") == 2
    assert stripe_verifies(BODY, header, OLD)
    assert stripe_verifies(BODY, header, NEW)


async def test_the_request_looks_like_stripes() -> None:
    async with answering((200, ACCEPTED)) as receiver, sending(receiver.url) as sender:
        await sender.deliver(BODY)
    ((headers, _),) = receiver.requests
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["User-Agent"] == "Stripe/1.0 (+https://stripe.com/docs/webhooks)"
    assert headers["Accept"] == "*/*; q=0.5, application/xml"
    assert headers["Cache-Control"] == "no-cache"
    assert headers["Accept-Encoding"] == "gzip"
    assert headers["Content-Length"] == str(len(BODY))
    assert "Cookie" not in headers


async def test_a_refused_delivery_comes_again_on_schedule_newly_signed_with_the_same_bytes() -> None:
    ticking = Ticking()
    unavailable = (503, {"error": "broker_unavailable"})
    async with (
        answering(unavailable, (400, {"error": "signature_mismatch"}), (200, ACCEPTED)) as receiver,
        sending(receiver.url, retry_seconds=(3, 9, 27), ticking=ticking) as sender,
    ):
        result = await sender.deliver(BODY)
    assert (result.answer, result.attempts) == (Answer.ACCEPTED, 3)
    assert ticking.slept == [3, 9]
    assert {body for _, body in receiver.requests} == {BODY}
    assert [header.partition(",")[0] for header in receiver.signatures] == [f"t={SIGNED_AT + n}" for n in (1, 2, 3)]
    assert all(stripe_verifies(BODY, header, NEW) for header in receiver.signatures)


async def test_what_is_never_taken_is_given_up_when_the_schedule_is_over() -> None:
    ticking = Ticking()
    async with (
        answering((503, {"error": "overloaded"})) as receiver,
        sending(receiver.url, retry_seconds=(1, 2), ticking=ticking) as sender,
    ):
        result = await sender.deliver(BODY)
    assert (result.status, result.answer, result.reason, result.attempts) == (503, Answer.REFUSED, "overloaded", 3)
    assert len(receiver.requests) == 3
    assert ticking.slept == [1, 2]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"status": "accepted", "id": "evt_1"}', Answer.ACCEPTED),
        (200, b'{"status": "duplicate", "id": "evt_1"}', Answer.DUPLICATE),
        (200, b'{"status": "quarantined"}', Answer.QUARANTINED),
        (204, b"", Answer.OTHER_2XX),
        (200, b"OK", Answer.OTHER_2XX),
        (200, b'["accepted"]', Answer.OTHER_2XX),
        (200, b'{"status": "refused"}', Answer.OTHER_2XX),
        (200, b'{"status": 5}', Answer.OTHER_2XX),
        (302, b"", Answer.REFUSED),
        (410, b'{"status": "accepted"}', Answer.REFUSED),
        (None, b"", Answer.UNANSWERED),
    ],
)
def test_an_answer_is_read_from_status_and_body(status: int | None, body: bytes, expected: Answer) -> None:
    result = DeliveryResult(status, body, 0.1)
    assert result.answer is expected
    assert result.answer.delivered == (status is not None and 200 <= status < 300)


def test_a_failure_has_the_receivers_code_or_its_status_for_a_reason() -> None:
    assert DeliveryResult(503, b'{"error": "in_flight"}', 0.1).reason == "in_flight"
    assert DeliveryResult(502, b"<html>", 0.1).reason == "http_502"
    assert DeliveryResult(None, b"", 0.1).reason == "unanswered"


async def test_a_redirect_is_a_failure_and_not_followed() -> None:
    def respond(request: web.Request, _: bytes) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": str(request.url.with_path("/elsewhere"))})

    receiver = Receiver(respond)
    async with receiving(receiver.handle) as url, sending(url) as sender:
        result = await sender.deliver(BODY)
    assert (result.status, result.answer, len(receiver.requests)) == (307, Answer.REFUSED, 1)


async def test_no_receiver_is_no_answer() -> None:
    async with sending(f"http://127.0.0.1:{unused_port()}/webhooks/shop") as sender:
        result = await sender.deliver(BODY)
    assert (result.status, result.answer, result.body) == (None, Answer.UNANSWERED, b"")


async def test_an_answer_that_does_not_come_in_time_is_no_answer() -> None:
    over = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await over.wait()
        return answer(200, ACCEPTED)

    async with receiving(hang) as url, StripeSender(url, (NEW,), timeout_seconds=0.05) as sender:
        result = await sender.attempt(BODY)
        over.set()
    assert result.answer is Answer.UNANSWERED


async def test_no_more_of_an_answer_is_read_than_is_of_use() -> None:
    receiver = Receiver(lambda _, __: web.Response(status=500, body=b"x" * (ANSWER_BYTES_MAX * 4)))
    async with receiving(receiver.handle) as url, sending(url) as sender:
        result = await sender.attempt(BODY)
    assert result.body == b"x" * ANSWER_BYTES_MAX


async def test_a_sender_without_a_secret_or_outside_of_its_context_is_refused() -> None:
    with pytest.raises(ValueError, match="secret"):
        StripeSender("http://127.0.0.1:1/", ())
    with pytest.raises(RuntimeError, match="async with"):
        await StripeSender("http://127.0.0.1:1/", (NEW,)).attempt(BODY)


def once_each() -> Receiver:
    """Accepts each event once, by its id."""
    seen: set[str] = set()

    def respond(_: web.Request, body: bytes) -> web.Response:
        event_id = orjson.loads(body)["id"]
        status = "duplicate" if event_id in seen else "accepted"
        seen.add(event_id)
        return answer(200, {"status": status, "id": event_id})

    return Receiver(respond)


async def test_playing_a_shop_delivers_every_event_and_counts_the_answers() -> None:
    story = shop(5, NOW - timedelta(days=120))
    arrivals = deliveries(story, 5)
    told: list[tuple[int, int]] = []
    receiver = once_each()
    async with receiving(receiver.handle) as url, sending(url) as sender:
        report = await play(arrivals, sender, concurrency=8, progress=lambda done, total: told.append((done, total)))
    assert {orjson.loads(body)["id"] for _, body in receiver.requests} == {event["id"] for event in story.events}
    assert all(stripe_verifies(body, headers["Stripe-Signature"], NEW) for headers, body in receiver.requests)
    assert (report.deliveries, report.attempts, report.delivered) == (len(arrivals),) * 3
    assert report.answers[Answer.ACCEPTED] == len(story.events)
    assert report.answers[Answer.DUPLICATE] == len(arrivals) - len(story.events)
    assert not report.failures
    assert told == [(n, len(arrivals)) for n in range(1, len(arrivals) + 1)]
    assert 0 < report.p50_seconds <= report.p99_seconds <= report.max_seconds <= report.seconds


async def test_playing_one_at_a_time_keeps_the_order_of_arrival() -> None:
    arrivals = deliveries(shop(5, NOW - timedelta(days=120)), 6)
    receiver = once_each()
    async with receiving(receiver.handle) as url, sending(url) as sender:
        await play(arrivals, sender, concurrency=1)
    assert [orjson.loads(body)["id"] for _, body in receiver.requests] == [event["id"] for event in arrivals]


async def test_what_waits_for_its_next_attempt_is_overtaken_and_nothing_is_lost() -> None:
    """An outage for the first ten attempts: their repetitions are due only after everything else has come."""
    events = list(shop(5, NOW - timedelta(days=120)).events[:40])
    receiver = once_each()
    healthy = receiver.respond
    receiver.respond = lambda request, body: (
        answer(503, {"error": "broker_unavailable"}) if len(receiver.requests) <= 10 else healthy(request, body)
    )
    ticking = Ticking()
    async with receiving(receiver.handle) as url, sending(url, retry_seconds=(3_600,), ticking=ticking) as sender:
        report = await play(events, sender, concurrency=1)
    assert len(ticking.slept) == 10
    assert all(0 < pause <= 3_600 for pause in ticking.slept)
    came = [orjson.loads(body)["id"] for _, body in receiver.requests]
    ids = [event["id"] for event in events]
    assert came == ids + ids[:10]
    assert (report.attempts, report.delivered, report.answers[Answer.ACCEPTED]) == (50, 40, 40)
    assert report.failures == {"broker_unavailable": 10}


async def test_playing_against_a_receiver_that_is_down_ends_with_all_given_up() -> None:
    events = list(shop(5, NOW - timedelta(days=120)).events[:6])
    ticking = Ticking()
    async with (
        answering((503, {"error": "shutting_down"})) as receiver,
        sending(receiver.url, retry_seconds=(0, 0), ticking=ticking) as sender,
    ):
        report = await play(events, sender, concurrency=3)
    assert len(receiver.requests) == report.attempts == 18
    assert report.failures == {"shutting_down": 18}
    assert (report.delivered, report.answers[Answer.REFUSED]) == (0, 6)


async def test_as_many_deliveries_are_in_flight_as_concurrency_and_no_more() -> None:
    in_flight = most = 0

    class Slow(StripeSender):
        async def attempt(self, body: bytes) -> DeliveryResult:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0)
            in_flight -= 1
            return DeliveryResult(200, body, 0.0)

    report = await play([EVENT] * 20, Slow("http://127.0.0.1:1/", (NEW,)), concurrency=4)
    assert (report.delivered, most) == (20, 4)


async def test_no_new_delivery_is_begun_while_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_sender, "WAITING_MAX", 2)
    events = list(shop(5, NOW - timedelta(days=120)).events[:4])
    number = {event["id"]: place for place, event in enumerate(events)}
    seen: set[str] = set()

    def at_the_second_time(_: web.Request, body: bytes) -> web.Response:
        event_id = orjson.loads(body)["id"]
        if event_id in seen:
            return answer(200, {"status": "accepted", "id": event_id})
        seen.add(event_id)
        return answer(503, {"error": "overloaded"})

    receiver = Receiver(at_the_second_time)
    async with receiving(receiver.handle) as url, sending(url, retry_seconds=(3_600,)) as sender:
        report = await play(events, sender, concurrency=1)
    assert [number[orjson.loads(body)["id"]] for _, body in receiver.requests] == [0, 1, 0, 2, 1, 3, 2, 3]
    assert report.delivered == 4


async def test_playing_nothing_is_over_at_once_and_concurrency_is_at_least_one() -> None:
    async with sending("http://127.0.0.1:1/") as sender:
        report = await play([], sender, concurrency=5)
        with pytest.raises(ValueError, match="at least 1"):
            await play([EVENT], sender, concurrency=0)
    assert (report.deliveries, report.attempts, report.delivered, report.max_seconds) == (0, 0, 0, 0.0)


def test_the_schedules_stay_within_what_stripe_says_and_grow() -> None:
    assert sum(LIVE_RETRY_SECONDS) <= 3 * 86_400
    assert len(SANDBOX_RETRY_SECONDS) == 3
    for schedule in (LIVE_RETRY_SECONDS, SANDBOX_RETRY_SECONDS):
        assert list(schedule) == sorted(schedule)


def test_a_compressed_schedule_keeps_its_proportions() -> None:
    assert compressed(LIVE_RETRY_SECONDS, 6) == pytest.approx(
        [pause * 6 / sum(LIVE_RETRY_SECONDS) for pause in LIVE_RETRY_SECONDS]
    )
    assert sum(compressed(SANDBOX_RETRY_SECONDS, 2.5)) == pytest.approx(2.5)
