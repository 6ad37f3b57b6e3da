"""The operator's page in a browser, against a server with chosen answers: states that a real one is seldom in."""

import re
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from service.errors import DeliveryRefused, IngestError, PublishRefused, Unavailable
from service.money import CURRENCIES, format_minor
from tests.support.browser import DESKTOP, PHONE, WAIT_MS, barriers, browser, complaints, overflows, page_in
from tests.support.fake_page import HOSTILE, NOW, FakePage, arrival, parked, shop_page
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

EVENT: Final = "evt_1QF08940Hc2vRtWpYx"
PAYMENT: Final = "pi_3QF00007Hc2vRtWpYx"
CUSTOMER: Final = "cus_R9aXb2LkQm41Zt"

VIEWS: Final = {
    "live": ("#/", ".charts .area"),
    "events": ("#/events", "tbody tr"),
    "event": (f"#/event/{EVENT}", ".way li"),
    "unknown event": ("#/event/evt_nobody", ".state-title"),
    "object": (f"#/object/{PAYMENT}", ".timeline li"),
    "dead letters": ("#/dead-letters", "tbody tr"),
    "quarantine": ("#/quarantine", "tbody tr"),
    "not found": ("#/nowhere", ".state-title"),
}
"""Address, and what is there once it has loaded."""

WRITE_DOWN_PAUSES: Final = """() => {
  globalThis.pauses = [];
  let before = 0;
  new MutationObserver(() => {
    const left = Number(/Asked again in ([0-9]+) s/.exec(document.querySelector("#away").textContent)?.[1] ?? before);
    if (left > before) pauses.push(left);
    before = left;
  }).observe(document.querySelector("#away"), {childList: true, subtree: true, characterData: true});
}"""
"""How long the page says that it will wait, each time that it begins to: the seconds count down in between."""


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as launched:
        yield launched


@pytest.fixture
def fake() -> FakePage:
    return shop_page(token="correct horse battery staple")


@pytest.fixture
async def url(fake: FakePage) -> AsyncIterator[str]:
    async with fake.serving() as served:
        yield served


@pytest.fixture
async def page(chromium: Browser, url: str) -> AsyncIterator[Page]:
    """The page as it is opened; whatever the browser complains of fails the test."""
    async with page_in(chromium) as opened:
        with complaints(opened) as found:
            await opened.goto(url)
            yield opened
        assert found == []


def heading(page: Page) -> Locator:
    return page.locator("main h1")


async def sign_in(page: Page, token: str) -> None:
    await page.get_by_role("button", name="Sign in").first.click()
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("dialog").get_by_role("button", name="Sign in").click()


# Everybody can use it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_barrier_in_any_view(chromium: Browser, fake: FakePage, url: str, scheme: str) -> None:
    fake.arrivals = fake.arrivals[:12]  # fifty rows take axe ten seconds, and have no more to find
    found = {}
    # axe is put into the page as a script, which the page's own policy forbids.
    async with page_in(chromium, color_scheme=scheme, bypass_csp=True) as page:
        for size in (DESKTOP, PHONE):
            await page.set_viewport_size(size)
            for name, (address, there) in VIEWS.items():
                await page.goto("about:blank")
                await page.goto(f"{url}/{address}")
                await page.locator(there).first.wait_for()
                found[name, size["width"]] = await barriers(page)

    assert {view: what for view, what in found.items() if what} == {}


async def test_axe_finds_no_barrier_in_the_dialogs(chromium: Browser, fake: FakePage, url: str) -> None:
    async with page_in(chromium, bypass_csp=True) as page:
        await page.goto(f"{url}/#/dead-letters")
        await page.get_by_role("button", name="Sign in").first.click()
        assert await barriers(page) == []
        await page.get_by_label("Token").fill(str(fake.token))
        await page.keyboard.press("Enter")
        await page.get_by_label("Select all").check()
        await page.get_by_role("button", name="Replay …").click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        assert await barriers(page) == []


