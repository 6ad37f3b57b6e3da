"""Who answers at a URL: a receiver of ours, a redirect, something else, nobody; and none of them for long."""

import asyncio
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.adapters.http_probe import BODY_BYTES_MAX, HttpUrlProbe
from service.clock import SystemClock
from service.events import Endpoint
from service.ports import ProbeAnswer
from service.stripe_account.endpoint_status import error_tag
from tests.support.certificates import make_certificate, serving_with, trusting
from tests.support.receiving import ScriptedPublisher, receiver, serving
from tests.support.signing import SECRET
from tests.support.waiting import free_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest_asyncio.fixture
async def probe() -> AsyncIterator[HttpUrlProbe]:
    made = HttpUrlProbe()
    yield made
    await made.close()


@asynccontextmanager
async def server(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """An HTTP server of somebody else's."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def talking(answer: bytes, *, hold: bool = False) -> AsyncIterator[str]:
    """A server that says these bytes to whoever connects, and holds the connection, or closes it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if hold:
            await reader.read()  # until whoever asked leaves
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        await listening.wait_closed()


@asynccontextmanager
async def ours() -> AsyncIterator[tuple[str, ScriptedPublisher]]:
    """A receiver with the endpoint `shop`."""
    store = MemoryDedupeStore(SystemClock(), retention_seconds=3600, max_entries=100)
    publisher = ScriptedPublisher()
    endpoint = Endpoint("shop", "/webhooks/shop", (SECRET,), "test", None, False, ())
    async with serving(receiver([endpoint], publisher, store)) as url:
        yield url, publisher


async def test_a_receiver_of_ours_says_that_it_is_and_takes_nothing(probe: HttpUrlProbe) -> None:
    async with ours() as (url, publisher):
        answer = await probe.ask(f"{url}/webhooks/shop")

    assert (answer.status, error_tag(answer.body)) == (400, "signature_missing")
    assert publisher.records == []


async def test_a_receiver_of_ours_without_the_endpoint_says_that(probe: HttpUrlProbe) -> None:
    async with ours() as (url, _):
        answer = await probe.ask(f"{url}/webhooks/other")

    assert (answer.status, error_tag(answer.body)) == (404, "endpoint_unknown")


async def test_a_redirect_is_told_and_not_followed(probe: HttpUrlProbe) -> None:
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path}")
        return web.Response(status=301, headers={"Location": "/elsewhere"}, body=b"moved")

    async with server(redirect) as url:
        answer = await probe.ask(f"{url}/hook")

    assert answer == ProbeAnswer(301, location="/elsewhere")
    assert asked == ["POST /hook"]


async def test_something_else_is_told_with_what_it_says(probe: HttpUrlProbe) -> None:
    seen: list[web.Request] = []

    async def page(request: web.Request) -> web.Response:
        assert await request.read() == b"{}"
        seen.append(request)
        return web.Response(text="<html>It works!</html>", headers={"Set-Cookie": "a=b"})

    async with server(page) as url:
        for _ in range(2):
            assert await probe.ask(url) == ProbeAnswer(200, b"<html>It works!</html>")

    assert [("Stripe-Signature" in each.headers, "Cookie" in each.headers) for each in seen] == [(False, False)] * 2


async def test_of_a_huge_body_only_the_beginning_is_read(probe: HttpUrlProbe) -> None:
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)
            written += 65_536

    async with server(endless) as url:
        answer = await probe.ask(url)

    assert answer == ProbeAnswer(200, b"x" * BODY_BYTES_MAX)
    assert written < 64 * 1024 * 1024


async def test_nothing_is_inflated(probe: HttpUrlProbe) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)

    async def inflating(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with server(inflating) as url:
        answer = await probe.ask(url)

    assert answer == ProbeAnswer(200, bomb[:BODY_BYTES_MAX])


@pytest.mark.parametrize(
    ("said", "status"),
    [(b"", None), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst", 200), (b"HTTP/1.1 200 OK\r\nX-Slow: ", None)],
    ids=["silence", "half a body", "half a header"],
)
async def test_who_takes_too_long_is_not_waited_for(said: bytes, status: int | None) -> None:
    probe = HttpUrlProbe(timeout_seconds=0.2)
    async with talking(said, hold=True) as url:
        began = time.monotonic()
        answer = await probe.ask(url)
        seconds = time.monotonic() - began
    await probe.close()

    assert answer.status == status
    assert (answer.why == "nothing within 0.2 s") is (status is None)
    assert seconds < 3


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"", None),
        (b"220 mail.example.com ESMTP\r\n", None),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst", 200),
    ],
    ids=["nothing", "another protocol", "too many headers", "half a body"],
)
async def test_what_is_no_answer_is_none_and_never_raises(probe: HttpUrlProbe, said: bytes, status: int | None) -> None:
    async with talking(said) as url:
        answer = await probe.ask(url)

    assert answer.status == status
    assert (answer.why is not None) is (status is None)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/hook",
        "http://nobody.invalid/hook",
        "https://127.0.0.1:{port}/hook",
        "http://user:word@127.0.0.1:{port}/hook",
        "http:///hook",
        "http://127.0.0.1:99999/hook",
        "http://[::1",
        "http://" + "a" * 300 + ".example/",
        "ftp://127.0.0.1/hook",
        "no URL",
        "",
    ],
)
async def test_a_url_that_nobody_answers_at_is_told_without_what_it_says(probe: HttpUrlProbe, url: str) -> None:
    answer = await probe.ask(url.format(port=free_port()))

    assert answer.status is None
    assert answer.why
    assert "word" not in answer.why
    assert "hook" not in answer.why


async def test_a_server_without_tls_is_told(probe: HttpUrlProbe) -> None:
    async with server(_never) as plain:
        answer = await probe.ask(plain.replace("http:", "https:"))

    assert answer == ProbeAnswer(None, why="no TLS")


@pytest.mark.parametrize(
    ("valid_days", "why"), [(30, None), (-1, "its certificate is refused: certificate has expired")]
)
async def test_a_servers_certificate_is_told_by_its_end(tmp_path: Path, valid_days: int, why: str | None) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=valid_days)
    file = make_certificate(tmp_path / "server.pem", ends=ends)
    probe = HttpUrlProbe(tls=trusting(file))
    try:
        async with server(_hello, tls=serving_with(file)) as url:
            answer = await probe.ask(url)
    finally:
        await probe.close()

    assert (answer.status, answer.why) == ((200, None) if why is None else (None, why))
    assert answer.certificate_ends == ends


async def test_a_certificate_that_nobody_vouches_for_is_told_all_the_same(
    tmp_path: Path, probe: HttpUrlProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    file = make_certificate(tmp_path / "server.pem", ends=ends)
    asked: list[str] = []

    async def asks(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    def reads_files(*_: object) -> None:
        raise AssertionError("the system's authorities are read, while deliveries wait")

    async with server(asks, tls=serving_with(file)) as url:
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", reads_files)
        answer = await probe.ask(url)

    assert (answer.status, answer.certificate_ends) == (None, ends)
    assert answer.why is not None
    assert answer.why.startswith("its certificate is refused")
    assert asked == []


async def test_without_tls_there_is_no_certificate(probe: HttpUrlProbe) -> None:
    async with server(_hello) as url:
        assert (await probe.ask(url)).certificate_ends is None


async def _hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _never(_: web.Request) -> web.Response:
    raise AssertionError("nobody speaks HTTP with it")
