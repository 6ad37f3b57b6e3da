"""The operator's page in a browser, on a receiver with real Kafka and Postgres behind it, while a shop is played."""

import io
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect
from rich.console import Console

from service.events import ConsumedEvent, ConsumedRecord, InvalidRecord, PassedOver
from service.local.arrivals import until_caught_up
from service.records import decode_for
from service.signature import sign
from service.simulator.objects import Object
from service.simulator.playing import play_shop
from service.simulator.shop import STORY_SPAN, Story, deliveries, shop
from tests.support.browser import PHONE, barriers, browser, complaints, overflows, page_in
from tests.support.deployment import TEST_SECRET, Deployment
from tests.support.page import TOKEN, with_page

pytestmark = pytest.mark.timeout(300)

SEED = 7


@dataclass(frozen=True)
class Played:
    """A deployment at which a shop's life was delivered, and the story of it."""

    deployed: Deployment
    public_url: str
    story: Story
    arrived: list[Object]

    @property
    def url(self) -> str:
        """The page's."""
        return f"http://127.0.0.1:{self.deployed.config.admin.port}/"

    def event(self, event_type: str) -> Object:
        """The first event of a type."""
        return next(event for event in self.story.events if event["type"] == event_type)

    @property
    def twice(self) -> Object:
        """A payment's event that came more than once."""
        ids = [event["id"] for event in self.arrived]
        return next(
            event
            for event in self.arrived
            if ids.count(event["id"]) > 1 and event["type"].startswith("payment_intent.")
        )


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as launched:
        yield launched


@pytest.fixture
async def deployed_with_page(deployed: Deployment) -> Deployment:
    return with_page(deployed)


@asynccontextmanager
async def shop_played(deployed: Deployment) -> AsyncIterator[Played]:
    """A receiver that a shop's events have come to; nobody consumes."""
    endpoint = next(each for each in deployed.config.webhook_endpoints() if each.name == "test")
    now = datetime.now(UTC)
    story = shop(SEED, now - STORY_SPAN, livemode=False, account=None)
    async with deployed.receiving() as public_url:
        url = f"{public_url}{endpoint.path}"
        report = await play_shop(url, endpoint, seed=SEED, now=now, concurrency=4, console=Console(file=io.StringIO()))
        assert report.delivered == report.deliveries
        yield Played(deployed, public_url, story, deliveries(story, SEED))


async def caught_up(deployed: Deployment) -> None:
    config = deployed.config
    assert await until_caught_up(
        config.kafka.bootstrap_servers, config.database_url, deployed.topics, timeout_seconds=90
    )


async def sign_in(page: Page) -> None:
    await page.get_by_role("button", name="Sign in").first.click()
    await page.get_by_label("Token").fill(TOKEN)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Sign out")).to_be_visible()


async def look_for(page: Page, text: str) -> None:
    await page.keyboard.press("/")
    await page.locator("#q").fill(text)
    await page.keyboard.press("Enter")


async def test_a_shops_life_can_be_followed(
    deployed: Deployment, deployed_with_page: Deployment, chromium: Browser
) -> None:
    # Consumers have admin listeners too, each at a free port.
    async with shop_played(deployed_with_page) as played, deployed.consuming():
        await caught_up(deployed_with_page)
        async with page_in(chromium) as page:
            with complaints(page) as found:
                await page.goto(played.url)
                await sees_live_figures(page, played)
                await finds_an_events_way(page, played)
                await finds_a_payments_timeline(page, played)
                await finds_a_customer(page, played)
                await goes_back_and_forward(page, played)
            assert found == []
        await is_for_everybody(chromium, played)