async def test_a_phone_needs_no_scrolling_sideways(chromium: Browser, url: str) -> None:
    found = {}
    async with page_in(chromium, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        for name, (address, there) in VIEWS.items():
            await page.goto("about:blank")
            await page.goto(f"{url}/{address}")
            await page.locator(there).first.wait_for()
            found[name] = await overflows(page)

    assert {view: what for view, what in found.items() if what} == {}


async def test_long_words_break_rather_than_push(chromium: Browser, fake: FakePage, url: str) -> None:
    long = "x" * 255
    fake.arrivals = [
        arrival(1, event_id=f"evt_{long}", event_type=long, object_id=f"pi_{long}", topic=long, endpoint="e" * 63)
    ]
    fake.parked["dead-letter"] = [parked(1, id=f"evt_{long}", detail=long, place=f"{long}/0/1", consumer_group=long)]
    async with page_in(chromium, viewport=PHONE) as page:
        for width in (360, 900, 1280):
            await page.set_viewport_size({"width": width, "height": 800})
            for address in ("#/events", "#/dead-letters", f"#/event/evt_{long}"):
                await page.goto(f"{url}/{address}")
                await page.locator("tbody tr, .state-title").first.wait_for()
                assert await overflows(page) == [], (width, address)


async def test_all_of_it_is_reached_by_the_keyboard(page: Page) -> None:
    await page.keyboard.press("Tab")
    await expect(page.locator("#skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    assert page.url.endswith("/")

    # A plot is read by the arrow keys.
    plot = page.get_by_role("slider", name=re.compile("^Deliveries"))
    await page.keyboard.press("Tab")
    await expect(plot).to_be_focused()
    await page.keyboard.press("Home")
    await expect(plot).to_have_attribute("aria-valuenow", "0")
    await expect(plot).to_have_attribute("aria-valuetext", re.compile(r"^\d\d:\d\d:\d\d, accepted [\d.]+, duplicate "))
    await page.keyboard.press("ArrowRight")
    await expect(plot).to_have_attribute("aria-valuenow", "1")

    await page.keyboard.press("/")
    await expect(page.locator("#q")).to_be_focused()
    await page.keyboard.type(EVENT)
    await page.keyboard.press("Enter")
    await expect(heading(page)).to_contain_text(EVENT)
    await expect(heading(page)).to_be_focused()

    # From the heading on, the first link of the event is its object.
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(heading(page)).to_contain_text(f"Payment {PAYMENT}")


async def test_a_slash_in_a_field_is_a_slash(page: Page) -> None:
    await page.goto(page.url + "#/dead-letters")
    await page.get_by_label("Event or key").fill("")
    await page.keyboard.type("stripe.payments/0/11")
    await expect(page.get_by_label("Event or key")).to_have_value("stripe.payments/0/11")


async def test_colours_follow_the_system_until_somebody_chooses(chromium: Browser, url: str) -> None:
    async def paper(page: Page) -> str:
        return str(await page.evaluate("getComputedStyle(document.body).backgroundColor"))

    async with page_in(chromium, color_scheme="light") as page:
        await page.goto(url)
        light = await paper(page)
        await page.emulate_media(color_scheme="dark")
        dark = await paper(page)
        assert light != dark
        await page.get_by_role("button", name="Light colours").click()
        assert await paper(page) == light
        await page.reload()
        await expect(page.get_by_role("button", name="Dark colours")).to_be_visible()
        assert await paper(page) == light


async def test_times_are_in_the_browsers_zone_and_utc_on_hover(page: Page) -> None:
    await page.goto(page.url + f"#/event/{EVENT}")
    created = page.locator(".way time").first
    await expect(created).to_have_text(re.compile("21 Nov 2026, 01:26:32"))
    await expect(created).to_have_attribute("title", "2026-11-21 00:26:32.800 UTC")


# Live ----------------------------------------------------------------------------------------------------------------


async def test_the_first_line_says_whether_it_is_fine(page: Page, fake: FakePage) -> None:
    line = page.get_by_role("region", name="Is it fine?")
    await expect(line).to_contain_text("Needs a look")
    await expect(line).to_contain_text("Deliveries are refused (signature mismatch, 1 in the last minute)")

    fake.live["outcomes"] = {"accepted": fake.live["outcomes"]["accepted"]}
    await expect(line).to_contain_text("All is well", timeout=WAIT_MS)
    await expect(line).to_contain_text("consumers caught up")

    fake.live |= {"ready": False, "problems": ["producer_down"]}
    # Its other partitions move, and what waits elsewhere has only just come.
    group = fake.consumers["groups"][0]
    group |= {"lag": 150, "overdue": 100}
    group["partitions"][2] |= {"lag": 120, "overdue": 100, "updated_at": fake.live["now"] - 200}
    group["partitions"][3] |= {"lag": 30}
    await expect(line).to_contain_text("Not fine")
    await expect(line).to_contain_text("Not ready: producer down")
    await expect(line).to_contain_text(
        "Consumer payments stands still at 1 partition: 120 records waiting, nothing applied for 3 min 20 s"
    )


async def test_all_is_not_well_where_nobody_complains(page: Page, fake: FakePage) -> None:
    """What an operator would be told by an alert, and has to see here too."""
    line = page.get_by_role("region", name="Is it fine?")
    fake.live["outcomes"] = {"accepted": fake.live["outcomes"]["accepted"]}
    await expect(line).to_contain_text("All is well", timeout=WAIT_MS)
    await expect(line).to_contain_text("last event 3 s ago")
    shop, group, now = fake.live["endpoints"][0], fake.consumers["groups"][1], fake.live["now"]

    # A record that has only just come to a partition that was quiet for hours is no standstill.
    group["partitions"][0] |= {"lag": 1, "updated_at": now - 9_000}
    group["lag"] = 1
    await expect(line).to_contain_text("1 record on the way to the tables")
    await expect(line).to_contain_text("All is well")

    fake.live["recent"] = {"bypassed": 3, "unlogged": 1}
    await expect(line).to_contain_text("3 deliveries of the last ten minutes were published unchecked")
    await expect(line).to_contain_text("1 arrival of the last ten minutes is not on the event log")

    shop |= {"health": "quiet", "last_event_at": now - 7_200, "clock_skew_seconds": -90.0}
    await expect(line).to_contain_text("Endpoint shop: no event for 2 h, which is longer than usual")
    await expect(line).to_contain_text("this machine's clock and Stripe's differ by 1 min 30 s")
    await expect(line).to_contain_text("Needs a look")

    fake.consumers["parked"] = {"dead-letter": 7, "quarantine": 1}
    await expect(line.get_by_role("link", name="7 dead letters in the last 24 hours")).to_be_visible()
    await expect(line.get_by_role("link", name="1 quarantined body in the last 24 hours")).to_be_visible()

    group["partitions"][0] |= {"lag": 90, "overdue": 80, "updated_at": now - 1}
    group |= {"lag": 90, "overdue": 80}
    await expect(line).to_contain_text("Consumer refunds is behind: 80 records waiting for more than a minute")

    group["partitions"][0] |= {"lag": 0, "overdue": 0, "problem": "offset_out_of_range"}
    await expect(line).to_contain_text(
        "Consumer refunds cannot go on at stripe.refunds/0: its stored offset is outside"
    )
    await expect(line).to_contain_text("Not fine")


async def test_figures_are_fresh_while_the_consumers_do_not_answer(page: Page, fake: FakePage) -> None:
    await expect(page.locator(".tile.accepted dd")).to_have_text("104,245")
    await page.route("**/api/consumers", lambda _: None)  # never answered
    fake.live["totals"]["accepted"] = 104_300
    await expect(page.locator(".tile.accepted dd")).to_have_text("104,300", timeout=WAIT_MS)
    await page.unroute_all(behavior="ignoreErrors")
    await page.route("**/api/consumers", lambda _: None)
    await page.reload()
    await expect(page.get_by_role("region", name="Is it fine?")).to_contain_text(
        "How far the consumers are is not known yet", timeout=WAIT_MS
    )
    await page.unroute_all(behavior="ignoreErrors")


async def test_figures_and_endpoints_are_shown(page: Page) -> None:
    await expect(page.locator(".tile.accepted dd")).to_have_text("104,245")
    shop = page.get_by_role("table", name="Endpoints").get_by_role("row").nth(1)
    await expect(shop).to_contain_text("3 s ago")
    await expect(shop).to_contain_text("104,233 verified")
    await expect(page.get_by_role("table", name="Endpoints").get_by_role("row").nth(2)).to_contain_text("quiet")
    # What is drawn is also told.
    deliveries = page.get_by_role("figure", name=re.compile("^Deliveries"))
    assert await deliveries.locator(".area.unavailable").count() == 2, "in the legend and in the plot"
    await deliveries.get_by_text("By the minute").click()
    await expect(deliveries.locator("tbody tr")).to_have_count(11)
    answer = page.get_by_role("slider", name=re.compile("^Time to answer"))
    await expect(answer).to_have_attribute("aria-valuetext", re.compile(r"p50 .* [\d.]+, p99 .* [\d.]+"))


async def test_what_is_shown_stays_while_the_server_is_away(chromium: Browser, fake: FakePage, url: str) -> None:
    async with page_in(chromium) as page:
        await page.clock.install(time=NOW)
        await page.goto(url)
        await expect(page.locator(".tile.accepted dd")).to_have_text("104,245")
        fake.down = True
        away = page.locator("#away")
        await page.evaluate(WRITE_DOWN_PAUSES)

        async def pauses() -> list[int]:
            await page.clock.run_for(5_000)
            found: list[int] = await page.evaluate("pauses")
            return found

        async def five_times() -> bool:
            return len(await pauses()) >= 5

        # It asks less and less often.
        await eventually(five_times, timeout_seconds=30, what="it has asked five times")
        assert (await pauses())[:5] == [4, 8, 16, 30, 30]
        await expect(away).to_contain_text("The server answers 502, since 04:1")
        await expect(away).to_contain_text("What is shown is as of 04:12:04.")
        await expect(page.locator(".tile.accepted dd")).to_have_text("104,245")
        fake.down = False
        fake.live["totals"]["accepted"] = 104_300
        await away.get_by_role("button", name="Ask now").click()
        await expect(away).to_be_hidden()
        await expect(page.locator(".tile.accepted dd")).to_have_text("104,300")
        await expect(page.locator("#said")).to_have_text("The server answers again.")


async def test_nothing_is_asked_while_nobody_looks(chromium: Browser, fake: FakePage, url: str) -> None:
    async with page_in(chromium) as page:
        await page.clock.install()
        await page.goto(url)
        await expect(page.locator(".tile.accepted dd")).to_have_text("104,245")
        await page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, value: true})")

        async def is_quiet() -> bool:
            count = len(fake.asked)
            await page.clock.run_for(5_000)
            return len(fake.asked) == count

        await eventually(is_quiet, what="the round that was under way is over")
        before = len(fake.asked)
        await page.clock.run_for(60_000)
        assert len(fake.asked) == before
        async with page.expect_response("**/api/live"):
            await page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")


# Events and objects --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "address", "title"),
    [
        (f"  {EVENT} ", f"#/event/{EVENT}", f"Event {EVENT}"),
        (f'"{PAYMENT}",', f"#/object/{PAYMENT}", f"Payment {PAYMENT}"),
        (CUSTOMER, f"#/object/{CUSTOMER}", f"Customer {CUSTOMER}"),
        ("somebody", "#/events?q=somebody", "Events with somebody"),
        ("", "#/events", "Events"),
    ],
)
async def test_the_search_box_leads_to_the_right_view(page: Page, typed: str, address: str, title: str) -> None:
    await page.locator("#q").fill(typed)
    await page.locator("#q").press("Enter")
    await expect(heading(page)).to_have_text(title)
    assert page.url.endswith(address)


