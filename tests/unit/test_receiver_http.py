"""The public side: every answer of the status table, the bounds, and what a broken or hostile client gets."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.clock import SystemClock
from service.errors import BrokerUnavailable, PublishOutcomeUnknown, PublishRefused, RecordTooLarge
from service.events import Endpoint, Secret
from service.receiver.accepting import accepting
from service.receiver.http import RUNNER_OPTIONS, Limits, Receiver, build_app
from service.signature import fingerprint, sign
from tests.support.receiving import LIMITS, ScriptedPublisher, post, raw_exchange, receiver, serving
from tests.support.waiting import eventually

SECRET = Secret("whsec_0123456789abcdef")
LIVE = Endpoint(name="live", path="/webhooks/live", secrets=(SECRET,), mode="live")
TEST = Endpoint(name="test", path="/old/path", secrets=(Secret("whsec_another_secret"),), mode="test")


def body(event_id: str | None = "evt_1", **changes: Any) -> bytes:
    event = {
        "id": event_id,
        "object": "event",
        "type": "payment_intent.succeeded",
        "api_version": "2026-10-28.endive",
        "created": 1_763_700_000,
        "livemode": True,
        "data": {"object": {"id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 100}},
    } | changes
    return orjson.dumps({key: value for key, value in event.items() if value is not None})


def signed(payload: bytes, secret: Secret = SECRET, *, at: int | None = None) -> str:
    return sign(payload, secret, int(SystemClock().now().timestamp()) if at is None else at)


class Client:
    """One receiver and a client of it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, given: Receiver, publisher: ScriptedPublisher) -> None:
        self.session, self.url, self.receiver, self.publisher = session, url, given, publisher

    async def deliver(self, payload: bytes, *, to: Endpoint = LIVE) -> tuple[int, dict[str, object]]:
        return await post(self.session, self.url + to.path, payload, signed(payload, to.secrets[0]))

    def counted(self, endpoint: str, outcome: str) -> float:
        return float(self.receiver.metrics.deliveries.labels(endpoint, outcome)._value.get())


def made(limits: Limits = LIMITS) -> tuple[Receiver, ScriptedPublisher]:
    publisher = ScriptedPublisher()
    store = MemoryDedupeStore(SystemClock(), max_entries=1000)
    return receiver([LIVE, TEST], publisher, store, limits=limits, registry=CollectorRegistry()), publisher


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    given, publisher = made()
    async with serving(given) as url, aiohttp.ClientSession() as session:
        yield Client(session, url, given, publisher)
    await given.ingest.deduplicator.close(timeout_seconds=1)


async def test_a_signed_event_is_accepted_and_then_a_duplicate(client: Client) -> None:
    assert await client.deliver(body()) == (200, {"status": "accepted", "id": "evt_1"})
    assert await client.deliver(body()) == (200, {"status": "duplicate", "id": "evt_1"})

    (record,) = client.publisher.records
    assert (record.topic, record.key) == ("stripe.payments", b"pi_1")
    assert dict(record.headers)["dedupe"] == b"checked"
    assert client.counted("live", "accepted") == 1
    assert client.counted("live", "duplicate") == 1


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"[]", "not_an_event"),
        (b'{"object": "customer"}', "not_an_event"),
        (body(None), "event_id_missing"),
        (body("x"), "event_id_malformed"),
        (body(livemode=False), "mode_mismatch"),
        (body(data={}), "object_missing"),
    ],
)  # fmt: skip
async def test_what_stripe_signed_and_nobody_can_use_is_quarantined_with_its_bytes(
    client: Client, payload: bytes, reason: str
) -> None:
    status, answer = await client.deliver(payload)

    assert (status, answer["status"], answer["reason"]) == (200, "quarantined", reason)
    (record,) = client.publisher.records
    assert record.topic == "stripe.quarantine"
    assert record.value == payload
    assert dict(record.headers)["reason"].decode() == reason


