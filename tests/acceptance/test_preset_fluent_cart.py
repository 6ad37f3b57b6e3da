"""FluentCart: test and live credentials in an encrypted store, which the configuration file overrides."""

import signal
from datetime import UTC, datetime
from itertools import count
from typing import Final

import pytest

from service.simulator.fake_stripe import FakeStripe, serving
from service.simulator.objects import Object
from service.simulator.shop import STORY_SPAN, Story, shop
from tests.support.integrations import PUBLIC_URL, Installation, Installer, attempts, happened, object_id, registered
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)

CART: Final = {
    "checkout.session.completed", "charge.refunded", "charge.refund.updated", "charge.succeeded", "invoice.paid",
    "invoice.payment_failed", "customer.subscription.updated", "customer.subscription.deleted",
}  # fmt: skip
PERMISSIONS: Final = {"event_read", "webhook_write"}
NAMES: Final = {"test": "fluent-cart-test", "live": "fluent-cart-live"}


async def opened(installer: Installer, fake: FakeStripe, stripe_url: str) -> tuple[Installation, dict[str, str]]:
    """Both keys are given to the store; what both modes have at Stripe is made by `endpoints apply`."""
    here = await installer.install("fluent-cart", stripe_url)
    fake.deliveries.reach(PUBLIC_URL, here.url)
    keys = {name: fake.new_key("live" if mode == "live" else "test", PERMISSIONS) for mode, name in NAMES.items()}
    for name, key in keys.items():
        await here.done("secrets", "set", name, "api-key", given=key)
    await here.done("endpoints", "apply")
    return here, keys


def sold(seed: int, *, livemode: bool) -> tuple[Story, list[Object]]:
    """Four months of a shop, and those of its events that the cart's endpoints take."""
    story = shop(seed, datetime.now(UTC) - STORY_SPAN, livemode=livemode)
    return story, [event for event in story.events if event["type"] in CART]


async def test_both_modes_sell_side_by_side_and_refunds_and_subscriptions_are_in_tables(installer: Installer) -> None:
    fake = FakeStripe()
    async with serving(fake) as stripe_url:
        here, _ = await opened(installer, fake, stripe_url)
        checked = await here.done("config", "check")
        assert {f"{PUBLIC_URL}/webhooks/{name}" for name in NAMES.values()} <= set(checked.out.split())
        for mode, name in NAMES.items():
            (endpoint,) = registered(fake, mode=mode)
            assert endpoint["url"] == f"{PUBLIC_URL}/webhooks/{name}"
            assert set(endpoint["enabled_events"]) == CART

        shops = {False: sold(3, livemode=False), True: sold(4, livemode=True)}
        async with here.receiving(), here.consuming():
            for _, events in shops.values():
                fake.add_all(events)
            await here.settled(fake)

        refunds, subscriptions, payments = [await here.rows(t) for t in ("refunds", "subscriptions", "payments")]

    for livemode, (story, events) in shops.items():
        updated = {object_id(event) for event in events if event["type"] == "charge.refund.updated"}
        assert updated <= {name for name, row in refunds.items() if row["livemode"] is livemode}
        for table, found in (("refunds", refunds), ("subscriptions", subscriptions)):
            for name, facts in story.expected[table].items():
                if name in found:
                    assert {column: found[name][column] for column in facts} == facts
        assert {name for name, row in subscriptions.items() if row["livemode"] is livemode} == set(
            story.expected["subscriptions"]
        )
        refunded = {
            name: facts["amount_refunded_minor"]
            for name, facts in story.expected["payments"].items()
            if facts["amount_refunded_minor"]
        }
        assert {name: payments[name]["amount_refunded_minor"] for name in refunded} == refunded


async def test_the_store_shows_nothing_to_who_has_not_its_key(installer: Installer) -> None:
    fake = FakeStripe()
    async with serving(fake) as stripe_url:
        here, keys = await opened(installer, fake, stripe_url)
        listed = await here.done("secrets", "list")
        signing = [secret.value for endpoint in here.config.endpoints for secret in endpoint.secrets]
        kept = (here.folder / "secrets.json").read_text("utf-8")
        (here.folder / "store-key").rename(here.folder / "elsewhere")
        await here.done("secrets", "key", "--output", str(here.folder / "store-key"))
        with_another_key = await here.run("secrets", "list")

    assert len(signing) == 2
    for secret in (*keys.values(), *signing):
        assert secret not in kept
        assert secret not in listed.said
        assert secret not in with_another_key.said
    assert (here.folder / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert listed.out.count("api-key") == listed.out.count("signing-secret") == 2
    assert with_another_key.code == 2
    assert "was encrypted with the key" in with_another_key.said


async def test_what_the_file_says_wins_over_the_store_for_as_long_as_it_says_it(installer: Installer) -> None:
    fake = FakeStripe(speed=600)
    refunded, later = happened("charge.refunded", 1, livemode=True), happened("charge.refunded", 2, livemode=True)
    async with serving(fake) as stripe_url:
        here, _ = await opened(installer, fake, stripe_url)
        async with here.receiving() as receiver, here.consuming():
            fake.add(refunded)
            await eventually(lambda: attempts(fake, refunded), timeout_seconds=30, what="it was delivered")

            # Somebody puts another endpoint's secret into the file …
            live = here.file.read_text("utf-8").rpartition("[[endpoints]]")[2]
            here.edit(live, live.replace('# secrets = ["whsec_…"]', 'secrets = ["whsec_of_another_endpoint"]'))
            listed = await here.done("secrets", "list")
            receiver.send_signal(signal.SIGHUP)
            await refused_now(fake, later)
            # … and takes it out again: the store's is there still, and Stripe's next attempt gets through.
            here.edit('secrets = ["whsec_of_another_endpoint"]', '# secrets = ["whsec_…"]')
            receiver.send_signal(signal.SIGHUP)
            await here.settled(fake)

        payments = await here.rows("payments")
        name = "STRIPE_INGEST__ENDPOINTS__FLUENT_CART_LIVE__API_KEY"
        key = fake.new_key("live", {"webhook_write"})
        with_another_key = await here.run("reconcile", "--since", "1h", **{name: key})
        with_the_stores = await here.run("reconcile", "--since", "1h")

    assert "overridden" in listed.said
    assert attempts(fake, refunded) == [200]
    assert attempts(fake, later)[-1] == 200
    for event in (refunded, later):
        charge = event["data"]["object"]
        assert payments[charge["payment_intent"]]["amount_refunded_minor"] == charge["amount_refunded"]
    # An API key is overridden by a variable in the same way.
    assert with_another_key.code == 1
    assert "event_read" in with_another_key.said
    assert with_the_stores.code == 0, with_the_stores.said


async def refused_now(fake: FakeStripe, event: Object) -> None:
    """Once the receiver has read its file, the event is delivered, and refused."""
    seeds = count(100)

    async def refused() -> bool:
        probe = happened("charge.succeeded", next(seeds), livemode=True)
        fake.add(probe)
        await eventually(lambda: attempts(fake, probe), what="it was delivered")
        return attempts(fake, probe)[0] == 400

    await eventually(refused, timeout_seconds=30, what="the receiver has read its file")
    fake.add(event)
    await eventually(lambda: attempts(fake, event), what="it was delivered")
    assert attempts(fake, event)[0] == 400