async def test_events_are_read_page_by_page_and_found_again(page: Page) -> None:
    await page.get_by_role("link", name="Events").click()
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(50)
    await page.get_by_role("button", name="Load more").click()
    await expect(rows).to_have_count(100)
    await page.get_by_role("button", name="Load more").click()
    await expect(rows).to_have_count(120)
    await expect(page.get_by_text("That is all: 120 arrivals.")).to_be_visible()

    link = rows.nth(99).get_by_role("link").first
    await link.scroll_into_view_if_needed()
    at = await page.evaluate("scrollY")
    await link.click()
    await expect(heading(page)).to_contain_text("Object pi_")
    await page.go_back()
    await expect(rows).to_have_count(120)
    assert abs(await page.evaluate("scrollY") - at) < 5
    await page.go_forward()
    await expect(heading(page)).to_contain_text("Object pi_")
    await page.reload()
    await expect(heading(page)).to_contain_text("Object pi_")


async def test_every_outcome_has_its_word_and_its_sign(page: Page) -> None:
    await page.goto(page.url + "#/events")
    for outcome in ("accepted", "quarantined", "broker unavailable"):
        badge = page.locator(".badge", has_text=outcome).first
        await expect(badge.locator("svg")).to_be_visible()
    await expect(page.locator("tbody tr").nth(8)).to_contain_text("reconcile")