async def test_an_event_quarantined_at_the_wrong_endpoint_is_accepted_at_the_right_one(client: Client) -> None:
    wrong = await client.deliver(body(), to=TEST)
    right = await client.deliver(body(), to=LIVE)
    again = await client.deliver(body(), to=TEST)

    assert [answer["status"] for _, answer in (wrong, right, again)] == ["quarantined", "accepted", "quarantined"]
    assert [record.topic for record in client.publisher.records] == ["stripe.quarantine", "stripe.payments"]


@pytest.mark.parametrize(
    ("signature", "error"),
    [
        (None, "signature_missing"),
        ("garbage", "signature_malformed"),
        (signed(body(), Secret("whsec_not_this_one")), "signature_mismatch"),
        (signed(body("evt_2")), "signature_mismatch"),
        (signed(body(), at=1_000_000_000), "timestamp_outside_tolerance"),
        (signed(body(), at=99_999_999_999), "timestamp_outside_tolerance"),
    ],
)
async def test_what_is_not_shown_to_be_stripes_is_refused_and_nothing_is_published(
    client: Client, signature: str | None, error: str
) -> None:
    status, answer = await post(client.session, client.url + LIVE.path, body(), signature)

    assert (status, answer["error"]) == (400, error)
    assert client.publisher.records == []
    assert client.counted("live", error) == 1


async def test_two_signature_headers_are_refused(client: Client) -> None:
    payload = body()
    headers = [("Stripe-Signature", signed(payload)), ("Stripe-Signature", signed(payload))]

    async with client.session.post(client.url + LIVE.path, data=payload, headers=headers) as response:
        assert (response.status, (await response.json())["error"]) == (400, "signature_malformed")


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("POST", "/", 404, "endpoint_unknown"),
        ("POST", "/webhooks/nobody", 404, "endpoint_unknown"),
        ("GET", "/metrics", 404, "endpoint_unknown"),
        ("GET", "/readyz", 404, "endpoint_unknown"),
        ("GET", "/webhooks/live", 405, "method_not_allowed"),
        ("PUT", "/old/path", 405, "method_not_allowed"),
    ],
)
async def test_other_paths_and_methods(client: Client, method: str, path: str, status: int, error: str) -> None:
    async with client.session.request(method, client.url + path, data=b"x" if method != "GET" else None) as response:
        assert (response.status, (await response.json())["error"]) == (status, error)
        assert response.headers.get("Allow") == ("POST" if status == 405 else None)


