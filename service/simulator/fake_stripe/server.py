"""The fake Stripe on HTTP: who asks, what goes wrong, what is answered, and the headers around it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final, TypeAlias

import orjson
from aiohttp import web

from service.simulator.fake_stripe.api import OPERATIONS, Call, Operation
from service.simulator.fake_stripe.fake import Book, FakeStripe, Request
from service.simulator.fake_stripe.forms import decode
from service.simulator.fake_stripe.idempotency import Answer, Asker, Idempotency
from service.simulator.fake_stripe.keys import Key
from service.simulator.fake_stripe.refusals import Refusal, unrecognized_url
from service.simulator.fake_stripe.trouble import Failing, Held, Kind, Lost, RateLimited, Slow
from service.simulator.objects import API_VERSION

BODY_BYTES_MAX: Final = 256 * 1024
HELD_SECONDS_MAX: Final = 600.0
CANCEL_SECONDS: Final = 0.5
_JSON: Final = "application/json"

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(fake: FakeStripe, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve it, and deliver its events, until the end of the block; gives the URL. Port 0 is a free one."""
    runner = web.AppRunner(build_app(fake), access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    delivering = asyncio.create_task(fake.deliveries.run())
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"
    finally:
        while not delivering.done():
            # Again and again: where a request's own time-out runs out at this moment, a cancellation may be lost to it.
            delivering.cancel()
            await asyncio.wait({delivering}, timeout=CANCEL_SECONDS)
        await runner.cleanup()
        if not delivering.cancelled():
            # It ends only when it is cancelled: what else ended it must not go unseen.
            delivering.result()


def build_app(fake: FakeStripe) -> web.Application:
    """The HTTP application."""
    server = _Server(fake)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    for operation in OPERATIONS:
        app.router.add_route(operation.method, operation.path, server.handler(operation))
    app.router.add_route("*", "/{anything:.*}", server.handler(None))
    return app


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A request whose key may do what it asks for; `asker` where it has an Idempotency-Key that counts."""

    operation: Operation
    book: Book
    asker: Asker | None


class _Server:
    def __init__(self, fake: FakeStripe) -> None:
        self._fake = fake

    def handler(self, operation: Operation | None) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            at = self._fake.clock.monotonic()
            status: int | None = None
            try:
                response = await self._respond(request, operation)
                if request.transport is not None and not request.transport.is_closing():
                    status = response.status
                return response
            finally:
                self._fake.record(Request(request.method, request.path, at, status))

        return handle

    async def _respond(self, request: web.Request, operation: Operation | None) -> web.StreamResponse:
        """What happens to a request, trouble and all."""
        body = await request.read()
        trouble = self._fake.trouble.take(request.method, request.path)
        if trouble is Lost.BEFORE:
            return _broken(request)
        if isinstance(trouble, RateLimited) or (isinstance(trouble, Failing) and not trouble.done):
            return self._response(request, _refusing(self._fake.trouble.refusal(trouble)))
        try:
            # Who asks is looked at when the request comes, and what is done when its time has come.
            admitted = self._admitted(request, operation)
            if isinstance(trouble, Slow | Held):
                await _delayed(trouble, admitted.asker, self._fake.idempotency)
            answer = self._answer(request, body, admitted, trouble)
        except Refusal as refusal:
            answer = _refusing(refusal)
        if trouble is Lost.AFTER:
            return _broken(request)
        response = self._response(request, answer)
        if trouble is Lost.WITHIN:
            return await _broken_within(request, response)
        return response

    def _admitted(self, request: web.Request, operation: Operation | None) -> _Admitted:
        """Who asks for what, by a key that may. Raises `Refusal`."""
        key = self._fake.keys.of(request.headers.get("Authorization"))
        self._fake.trouble.pass_through((key.account, key.livemode), self._fake.clock.monotonic())
        book = self._book(key, request.headers.get("Stripe-Account"))
        if operation is None:
            raise unrecognized_url(request.method, request.path)
        key.require(operation.permission)
        idempotency_key = request.headers.get("Idempotency-Key")
        if request.method != "POST" or idempotency_key is None:
            return _Admitted(operation, book, None)
        return _Admitted(operation, book, Asker(book.account, book.livemode, idempotency_key))

    def _answer(self, request: web.Request, body: bytes, admitted: _Admitted, trouble: Kind | None) -> Answer:
        """What Stripe answers. There is no `await` in it: each request is done at once, or not at all.

        Raises `Refusal` for what was refused before it was begun, which may be asked again with the same key.
        """

        def do() -> Answer:
            try:
                answer = self._done(request, body, admitted)
            except Refusal as refusal:
                if not refusal.begun:
                    raise
                return _refusing(refusal)
            return _refusing(self._fake.trouble.refusal(trouble)) if isinstance(trouble, Failing) else answer

        if admitted.asker is None:
            return do()
        asked = hashlib.sha256(b"%b %b" % (request.path.encode(), body)).digest()
        return self._fake.idempotency.once(admitted.asker, asked, self._fake.clock.monotonic(), do)

    def _book(self, key: Key, account: str | None) -> Book:
        if account in {None, key.account}:
            return self._fake.book(key.account, livemode=key.livemode)
        if key.account != self._fake.account or not self._fake.knows_account(str(account)):
            raise Refusal(
                403,
                f"The provided key does not have access to account '{account}' (or that account does not exist)."
                " Application access may have been revoked.",
                code="account_invalid",
            )
        return self._fake.book(str(account), livemode=key.livemode)

    def _done(self, request: web.Request, body: bytes, admitted: _Admitted) -> Answer:
        try:
            encoded = request.query_string if request.method == "GET" else body.decode()
        except UnicodeDecodeError:
            raise Refusal(400, "Invalid request: the body is not UTF-8.") from None
        call = Call(self._fake, admitted.book, request.path, request.match_info.get("id", ""), decode(encoded))
        return Answer(200, orjson.dumps(admitted.operation.run(call), option=orjson.OPT_INDENT_2), {})

    def _response(self, request: web.Request, answer: Answer) -> web.Response:
        headers = {
            "Date": formatdate(self._fake.clock.now().timestamp(), usegmt=True),
            "Request-Id": self._fake.ids.new("req"),
            "Stripe-Version": request.headers.get("Stripe-Version", API_VERSION),
            **answer.headers,
        }
        if "Idempotency-Key" in request.headers:
            headers["Idempotency-Key"] = request.headers["Idempotency-Key"]
        return web.Response(status=answer.status, body=answer.body, headers=headers, content_type=_JSON)


def _refusing(refusal: Refusal) -> Answer:
    return Answer(refusal.status, orjson.dumps(refusal.body(), option=orjson.OPT_INDENT_2), refusal.headers)


async def _delayed(trouble: Slow | Held, asker: Asker | None, idempotency: Idempotency) -> None:
    """Let the request wait. Raises `Refusal` where another with its Idempotency-Key waits already."""
    with nullcontext() if asker is None else idempotency.under_way(asker):
        if isinstance(trouble, Slow):
            await asyncio.sleep(trouble.seconds)
            return
        trouble.reached.set()
        async with asyncio.timeout(HELD_SECONDS_MAX):
            await trouble.release.wait()


def _broken(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _broken_within(request: web.Request, response: web.Response) -> web.StreamResponse:
    body = response.body if isinstance(response.body, bytes) else b""
    cut = web.StreamResponse(status=response.status, headers=response.headers)
    cut.content_length = len(body)
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return cut
