"""The dashboards against what they are for: real processes that had good and bad things happen, in a real Prometheus.

Every query of every panel has data. What says that nothing has happened says so with a 0, not with an empty panel.
"""

import asyncio
import json
import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
import orjson
import pytest
from rich.console import Console

from service.events import Secret
from service.local.kafka import LocalKafka
from service.local.postgres import LocalPostgres
from service.local.redis import LocalRedis
from service.signature import sign
from service.simulator.events import sample
from service.simulator.objects import Object
from service.simulator.playing import play_shop
from tests.alerting.faults import garbage
from tests.alerting.front import Front
from tests.alerting.world import EVENTS, RECEIVER, Servers, World, world
from tests.deploy.image import stages
from tests.support.dashboards import Target, targets
from tests.support.deployment import TEST_SECRET
from tests.support.waiting import eventually

WRONG_SECRET: Final = Secret("whsec_of_another_endpoint")
TOKEN: Final = "an-operator-signs-in-with-this"
ALL_PANELS_SECONDS_MAX: Final = 90.0
SHOWN_SECONDS: Final = 120.0
"""The time range that the panels are asked for."""
PROVOKED: Final = frozenset(
    {
        "Signature failures a second, by reason",
        "Quarantined, by reason",
        "Quarantined by receivers, by reason",
        "Quarantined",
        "Dead letters, by reason",
        "Dead letters",
        "Unlisted event types",
        "Missed events, by type",
        "Missed",
        "Problems at Stripe",
        "Configuration read again",
        "Looks at the endpoints, by outcome",
        "Runs, by outcome",
        "Deliveries verified, by secret",
        "Certificates",
    }
)
"""Panels that must show it: a 0 would be wrong."""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def there(
    kafka: LocalKafka, migrated_postgres: LocalPostgres, redis: LocalRedis, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[World]:
    """A deployment whose endpoint Stripe reaches by TLS, and by that never gets through: what stands there refuses."""

    async def behind_a_front(made: World) -> None:
        front = await Front.opened(made.exits, made.folder)
        made.public_url = f"{front.url}/webhooks/shop"

    async with world(
        tmp_path,
        Servers(kafka, migrated_postgres, redis),
        topic_prefix,
        settings={"STRIPE_INGEST__ADMIN__TOKEN": TOKEN},
        prepare=behind_a_front,
        until_quiet=False,
    ) as made:
        yield made


async def deliver(there: World, body: bytes, secret: Secret = TEST_SECRET, *, signed_seconds_ago: int = 0) -> int:
    headers = {"Stripe-Signature": sign(body, secret, int(time.time()) - signed_seconds_ago)}
    async with aiohttp.ClientSession() as session, session.post(there.url, data=body, headers=headers) as response:
        await response.read()
        return response.status


def event(event_type: str = "payment_intent.succeeded", *, livemode: bool = False) -> Object:
    return sample(event_type, seed=time.time_ns(), created=int(time.time()), livemode=livemode)


async def good_and_bad(there: World) -> None:
    """One of each thing that a panel is about."""
    endpoint = there.config.webhook_endpoints()[0]
    console = Console(quiet=True)
    report = await play_shop(there.url, endpoint, seed=7, now=datetime.now(UTC), concurrency=4, console=console)
    assert report.delivered == report.deliveries

    body = orjson.dumps(event())
    assert await deliver(there, body, WRONG_SECRET) == 400
    assert await deliver(there, body, signed_seconds_ago=3600) == 400
    assert await deliver(there, body) == 200
    assert await deliver(there, body) == 200, "a duplicate"
    assert await deliver(there, orjson.dumps(event(livemode=True))) == 200, "into quarantine"
    assert await deliver(there, orjson.dumps(event() | {"type": "payment_intent.invented"})) == 200, "an unlisted type"
    await garbage(there, 1)
    there.fake.add(event(EVENTS[0]))  # nobody will have received it: reconciliation finds it
    there.signal(RECEIVER, signal.SIGHUP)
    admin = f"http://127.0.0.1:{there.admin[RECEIVER]}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{admin}/api/session", json={"token": "wrong"}) as said,
    ):
        assert said.status == 401


async def values(there: World, target: Target) -> Sequence[float]:
    """The numbers that a panel would show for the query."""
    now = time.time()
    if target.instant:
        found = [one.value for one in await there.prometheus.instant(target.query)]
    else:
        shown = await there.prometheus.range(target.query, start=now - SHOWN_SECONDS, end=now, step_seconds=2)
        found = [value for series in shown for _, value in series.points]
    return [value for value in found if math.isfinite(value)]


async def has_data(there: World, target: Target) -> bool:
    """Whether the panel shows something: what was provoked, or at least a number."""
    found = await values(there, target)
    return any(value > 0 for value in found) if target.panel in PROVOKED else bool(found)


async def test_every_query_of_every_panel_has_data(there: World) -> None:
    began = time.time()
    await good_and_bad(there)
    waiting: Sequence[Target] = targets()
    assert waiting

    async def all_have() -> bool:
        nonlocal waiting
        waiting = [target for target in waiting if not await has_data(there, target)]
        return not waiting

    try:
        await eventually(all_have, timeout_seconds=ALL_PANELS_SECONDS_MAX, what="every panel has data")
    except AssertionError:
        assert not waiting, "\n".join(f"{target}: {target.query}" for target in waiting)
    for target in targets():
        if target.exemplars:
            shown = await there.prometheus.exemplars(target.query, start=began, end=time.time())
            assert all("trace_id" in exemplar.labels for exemplar in shown), target
            assert shown, target
    assert await there.prometheus.broken_rules() == {}
    assert await healthy(there.admin[RECEIVER])
    await there.kill(RECEIVER)
    assert not await healthy(there.admin[RECEIVER])


async def healthy(port: int) -> bool:
    """What the image's health check says of a process whose admin side is on that port."""
    *_, image = stages()
    (check,) = (instruction.arguments for instruction in image if instruction.name == "HEALTHCHECK")
    _, flag, program = json.loads(check.partition("CMD ")[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable, flag, program.replace(":9090/", f":{port}/"), stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(30):
        return await process.wait() == 0
