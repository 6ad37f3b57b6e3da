"""What receivers say of an endpoint's secrets at their metrics URLs, and what others say who answer there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from prometheus_client import generate_latest

from service.bootstrap.endpoints import METRICS_BYTES_MAX, ReceiverSecrets, metrics_urls, receiver_secrets
from service.config import AdminConfig, Config, ReceiverConfig
from service.telemetry.metrics import ReceiverMetrics, registry
from tests.support.waiting import free_port


@asynccontextmanager
async def answering(body: bytes, *, status: int = 200) -> AsyncIterator[str]:
    """An HTTP server that says this whatever it is asked."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status)

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()


def told() -> bytes:
    """By a receiver that verifies two endpoints, one of them with two secrets, and the other with none."""
    its = registry()
    metrics = ReceiverMetrics(its)
    for secret in ("new", "old"):
        metrics.active_secrets.labels("shop", secret).set(1)
    metrics.active_secrets.labels("other", "").set(0)
    metrics.secret_used.labels("shop", "old").inc(7)
    metrics.secret_used.labels("gone", "old").inc(9)
    return generate_latest(its)


async def test_each_receiver_says_which_secrets_it_verifies_with_and_has_verified_with() -> None:
    async with answering(told()) as one, answering(told()) as other:
        shop = await receiver_secrets([one, other], "shop")
        without = await receiver_secrets([one], "other")

    said = ReceiverSecrets(active=frozenset({"new", "old"}), verified={"old": 7})
    assert shop == {one: said, other: said}
    assert without == {one: ReceiverSecrets(frozenset(), {})}


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"x" * (METRICS_BYTES_MAX + 1), 200), (b"<html>{</html>", 200), (b"\xff\xfe", 200), (told(), 404)],
    ids=["endless", "a page", "no text", "not found"],
)
async def test_what_is_no_receivers_answer_is_none(body: bytes, status: int) -> None:
    async with answering(body, status=status) as url:
        assert await receiver_secrets([url], "shop") == {url: None}


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/", "http://"])
async def test_what_is_no_url_is_nobodys(url: str) -> None:
    silent = f"http://127.0.0.1:{free_port()}/metrics"

    assert await receiver_secrets([url, silent], "shop") == {url: None, silent: None}


def test_the_receivers_of_this_machine_tell_at_a_port_each() -> None:
    given = Config(admin=AdminConfig(host="0.0.0.0", port=9090), receiver=ReceiverConfig(workers=2))  # noqa: S104 -- read

    assert metrics_urls(given) == ["http://127.0.0.1:9090/metrics", "http://127.0.0.1:9091/metrics"]
    assert metrics_urls(Config(admin=AdminConfig(port=0))) == ()
    assert metrics_urls(Config(admin=AdminConfig(host="::1"))) == ["http://[::1]:9090/metrics"]
