"""The admin listener of every process: probes, metrics, and a receiver's page. Never on the public port."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.errors import ConfigurationError

Problems: TypeAlias = Callable[[], Sequence[str]]
"""Why this process is not ready; empty when it is."""

Part: TypeAlias = Callable[[web.Application], None]
"""Adds routes of its own, `/` among them, to an admin application."""

KEEPALIVE_SECONDS: Final = 30
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


async def serve_admin(app: web.Application, host: str, port: int) -> web.AppRunner:
    """Start the admin listener; `cleanup()` of the returned runner stops it. Raises `ConfigurationError`."""
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # inflating for strangers is an amplifier
        keepalive_timeout=KEEPALIVE_SECONDS,
        shutdown_timeout=1,
    )
    await runner.setup()
    try:
        await listen(web.TCPSite(runner, host, port), "admin")
    except ConfigurationError:
        await runner.cleanup()
        raise
    return runner


async def listen(site: web.TCPSite, section: str) -> None:
    """Start to listen. Raises `ConfigurationError` naming the section whose host and port cannot be had."""
    try:
        await site.start()
    except OSError as error:
        raise cannot_listen(section, error) from None


def cannot_listen(section: str, error: OSError) -> ConfigurationError:
    """What is said where the host and port of a section cannot be had."""
    return ConfigurationError(f"{section}.host, {section}.port: cannot listen there: {error.strerror}")


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
