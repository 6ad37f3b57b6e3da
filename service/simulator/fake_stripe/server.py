"""The fake Stripe on HTTP: who asks, what goes wrong, what is answered, and the headers around it."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final, TypeAlias

import orjson
from aiohttp import web

from service.simulator.fake_stripe.api import OPERATIONS, Call, Operation
from service.simulator.fake_stripe.fake import Book, FakeStripe, Request
from service.simulator.fake_stripe.forms import decode
from service.simulator.fake_stripe.keys import Key
from service.simulator.fake_stripe.refusals import Refusal, unrecognized_url
from service.simulator.fake_stripe.trouble import Failing, Held, Lost, RateLimited, Slow
from service.simulator.objects import API_VERSION

BODY_BYTES_MAX: Final = 256 * 1024
IDEMPOTENCY_KEYS_MAX: Final = 10_000
HELD_SECONDS_MAX: Final = 600.0
CANCEL_SECONDS: Final = 0.5
_JSON: Final = "application/json"

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, but for the headers that every answer has."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def refusing(cls, refusal: Refusal) -> "Answer":
        """The answer of a refusal."""
        return cls(refusal.status, orjson.dumps(refusal.body(), option=orjson.OPT_INDENT_2), refusal.headers)


@asynccontextmanager
async def serving(fake: FakeStripe, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve it, and deliver its events, until the end of the block; gives the URL. Port 0 is a free one."""
    runner = web.AppRunner(build_app(fake), access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    delivering = asyncio.create_task(fake.deliveries.run())
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
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


class _Server:
    def __init__(self, fake: FakeStripe) -> None:
        self._fake = fake
        self._replies: OrderedDict[tuple[str, bool, str], tuple[bytes, Answer]] = OrderedDict()

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
        if isinstance(trouble, Slow):
            await asyncio.sleep(trouble.seconds)
        if isinstance(trouble, Held):
            trouble.reached.set()
            async with asyncio.timeout(HELD_SECONDS_MAX):
                await trouble.release.wait()
        if trouble is Lost.BEFORE:
            return _broken(request)
        if isinstance(trouble, RateLimited | Failing):
            return self._response(request, Answer.refusing(self._fake.trouble.refusal(trouble)))
        answer = self._answer(request, body, operation)
        if trouble is Lost.AFTER:
            return _broken(request)
        response = self._response(request, answer)
        if trouble is Lost.WITHIN:
            return await _broken_within(request, response)
        return response

    def _answer(self, request: web.Request, body: bytes, operation: Operation | None) -> Answer:
        """What Stripe would answer. There is no `await` in it: each request is done at once, or not at all."""
        try:
            key = self._fake.keys.of(request.headers.get("Authorization"))
            self._fake.trouble.pass_through((key.account, key.livemode), self._fake.clock.monotonic())
            book = self._book(key, request.headers.get("Stripe-Account"))
            if operation is None:
                raise unrecognized_url(request.method, request.path)
            key.require(operation.permission)
            idempotency_key = request.headers.get("Idempotency-Key")
            if request.method != "POST" or idempotency_key is None:
                return self._done(request, body, operation, book)
            return self._done_once(request, body, operation, book, idempotency_key)
        except Refusal as refusal:
            return Answer.refusing(refusal)

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

    def _done(self, request: web.Request, body: bytes, operation: Operation, book: Book) -> Answer:
        try:
            encoded = request.query_string if request.method == "GET" else body.decode()
        except UnicodeDecodeError:
            raise Refusal(400, "Invalid request: the body is not UTF-8.") from None
        call = Call(self._fake, book, request.path, request.match_info.get("id", ""), decode(encoded))
        return Answer(200, orjson.dumps(operation.run(call), option=orjson.OPT_INDENT_2), {})

    def _done_once(
        self, request: web.Request, body: bytes, operation: Operation, book: Book, idempotency_key: str
    ) -> Answer:
        """Do it, unless a request with this key has been done: then its answer once more."""
        known = (book.account, book.livemode, idempotency_key)
        what = hashlib.sha256(b"%b %b" % (request.path.encode(), body)).digest()
        if known in self._replies:
            did, answer = self._replies[known]
            if did != what:
                raise Refusal(
                    400,
                    "Keys for idempotent requests can only be used with the same parameters they were first used with."
                    f" Try using a key other than '{idempotency_key}' if you meant to execute a different request.",
                    kind="idempotency_error",
                )
            return Answer(answer.status, answer.body, {**answer.headers, "Idempotent-Replayed": "true"})
        answer = self._done(request, body, operation, book)
        # What was refused did nothing, and may be asked again with the same key.
        self._replies[known] = (what, answer)
        if len(self._replies) > IDEMPOTENCY_KEYS_MAX:
            self._replies.popitem(last=False)
        return answer

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