async def sees_live_figures(page: Page, played: Played) -> None:
    await expect(page.locator(".tile.accepted dd")).to_have_text(str(len(played.story.events)), timeout=15_000)
    again = len(played.arrived) - len(played.story.events)
    await expect(page.locator(".tile.duplicate dd")).to_have_text(str(again))
    await expect(page.get_by_role("region", name="Is it fine?")).to_contain_text("All is well")
    await expect(page.get_by_role("region", name="Is it fine?")).to_contain_text("consumers caught up")
    endpoint = page.get_by_role("table", name="Endpoints").locator("tbody tr", has_text="/webhooks/test")
    await expect(endpoint).to_contain_text(re.compile(r"ago|just now"))
    await expect(endpoint).to_contain_text(f"{len(played.arrived)} verified")
    plot = page.get_by_role("figure", name=re.compile("^Deliveries"))
    await expect(plot.locator(".drawing .area.accepted")).to_have_count(1)
    await expect(page.get_by_role("table", name="Consumers").get_by_role("row")).to_have_count(5)


async def finds_an_events_way(page: Page, played: Played) -> None:
    event = played.twice
    await look_for(page, event["id"])
    way = page.locator(".way > li")
    await expect(way.filter(has_text="Verified")).to_contain_text(re.compile("with the secret [0-9a-f]+"))
    await expect(way.filter(has_text="Published to Kafka")).to_contain_text(
        re.compile(rf"{re.escape(played.deployed.topics.of('payment'))}/\d+/\d+")
    )
    applied = way.filter(has_text="Applied by payments")
    await expect(applied).to_contain_text(event["data"]["object"]["id"])
    arrivals = page.get_by_role("table", name="Every arrival").locator("tbody tr")
    assert await arrivals.count() >= 2
    await expect(arrivals.filter(has_text="duplicate").first).to_contain_text(re.compile(r"of arrival \d+"))
    await expect(arrivals.filter(has_text="accepted")).to_have_count(1)


async def finds_a_payments_timeline(page: Page, played: Played) -> None:
    refunded = played.event("charge.refunded")["data"]["object"]
    await look_for(page, refunded["id"])
    await expect(page.locator("h1")).to_have_text(f"Payment {refunded['id']}")
    row = played.story.expected["payments"][refunded["payment_intent"]]
    whole, cents = divmod(row["amount_refunded_minor"], 100)
    refunded_now = page.locator(".values > div").filter(has=page.get_by_text("amount_refunded_minor", exact=True))
    await expect(refunded_now).to_contain_text(f"{whole}.{cents:02} ")
    await expect(refunded_now).to_contain_text(f"({row['amount_refunded_minor']})")
    timeline = page.locator(".timeline > li")
    kinds = " ".join(await timeline.locator("h3").all_inner_texts())
    assert {"payment_intent.created", "charge.refunded"} <= set(re.findall(r"[a-z_]+(?:\.[a-z_]+)+", kinds))
    changed = page.locator(".changes > div").filter(has=page.get_by_text("status", exact=True))
    await expect(changed.filter(has_text="became").last).to_contain_text("succeeded")


async def finds_a_customer(page: Page, played: Played) -> None:
    customer = played.event("customer.subscription.created")["data"]["object"]["customer"]
    await look_for(page, customer)
    await expect(page.locator("h1")).to_have_text(f"Customer {customer}")
    await expect(page.locator(".related li").first).to_be_visible()
    await page.get_by_role("link", name="its arrivals").click()
    await expect(page.locator("h1")).to_have_text(f"Events with {customer}")
    await expect(page.locator("tbody tr").first).to_be_visible()


async def goes_back_and_forward(page: Page, played: Played) -> None:
    await page.get_by_role("link", name="Events", exact=True).click()
    await expect(page.locator("tbody tr")).to_have_count(50)
    newest = await page.locator("tbody tr").first.locator("td").nth(4).inner_text()
    assert newest in {event["id"] for event in played.arrived}
    await page.locator("tbody tr").first.locator("td").nth(4).get_by_role("link").click()
    await expect(page.locator("h1")).to_have_text(f"Event {newest}")
    await page.go_back()
    await expect(page.locator("h1")).to_have_text("Events")
    await expect(page.locator("tbody tr")).to_have_count(50)
    await page.go_forward()
    await expect(page.locator("h1")).to_have_text(f"Event {newest}")
    await page.reload()
    await expect(page.locator("h1")).to_have_text(f"Event {newest}")