async def test_a_query_string_does_not_change_the_endpoint(client: Client) -> None:
    payload = body()

    answer = await post(client.session, client.url + LIVE.path + "?version=2", payload, signed(payload))

    assert answer[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_bound_is_refused(client: Client, chunked: bool) -> None:
    payload = b"x" * (LIMITS.max_body_bytes + 1)

    async def chunks() -> AsyncIterator[bytes]:
        yield payload

    async with client.session.post(client.url + LIVE.path, data=chunks() if chunked else payload) as response:
        assert (response.status, (await response.json())["error"]) == (413, "body_too_large")


async def test_an_announced_body_over_the_bound_is_refused_before_it_is_sent(client: Client) -> None:
    request = b"POST /webhooks/live HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"

    answer = await raw_exchange(client.url, request)

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_compressed_body_is_refused_unread(client: Client) -> None:
    headers = {"Content-Encoding": "gzip"}

    async with client.session.post(client.url + LIVE.path, data=b"\x1f\x8b", headers=headers) as response:
        assert (response.status, (await response.json())["error"]) == (415, "encoding_unsupported")


async def test_a_body_that_does_not_come_is_answered_408(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.receiver.http.BODY_SECONDS_MAX", 0.05)
    request = b"POST /webhooks/live HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this"

    answer = await raw_exchange(client.url, request)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_too_slow" in answer


async def test_a_body_cut_short_is_counted_and_harms_nobody(client: Client) -> None:
    request = b"POST /webhooks/live HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this"

    await raw_exchange(client.url, request, end=True)

    await eventually(lambda: client.counted("live", "client_gone") == 1, timeout_seconds=5, what="the count")
    assert (await client.deliver(body()))[0] == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /webhooks/live HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /webhooks/live HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /webhooks/live HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
        b"POST /webhooks/live HTTP/1.1\r\nHost : x\r\nContent-Length: 1\r\n\r\na",
        b"POST /webhooks/live HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    ],
    ids=["cl-te", "two-lengths", "signed-length", "space-before-colon", "long-header"],
)
async def test_a_request_that_two_parsers_could_read_differently_is_refused(client: Client, request_: bytes) -> None:
    answer = await raw_exchange(client.url, request_)

    assert answer.split(b" ")[1] == b"400"
    assert (await client.deliver(body()))[0] == 200


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (BrokerUnavailable("away"), "broker_unavailable"),
        (PublishOutcomeUnknown("no answer"), "broker_unavailable"),
        (PublishRefused("no"), "broker_unavailable"),
    ],
)
async def test_without_an_ack_the_answer_is_503_and_stripe_may_try_again(
    client: Client, failure: Exception, error: str
) -> None:
    client.publisher.failures = [failure]
    payload = body()

    async with client.session.post(
        client.url + LIVE.path, data=payload, headers={"Stripe-Signature": signed(payload)}
    ) as response:
        assert (response.status, (await response.json())["error"]) == (503, error)
        assert int(response.headers["Retry-After"]) > 0
    assert client.publisher.records == []


async def test_a_definite_failure_leaves_the_event_free_for_the_next_attempt(client: Client) -> None:
    client.publisher.failures = [BrokerUnavailable("away")]

    assert (await client.deliver(body()))[0] == 503
    assert await client.deliver(body()) == (200, {"status": "accepted", "id": "evt_1"})


async def test_after_an_unknown_outcome_the_event_is_never_called_a_duplicate_too_early() -> None:
    given, publisher = made(Limits(max_body_bytes=1000, max_in_flight=10, answer_timeout_seconds=0.3))
    publisher.failures = [PublishOutcomeUnknown("no answer")]
    async with serving(given) as url, aiohttp.ClientSession() as session:
        client = Client(session, url, given, publisher)

        assert (await client.deliver(body()))[0] == 503
        status, answer = await client.deliver(body())

    assert (status, answer["error"]) == (503, "in_flight")
    assert publisher.records == []


async def test_a_record_over_its_topics_limit_goes_to_quarantine_and_the_next_of_its_key_goes_through(
    client: Client,
) -> None:
    client.publisher.limit_bytes = 2000

    large = await client.deliver(body(padding="x" * 3000))
    small = await client.deliver(body("evt_2"))

    assert (large[1]["status"], large[1]["reason"]) == ("quarantined", "record_too_large")
    assert small == (200, {"status": "accepted", "id": "evt_2"})
    assert [record.topic for record in client.publisher.records] == ["stripe.quarantine", "stripe.payments"]


async def test_a_record_that_only_the_broker_finds_too_large_goes_to_quarantine_too(client: Client) -> None:
    client.publisher.failures = [RecordTooLarge("over the limit")]

    _, answer = await client.deliver(body())

    assert (answer["status"], answer["reason"]) == ("quarantined", "record_too_large")


async def test_twenty_deliveries_at_once_publish_once_and_none_is_answered_before_the_ack(client: Client) -> None:
    client.publisher.gate = asyncio.Event()
    deliveries = [asyncio.create_task(client.deliver(body())) for _ in range(20)]
    await eventually(lambda: client.receiver.in_flight == 20, timeout_seconds=5, what="all twenty in flight")

    assert not any(delivery.done() for delivery in deliveries)
    client.publisher.gate.set()
    answers = [str(answer["status"]) for _, answer in await asyncio.gather(*deliveries)]

    assert sorted(answers) == ["accepted"] + 19 * ["duplicate"]
    assert len(client.publisher.records) == 1


