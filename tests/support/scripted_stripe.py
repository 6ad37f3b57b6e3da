"""A server that answers what a test tells it to: what the fake Stripe would not say."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import format_datetime
from typing import TypeAlias
from urllib.parse import parse_qsl

from aiohttp import web

from tests.support.signing import NOW

Answer: TypeAlias = Callable[[], web.Response]


@dataclass(frozen=True)
class Asked:
    """A request that came: its path as it was sent, and the parameters of its query or its form."""

    method: str
    path: str
    headers: Mapping[str, str]
    params: Mapping[str, str]


@dataclass(frozen=True)
class Scripted:
    """Where the server is, and what it was asked."""

    base: str
    asked: list[Asked]


@asynccontextmanager
async def scripted(*answers: Answer) -> AsyncIterator[Scripted]:
    """Serve the answers in turn, the last one for ever."""
    asked: list[Asked] = []

    async def answer(request: web.Request) -> web.Response:
        given = answers[min(len(asked), len(answers) - 1)]
        encoded = await request.text() if request.method == "POST" else request.query_string
        params = dict(parse_qsl(encoded, keep_blank_values=True))
        path = request.raw_path.partition("?")[0]
        asked.append(Asked(request.method, path, request.headers.copy(), params))
        return given()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Scripted(f"http://127.0.0.1:{runner.addresses[0][1]}", asked)
    finally:
        await runner.cleanup()


def says(status: int, body: object, **headers: str) -> Answer:
    """An answer of Stripe's with this JSON."""
    dated = {"Date": format_datetime(NOW, usegmt=True)} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    text = json.dumps(body)
    return lambda: web.Response(status=status, text=text, headers=dated, content_type="application/json")


def refuses(status: int, message: str, *, code: str | None = None, **headers: str) -> Answer:
    """A refusal of Stripe's in these words."""
    error = {"type": "invalid_request_error", "message": message} | ({"code": code} if code else {})
    return says(status, {"error": error}, **headers)