async def test_an_events_way_is_told_with_its_duplicate(page: Page) -> None:
    await page.goto(page.url + f"#/event/{EVENT}")
    steps = page.locator(".way > li")
    await expect(steps).to_have_count(6)
    for step, said in enumerate(
        (
            "Created at Stripe",
            "at shop, delivered by Stripe, 1.2 s after it was created",
            "with the secret 5f2c9a1e",
            "It is in Kafka",
            "stripe.payments/4/18270",
            "Applied by payments",
        )
    ):
        await expect(steps.nth(step)).to_contain_text(said)
    await expect(steps.nth(5)).to_contain_text("is succeeded")
    arrivals = page.get_by_role("table", name="Every arrival").get_by_role("row")
    await expect(arrivals.nth(1)).to_contain_text("duplicate of arrival 70")


async def test_amounts_are_in_their_currency_with_the_minor_units_beside(page: Page) -> None:
    await page.goto(page.url + f"#/object/{PAYMENT}")
    await expect(page.locator(".values div", has_text="amount_received_minor")).to_contain_text("12500 JPY (12500)")
    # In the currency of the balance, which is not known: never in the payment's.
    await expect(page.locator(".values div", has_text="fee_minor")).to_contain_text("341 minor units")
    change = page.locator(".changes > div", has_text="decline_code").last
    await expect(change).to_contain_text("insufficient_funds became → nothing")