async def test_above_the_bound_of_deliveries_in_flight_the_answer_is_503_at_once() -> None:
    given, publisher = made(Limits(max_body_bytes=1000, max_in_flight=2, answer_timeout_seconds=5))
    publisher.gate = asyncio.Event()
    async with serving(given) as url, aiohttp.ClientSession() as session:
        client = Client(session, url, given, publisher)
        waiting = [asyncio.create_task(client.deliver(body(f"evt_{n}"))) for n in range(2)]
        await eventually(lambda: given.in_flight == 2, timeout_seconds=5, what="both in flight")

        assert (await client.deliver(body("evt_3")))[1]["error"] == "overloaded"
        publisher.gate.set()
        assert {answer["status"] for _, answer in await asyncio.gather(*waiting)} == {"accepted"}


async def test_bodies_that_do_not_come_keep_no_delivery_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.receiver.http.BODY_SECONDS_MAX", 30.0)
    given, publisher = made(Limits(max_body_bytes=1000, max_in_flight=2, answer_timeout_seconds=30))
    slow = b"POST /webhooks/live HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this"
    async with serving(given) as url, aiohttp.ClientSession() as session, asyncio.TaskGroup() as slow_ones:
        client = Client(session, url, given, publisher)
        strangers = [slow_ones.create_task(raw_exchange(url, slow)) for _ in range(20)]
        await eventually(lambda: client.counted("live", "overloaded") == 12, what="all but eight sent away")

        answers = [await client.deliver(body(f"evt_{n}")) for n in range(20)]
        assert {status for status, _ in answers} == {200}
        assert sum(stranger.done() for stranger in strangers) >= 12

        for stranger in strangers:
            stranger.cancel()


async def test_a_connection_above_the_bound_is_refused_and_one_that_ends_makes_room() -> None:
    given, publisher = made()
    refused: list[int] = []
    runner = web.AppRunner(build_app(given), shutdown_timeout=1, **RUNNER_OPTIONS)
    await runner.setup()
    accept = accepting(runner, most=2, refused=lambda: refused.append(1))
    listener = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]

        head, _, answer = (await raw_exchange(url, b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert (orjson.loads(answer)["error"], refused) == ("overloaded", [1])

        idle[0][1].close()
        await eventually(lambda: len(runner.server.connections if runner.server else ()) == 1, what="room")
        async with aiohttp.ClientSession() as session:
            assert (await Client(session, url, given, publisher).deliver(body()))[0] == 200
        idle[1][1].close()
    finally:
        listener.close()
        await runner.cleanup()


async def test_the_answer_comes_within_its_budget_whatever_the_broker_does() -> None:
    given, publisher = made(Limits(max_body_bytes=1000, max_in_flight=10, answer_timeout_seconds=0.2))
    publisher.gate = asyncio.Event()
    async with serving(given) as url, aiohttp.ClientSession() as session:
        client = Client(session, url, given, publisher)

        status, answer = await asyncio.wait_for(client.deliver(body()), 5)
        assert (status, answer["error"]) == (503, "broker_unavailable")

        publisher.gate.set()  # an ack that comes too late for the answer still confirms the event
        await eventually(lambda: bool(publisher.records), timeout_seconds=5, what="the late ack")
        assert await client.deliver(body()) == (200, {"status": "duplicate", "id": "evt_1"})


async def test_while_draining_new_deliveries_are_sent_away(client: Client) -> None:
    client.receiver.draining = True

    status, answer = await client.deliver(body())

    assert (status, answer["error"]) == (503, "shutting_down")


async def test_a_client_that_goes_away_does_not_stop_the_publishing(client: Client) -> None:
    client.publisher.gate = asyncio.Event()
    gone = asyncio.create_task(client.deliver(body()))
    await asyncio.wait_for(client.publisher.started.wait(), 5)
    gone.cancel()
    client.publisher.gate.set()

    await eventually(lambda: len(client.publisher.records) == 1, timeout_seconds=5, what="the record")
    assert await client.deliver(body()) == (200, {"status": "duplicate", "id": "evt_1"})


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("planted detail"), ConnectionResetError("planted detail"), TimeoutError("planted detail")],
    ids=repr,
)
async def test_an_unforeseen_failure_is_answered_503_and_nobody_is_shown_what_it_says(
    client: Client, failure: Exception
) -> None:
    client.publisher.failures = [failure]
    payload = body()

    with capture_logs() as lines:
        async with client.session.post(
            client.url + LIVE.path, data=payload, headers={"Stripe-Signature": signed(payload)}
        ) as response:
            text = await response.text()
            assert (response.status, orjson.loads(text)["error"]) == (503, "internal_error")
            assert int(response.headers["Retry-After"]) > 0
    assert client.counted("live", "internal_error") == 1
    (line,) = [line for line in lines if line["event"] == "delivery.unforeseen"]
    assert (line["log_level"], line["error"]) == ("error", type(failure).__name__)
    assert line["frames"][-1].endswith(" publish")
    assert "planted" not in f"{text}{lines}"


