"""Takes the documentation's pictures of the operator's page: `python -m tests.page_screenshots [FOLDER]`.

Nothing in them is made up: Kafka, Postgres, a receiver and all consumers run, several shops are delivered for two
minutes, and a few records that no consumer can read are put onto a topic.
"""

import asyncio
import contextlib
import math
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from playwright.async_api import Browser, Page

from service.config import EndpointConfig
from service.local.arrivals import until_caught_up
from service.records import Topics
from service.simulator.events import render
from service.simulator.objects import Object
from service.simulator.shop import STORY_SPAN, deliveries, shop
from service.simulator.stripe_sender import StripeSender
from tests.support.browser import browser, page_in
from tests.support.deployment import LIVE_SECRET, TEST_SECRET, Deployment, deployment
from tests.support.page import with_page
from tests.support.stack import EMPTY_TEMPLATE, LocalKafka, LocalPostgres, database, running

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "screenshots"
BYTES_MAX: Final = 150_000
SHOPS: Final = range(11, 21)
SECONDS: Final = 120
ENDPOINTS: Final = (
    EndpointConfig(name="shop", mode="live", secrets=(LIVE_SECRET,)),
    EndpointConfig(name="sandbox", mode="test", secrets=(TEST_SECRET,)),
)
SIZES: Final[dict[str, dict[str, Any]]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}


async def main(folder: Path) -> None:
    """Take them all. Raises `ValueError` for one that is too large for a document."""
    async with running_shop() as (deployed, arrived), browser() as launched:
        url = f"http://127.0.0.1:{deployed.config.admin.port}"
        ids = [event["id"] for event in arrived]
        twice = next(
            event for event in arrived if event["type"].startswith("payment_intent.") and ids.count(event["id"]) > 1
        )
        refunded = next(event for event in arrived if event["type"] == "charge.refunded")
        views = {
            "live": ("#/", ".drawing .area"),
            "event": (f"#/event/{twice['id']}", ".way > li"),
            "timeline": (f"#/object/{refunded['data']['object']['payment_intent']}", ".timeline > li"),
            "dead-letters": ("#/dead-letters", "tbody tr"),
        }
        for size, options in SIZES.items():
            for scheme in ("light", "dark"):
                pictures = {folder / f"{name}-{size}-{scheme}.png": view for name, view in views.items()}
                await take(launched, url, pictures, {**options, "color_scheme": scheme})


async def take(
    launched: Browser, url: str, pictures: Mapping[Path, tuple[str, str]], options: Mapping[str, Any]
) -> None:
    """A picture of each view."""
    async with page_in(launched, timezone_id="UTC", **options) as page:
        for path, (address, there) in pictures.items():
            await opened(page, f"{url}/{address}", there)
            size = len(await page.screenshot(path=path))
            if size > BYTES_MAX:
                raise ValueError(f"{path} has {size} bytes")
            sys.stdout.write(f"{path.name}: {size} bytes\n")


async def opened(page: Page, url: str, there: str) -> None:
    """The view, once what it is about is shown. The history of the consumers' lag is the page's own: it gets a while."""
    await page.goto("about:blank")
    await page.goto(url)
    await page.locator(there).first.wait_for()
    if url.endswith("#/"):
        for _ in range(5):
            async with page.expect_response("**/api/consumers"):
                pass


@contextlib.asynccontextmanager
async def running_shop() -> AsyncIterator[tuple[Deployment, Sequence[Object]]]:
    """Everything runs, and shops go on being delivered inside the block; what had arrived at its beginning."""
    with TemporaryDirectory() as data:
        async with (
            running(LocalKafka(Path(data) / "kafka")) as kafka,
            running(LocalPostgres(Path(data) / "postgres")) as postgres,
            database(postgres, EMPTY_TEMPLATE) as database_url,
        ):
            deployed = await deployment(kafka.bootstrap_servers, database_url, "stripe", endpoints=ENDPOINTS)
            with_port = with_page(deployed)
            async with with_port.receiving() as url, deployed.consuming():
                await spoil(kafka.bootstrap_servers, deployed.topics)
                await caught_up(deployed)  # so that nothing else starts while deliveries are timed
                arriving = [
                    event
                    for seed in SHOPS
                    for event in deliveries(shop(seed, datetime.now(UTC) - STORY_SPAN, livemode=True), seed)
                ]
                arrived: list[Object] = []
                delivering = asyncio.create_task(deliver(url, arriving, arrived))
                await asyncio.wait((delivering,), timeout=SECONDS)
                yield with_port, arrived[: len(arrived) // 2]
                delivering.cancel()
                await asyncio.wait((delivering,))
                await caught_up(deployed)


async def caught_up(deployed: Deployment) -> None:
    """Wait until the consumers have read all that is there."""
    config = deployed.config
    await until_caught_up(config.kafka.bootstrap_servers, config.database_url, deployed.topics, timeout_seconds=60)


async def deliver(url: str, arriving: Sequence[Object], arrived: list[Object]) -> None:
    """Deliver them one by one, as busily as an evening goes: more, and less. `arrived` gets those that were."""
    async with StripeSender(f"{url}/webhooks/shop", [LIVE_SECRET]) as sender:
        for place, event in enumerate(arriving):
            await sender.deliver(render(event))
            arrived.append(event)
            await asyncio.sleep(0.22 + 0.18 * math.sin(place / 40))


async def spoil(bootstrap_servers: str, topics: Topics) -> None:
    """Records that no consumer can read: they become dead letters."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    await producer.start()
    try:
        for number, value in enumerate((b"{", b'{"schema_version": 1}', b"[]")):
            headers = [
                ("ce_id", f"evt_1QFspoiled{number:04d}Hc2vRt".encode()),
                ("ce_type", b"com.stripe.payment_intent.succeeded"),
                ("endpoint", b"shop"),
            ]
            await producer.send_and_wait(topics.of("payment"), value, key=b"pi_spoiled", headers=headers)
    finally:
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