async def test_what_a_dispute_took_is_in_no_currency_of_the_payments(page: Page, fake: FakePage) -> None:
    fake.objects[PAYMENT]["entries"][3] |= {
        "object_type": "dispute", "object_id": "dp_1QF", "no_op": False,
        "changes": [
            {"field": name, "from": None, "to": minor}
            for name, minor in (("amount_minor", 500), ("balance_change_minor", -412), ("balance_fee_minor", 1500))
        ],
    }  # fmt: skip
    await page.goto(page.url + f"#/object/{PAYMENT}")
    changes = page.locator(".timeline > li").last.locator(".changes > div")
    await expect(changes.nth(0)).to_contain_text("500 JPY (500)")
    await expect(changes.nth(1)).to_contain_text("-412 minor units")
    await expect(changes.nth(2)).to_contain_text("1500 minor units")


async def test_a_503_that_is_over_is_not_how_an_event_stands(page: Page, fake: FakePage) -> None:
    """The arrival that was accepted is not on the log, which is best effort."""
    again, _ = fake.events[EVENT]["arrivals"]
    refused = again | {"arrival_id": 60, "outcome": "broker_unavailable", "duplicate_of": None}
    fake.events[EVENT] |= {"arrivals": [refused, again | {"duplicate_of": None}], "effects": []}
    await page.goto(page.url + f"#/event/{EVENT}")
    await expect(page.locator(".way")).to_contain_text("It was published before")
    await expect(page.locator(".way > li").last).to_contain_text("Not applied")