async def test_a_failure_in_telling_what_became_of_a_delivery_is_answered_503_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr("service.receiver.http.unknown_values", broken)

    status, answer = await client.deliver(body())

    assert (status, answer["error"]) == (503, "internal_error")


@pytest.mark.parametrize("framing", [b"zz\r\nnot a chunk", b"5\r\nabcdefgh\r\n"], ids=["size", "length"])
async def test_a_body_in_broken_chunks_is_the_clients_fault(client: Client, framing: bytes) -> None:
    request = b"POST /webhooks/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + framing

    answer = await raw_exchange(client.url, request)

    assert answer.split(b" ")[1] == b"400"
    assert (await client.deliver(body()))[0] == 200


async def test_deliveries_refused_for_their_time_show_how_far_the_clock_is_off(client: Client) -> None:
    now = int(SystemClock().now().timestamp())

    def skew() -> float:
        return float(client.receiver.metrics.clock_skew.labels("live")._value.get())

    with capture_logs() as lines:
        for offset in (-1000, -1000, 1000, 1000, 1000, 1000):
            await post(client.session, client.url + LIVE.path, body(), signed(body(), at=now + offset))
        assert skew() == pytest.approx(1000, abs=30)
        await post(client.session, client.url + LIVE.path, body(), signed(body(), TEST.secrets[0], at=now + 5000))
        assert skew() == pytest.approx(1000, abs=30)
    (line,) = [line for line in lines if line["event"] == "clock.skewed"]
    assert (line["log_level"], line["endpoint"], line["in_a_row"]) == ("warning", "live", 3)
    assert line["skew_seconds"] == pytest.approx(1000, abs=30)

    await client.deliver(body())
    assert skew() == pytest.approx(0, abs=30)


async def test_a_replay_now_and_then_is_no_clock(client: Client) -> None:
    now = int(SystemClock().now().timestamp())

    with capture_logs() as lines:
        for number in range(10):
            await post(client.session, client.url + LIVE.path, body(), signed(body(), at=now - 1000))
            await client.deliver(body(f"evt_{number}"))

    assert [line for line in lines if line["event"] == "clock.skewed"] == []


async def test_addresses_outside_allow_ips_are_refused(client: Client) -> None:
    client.receiver.allowed_networks = (ipaddress.ip_network("192.0.2.0/24"),)
    status, answer = await client.deliver(body())
    assert (status, answer["error"]) == (403, "address_not_allowed")

    client.receiver.allowed_networks = (ipaddress.ip_network("127.0.0.0/8"),)
    assert (await client.deliver(body()))[0] == 200


def moved(endpoint: Endpoint, path: str, *secrets: Secret) -> Endpoint:
    return replace(endpoint, path=path, secrets=secrets or endpoint.secrets)


