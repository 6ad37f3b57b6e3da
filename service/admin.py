"""The admin listener of every process: probes, metrics, and a receiver's page. Never on the public port."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.errors import ConfigurationError

Problems: TypeAlias = Callable[[], Sequence[str]]
"""Why this process is not ready; empty when it is."""

Part: TypeAlias = Callable[[web.Application], None]
"""Adds routes of its own, `/` among them, to an admin application."""

KEEPALIVE_SECONDS: Final = 30
CONNECTIONS_MAX: Final = 64
"""One more takes the place of the oldest. Descriptors are the process's: whoever opened connections here without end
would keep Stripe's out; and whoever held all that a bound allows would keep the probes out, and have us restarted."""
BACKLOG: Final = 32
"""So many are accepted at once, before any of them is counted."""
PATHS: Final = ("/livez", "/readyz", "/metrics")


def build_admin(registry: CollectorRegistry, problems: Problems, part: Part | None = None) -> web.Application:
    """The admin application of a process. Without a part of its own, its `/` says what is there."""

    async def livez(_: web.Request) -> web.Response:
        # No dependency is asked: a restart mends none of them.
        return _json(200, {"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        found = problems()
        return _json(503, {"status": "not ready", "problems": found}) if found else _json(200, {"status": "ready"})

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def root(_: web.Request) -> web.Response:
        return _json(200, {"paths": PATHS})

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    if part is None:
        app.router.add_get("/", root)
    else:
        part(app)
    return app


class _Brief(logging.Filter):
    """Drops what aiohttp says of unreadable requests: a traceback each, with the stranger's own bytes."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_protocol_log: Final = logging.getLogger("service.admin.protocol")
_protocol_log.addFilter(_Brief())


async def serve_admin(app: web.Application, host: str, port: int) -> web.AppRunner:
    """Start the admin listener; `cleanup()` of the returned runner stops it. Raises `ConfigurationError`."""
    listening: list[asyncio.Server] = []

    async def stop_listening(_: web.Application) -> None:
        for each in listening:
            each.close()

    app.on_shutdown.append(stop_listening)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # inflating for strangers is an amplifier
        keepalive_timeout=KEEPALIVE_SECONDS,
        logger=_protocol_log,
        shutdown_timeout=1,
    )
    await runner.setup()
    loop = asyncio.get_running_loop()
    try:
        listening.append(await loop.create_server(_accepting(runner), host, port, backlog=BACKLOG))
    except OSError as error:
        await runner.cleanup()
        raise cannot_listen("admin", error) from None
    return runner


def _accepting(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    server = runner.server
    if server is None:
        raise RuntimeError("the runner is not set up")

    def accept() -> asyncio.Protocol:
        transports = [each.transport for each in server.connections if each.transport is not None]
        there = [each for each in transports if not each.is_closing()]
        for oldest in there[: max(0, len(there) + 1 - CONNECTIONS_MAX)]:
            # Not closed: that would wait for a peer that does not read.
            oldest.abort()
        return server()

    return accept


def cannot_listen(section: str, error: OSError) -> ConfigurationError:
    """What is said where the host and port of a section cannot be had."""
    return ConfigurationError(f"{section}.host, {section}.port: cannot listen there: {error.strerror}")


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