async def test_the_pages_kinds_of_outcomes_are_the_services(page: Page) -> None:
    def below(kind: type[IngestError]) -> set[str]:
        return {kind.tag}.union(*(below(each) for each in kind.__subclasses__()))

    refused = below(DeliveryRefused) - {IngestError.tag}
    unavailable = below(Unavailable) | below(PublishRefused) | {IngestError.tag}
    kinds: dict[str, str] = await page.evaluate(
        "async (tags) => { const {kindOf} = await import('/static/words.js');"
        " return Object.fromEntries(tags.map((tag) => [tag, kindOf(tag)])); }",
        sorted(refused | unavailable),
    )
    assert kinds == {**dict.fromkeys(refused, "refused"), **dict.fromkeys(unavailable, "unavailable")}


async def test_the_pages_amounts_are_the_services(page: Page) -> None:
    cases = [
        (minor, code) for code in (*CURRENCIES, "eur", "USD") for minor in (0, 5, 99, 1234, -1, -100_050, 2**53 - 1)
    ]
    said = await page.evaluate(
        "async (cases) => { const {formatMinor} = await import('/static/money.js'); return cases.map((each) => formatMinor(...each)); }",
        cases,
    )
    assert said == [format_minor(minor, code) for minor, code in cases]


async def test_a_customer_is_shown_by_its_rows_and_arrivals(page: Page) -> None:
    await page.goto(page.url + f"#/object/{CUSTOMER}")
    await expect(page.locator(".related li")).to_have_count(2)
    await expect(page.get_by_role("table", name="Events").locator("tbody tr")).to_have_count(3)
    await page.get_by_role("link", name="its arrivals").click()
    await expect(heading(page)).to_have_text(f"Events with {CUSTOMER}")


async def test_an_object_of_several_accounts_is_asked_back(page: Page, fake: FakePage) -> None:
    fake.objects["in_1QF"] = {
        "choices": [{"account": "acct_a", "livemode": True}, {"account": "acct_b", "livemode": False}]
    }
    await page.goto(page.url + "#/object/in_1QF")
    async with page.expect_response("**/api/objects/in_1QF?account=acct_b&livemode=false"):
        await page.get_by_role("link", name="acct_b, test mode").click()
    assert page.url.endswith("#/object/in_1QF?account=acct_b&livemode=false")


async def test_nothing_of_a_hostile_text_is_run(page: Page, fake: FakePage) -> None:
    start = page.url
    fake.objects[HOSTILE] = fake.objects[PAYMENT]
    for address, shown in {
        "#/events": "tbody tr:nth-child(9) td.type",
        "#/dead-letters": "tbody tr:nth-child(3) .detail",
        f"#/object/{PAYMENT}": ".json",
        f"#/object/{quote(HOSTILE, safe='')}": "h1",
        f"#/events?q={quote(HOSTILE, safe='')}": "h1",
    }.items():
        await page.goto(start + address)
        await expect(page.locator(shown).first).to_contain_text("<script>document.title=")
        assert await page.locator("main img, main script").count() == 0
        assert "stripe-ingest" in await page.title()


# Parked records ------------------------------------------------------------------------------------------------------