async def test_a_delivery_in_flight_keeps_its_endpoint_when_the_endpoints_are_replaced(client: Client) -> None:
    client.publisher.gate = asyncio.Event()
    published = asyncio.create_task(client.deliver(body()))
    await eventually(lambda: client.receiver.in_flight == 1, what="the delivery waits for its ack")
    payload = body("evt_2")
    head = f"POST {LIVE.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(payload)}\r\n"
    host, _, port = client.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}Stripe-Signature: {signed(payload)}\r\n\r\n".encode() + payload[:10])
    await eventually(lambda: len(client.receiver.reading._readers) == 1, what="a body is half read")

    client.receiver.serve([TEST, moved(LIVE, "/new/path", Secret("whsec_next"))])
    client.publisher.gate.set()
    writer.write(payload[10:])

    assert await published == (200, {"status": "accepted", "id": "evt_1"})
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2]) == {"status": "accepted", "id": "evt_2"}
    writer.close()
    await writer.wait_closed()
    assert client.counted("live", "accepted") == 2
    assert (await client.deliver(body("evt_3")))[1]["error"] == "endpoint_unknown"


async def test_an_endpoint_that_is_taken_away_answers_404_and_a_new_one_its_own(client: Client) -> None:
    new = Endpoint(name="new", path="/webhooks/new", secrets=(Secret("whsec_of_the_new_one"),), mode="live")
    assert (await client.deliver(body("evt_1"), to=new))[0] == 404

    client.receiver.serve([TEST, new])

    assert (await client.deliver(body("evt_1"), to=new))[0] == 200
    status, answer = await client.deliver(body("evt_2"))
    assert (status, answer["error"]) == (404, "endpoint_unknown")
    assert (await client.deliver(body("evt_3", livemode=False), to=TEST))[0] == 200


async def test_a_secret_that_is_taken_away_is_refused_from_the_next_delivery_on(client: Client) -> None:
    new = Secret("whsec_next")
    for secrets in ((new, SECRET), (new,)):
        client.receiver.serve([moved(LIVE, LIVE.path, *secrets), TEST])
        payload = body(f"evt_{len(secrets)}")
        assert (await post(client.session, client.url + LIVE.path, payload, signed(payload, new)))[0] == 200

    status, answer = await client.deliver(body("evt_3"))
    assert (status, answer["error"]) == (400, "signature_mismatch")


def active_secrets(given: Receiver) -> dict[tuple[str, str], float]:
    (metric,) = given.metrics.active_secrets.collect()
    return {(sample.labels["endpoint"], sample.labels["secret"]): sample.value for sample in metric.samples}


def test_the_active_secrets_are_shown_by_fingerprint_and_only_they() -> None:
    given, _ = made()
    assert active_secrets(given) == {
        ("live", fingerprint(SECRET)): 1,
        ("test", fingerprint(TEST.secrets[0])): 1,
    }

    new = Secret("whsec_next")
    given.serve([moved(LIVE, LIVE.path, new, SECRET), replace(TEST, secrets=())])

    assert active_secrets(given) == {("live", fingerprint(new)): 1, ("live", fingerprint(SECRET)): 1, ("test", ""): 0}


async def test_deliveries_are_counted_by_the_first_of_the_active_secrets_that_signed_them(client: Client) -> None:
    new = Secret("whsec_next")
    client.receiver.serve([moved(LIVE, LIVE.path, new, SECRET)])
    payload, other = body("evt_1"), body("evt_2")
    both = f"{signed(payload)},{signed(payload, new).partition(',')[2]}"

    await post(client.session, client.url + LIVE.path, payload, both)
    await post(client.session, client.url + LIVE.path, other, signed(other))

    counts = {
        name: client.receiver.metrics.secret_used.labels("live", fingerprint(secret))._value.get()
        for name, secret in (("new", new), ("old", SECRET))
    }
    assert counts == {"new": 1, "old": 1}