async def is_for_everybody(chromium: Browser, played: Played) -> None:
    payment = played.event("payment_intent.succeeded")["data"]["object"]["id"]
    async with page_in(chromium, viewport=PHONE, color_scheme="dark", bypass_csp=True) as page:
        for address, there in {
            "#/": ".drawing .area",
            "#/events": "tbody tr",
            f"#/event/{played.twice['id']}": ".way > li",
            f"#/object/{payment}": ".timeline > li",
            "#/dead-letters": ".state-title",
        }.items():
            await page.goto(played.url + address)
            await page.locator(there).first.wait_for()
            assert await overflows(page) == [], address
            if address != "#/events":  # fifty rows take axe ten seconds, and are looked at elsewhere
                assert await barriers(page) == [], address


def refuses(event_type: str) -> Callable[..., ConsumedEvent | InvalidRecord | PassedOver]:
    """A consumer's bug."""

    def decoded(record: ConsumedRecord, *, consumer_group: str) -> ConsumedEvent | InvalidRecord | PassedOver:
        read = decode_for(record, consumer_group=consumer_group)
        if isinstance(read, ConsumedEvent) and read.event.event_type == event_type:
            return InvalidRecord(record, "schema_mismatch", "$.data")
        return read

    return decoded


async def test_a_dead_letter_is_seen_replayed_and_applied(
    deployed: Deployment, deployed_with_page: Deployment, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop_played(deployed_with_page) as played:
        planted = {event["id"] for event in played.story.events if event["type"] == "payment_intent.succeeded"}
        with monkeypatch.context() as bug:
            bug.setattr("service.bootstrap.consumer.decode_for", refuses("payment_intent.succeeded"))
            async with deployed.consuming():
                await caught_up(deployed)
        one = min(planted)
        async with page_in(chromium) as page:
            with complaints(page) as found:
                await page.goto(f"{played.url}#/event/{one}")
                await expect(page.locator(".way > li.pending")).to_contain_text("Not applied")
                await page.locator(".way > li.pending").get_by_role("link", name="Dead letters").click()
                await expect(page.locator("tbody tr")).to_have_count(1)
                await expect(page.locator("tbody tr")).to_contain_text("schema mismatch")
                await sign_in(page)
                await page.get_by_role("searchbox", name="Event or key").fill("")
                await page.get_by_role("button", name="Show").click()
                await expect(page.locator("tbody tr")).to_have_count(len(planted))

                await page.get_by_label("Select all").check()
                await page.get_by_role("button", name="Dry run").click()
                await expect(
                    page.get_by_text(f"Dry run, nothing was changed: {len(planted)} would replay.")
                ).to_be_visible()
                await page.get_by_role("button", name="Replay …").click()
                await page.get_by_role("dialog").get_by_role("button", name=f"Replay {len(planted)}").click()
                await expect(page.get_by_text(f"Replayed: {len(planted)} replayed.")).to_be_visible()
                async with deployed.consuming():
                    await caught_up(deployed)
                await look_for(page, one)
                await expect(page.locator(".way > li").last).to_contain_text("Applied by payments")
            assert found == []


async def test_a_quarantined_body_is_seen_and_replayed(deployed_with_page: Deployment, chromium: Browser) -> None:
    body = b'{"object": "event", "id": "<script>document.title=1</script>'
    async with deployed_with_page.receiving() as public_url, aiohttp.ClientSession() as stripe:
        headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(datetime.now(UTC).timestamp()))}
        async with stripe.post(f"{public_url}/webhooks/test", data=body, headers=headers) as answer:
            assert (await answer.json())["status"] == "quarantined"
        async with page_in(chromium) as page:
            with complaints(page) as found:
                await page.goto(f"http://127.0.0.1:{deployed_with_page.config.admin.port}/#/quarantine")
                await expect(page.locator("tbody tr")).to_have_count(1)
                await sign_in(page)
                await page.locator("tbody tr").get_by_role("checkbox").check()
                await page.get_by_role("button", name="Dry run").click()
                # Today's code is the one that could not read it.
                await expect(page.locator("tbody tr")).to_contain_text("unfit")
                await page.get_by_role("button", name="Sign out").click()
                await expect(page.get_by_role("button", name="Replay …")).to_have_count(0)
            assert found == []