async def test_dead_letters_are_replayed_after_a_question(page: Page, fake: FakePage) -> None:
    await page.goto(page.url + "#/dead-letters")
    await expect(page.get_by_role("button", name="Replay …")).to_have_count(0)
    await sign_in(page, "wrong")
    await expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    await page.get_by_label("Token").fill(str(fake.token))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Sign out")).to_be_visible()

    replay = page.get_by_role("button", name="Replay …")
    await expect(replay).to_be_disabled()
    rows = page.locator("tbody tr")
    await rows.nth(0).get_by_role("checkbox").check()
    await rows.nth(1).get_by_role("checkbox").check()
    await expect(page.get_by_text("2 of 3 selected")).to_be_visible()
    await page.get_by_role("button", name="Dry run").click()
    await expect(page.get_by_text("Dry run, nothing was changed: 2 would replay.")).to_be_visible()
    await expect(rows.nth(0)).to_contain_text("would replay")

    await replay.click()
    question = page.get_by_role("dialog")
    await expect(question).to_contain_text("Replay 2 dead letters?")
    await expect(question).to_contain_text("1 for stripe.payments")
    await expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(question).to_have_count(0)
    places = [each["place"] for each in fake.parked["dead-letter"][:2]]
    assert fake.replays == [("dead-letter", places, True)]

    await replay.click()
    await question.get_by_role("button", name="Replay 2").click()
    await expect(page.get_by_text("Replayed: 2 replayed.")).to_be_visible()
    assert fake.replays[1:] == [("dead-letter", places, False)]
    await expect(rows.nth(2)).not_to_contain_text("replayed")

    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("button", name="Sign in").first).to_be_visible()
    await expect(replay).to_have_count(0)


async def test_nothing_found_is_not_nothing_there(page: Page, fake: FakePage) -> None:
    fake.truncated = True
    await page.goto(page.url + "#/dead-letters")
    await expect(page.locator("main")).to_contain_text("not everything could be looked through")
    fake.parked["dead-letter"] = []
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator(".state-title")).to_have_text("Nothing was found in what could be looked through")


async def test_parked_records_are_looked_for_by_id_and_time(page: Page, fake: FakePage) -> None:
    await page.goto(page.url + "#/dead-letters")
    await expect(page.locator("tbody tr")).to_have_count(3)
    await page.get_by_label("Event or key").fill("evt_1QF00012Hc2vRtWpYx")
    await page.get_by_label("Parked in the").select_option("72")
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    assert page.url.endswith("#/dead-letters?id=evt_1QF00012Hc2vRtWpYx&hours=72")
    assert "/api/parked/dead-letter?since_hours=72&limit=100&id=evt_1QF00012Hc2vRtWpYx" in fake.asked
    await page.go_back()
    await expect(page.locator("tbody tr")).to_have_count(3)


async def test_without_a_token_it_is_said_how_to_have_one(chromium: Browser) -> None:
    fake = shop_page(token=None)
    async with fake.serving() as url, page_in(chromium) as page:
        await page.goto(f"{url}/#/dead-letters")
        await expect(page.locator("tbody tr")).to_have_count(3)
        await expect(page.locator("main")).to_contain_text('[admin]\ntoken_file = "/run/secrets/admin-token"')
        fake.data = False
        await page.goto(f"{url}/#/events")
        await expect(page.locator("main")).to_contain_text("Write a token of your own into a file")


async def test_who_may_not_read_is_asked_to_sign_in_and_reads_on(chromium: Browser) -> None:
    fake = shop_page(token="a token", data=False)
    async with fake.serving() as url, page_in(chromium) as page:
        await page.goto(f"{url}/#/event/{EVENT}")
        await expect(page.locator("main")).to_contain_text("sign in with the admin token first")
        await page.locator("main").get_by_role("button", name="Sign in").click()
        await page.get_by_label("Token").fill("a token")
        await page.keyboard.press("Enter")
        await expect(page.locator(".way > li")).to_have_count(6)


async def test_nothing_is_said_to_be_nothing(page: Page, fake: FakePage) -> None:
    fake.arrivals, fake.parked = [], {"dead-letter": [], "quarantine": []}
    for address, said in {
        "#/events": "No event has come yet",
        "#/events?q=cus_x": "Nothing came with this id",
        "#/event/evt_x": "No such event here",
        "#/object/pi_x": "No such object here",
        "#/dead-letters": "No dead letter",
        "#/quarantine": "Nothing in the quarantine",
        "#/%": "There is no such view",
    }.items():
        await page.evaluate("(address) => { location.hash = address; }", address)
        await expect(page.locator(".state-title")).to_have_text(said)
