"""Ultimate Member: a sandbox and live mode side by side, registered by themselves, with prices that stay right."""

from typing import Final

import pytest

from service.simulator import changes
from service.simulator.events import snapshot_event
from service.simulator.fake_stripe import FakeStripe, serving
from service.simulator.objects import Object
from tests.support.fake_stripe import client_of
from tests.support.integrations import PUBLIC_URL, Installation, Installer, attempts, happened, object_id, registered
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)

LABELS: Final = {
    "customer_write": "Customers",
    "checkout_session_write": "Checkout Sessions",
    "customer_portal_write": "Customer portal",
    "plan_read": "Prices",
    "subscription_read": "Subscriptions",
    "webhook_write": "Webhook Endpoints, Event Destinations",
}
"""What each key may do → what Stripe's dashboard calls it."""
PERMISSIONS: Final = tuple(LABELS)
NAMES: Final = {"test": "ultimate-member-sandbox", "live": "ultimate-member-live"}


async def installed(installer: Installer, fake: FakeStripe, stripe_url: str) -> Installation:
    """With a key of each mode; nothing is registered yet."""
    here = await installer.install(
        "ultimate-member",
        stripe_url,
        ultimate_member_sandbox_key=fake.new_key("test", PERMISSIONS),
        ultimate_member_live_key=fake.new_key("live", PERMISSIONS),
    )
    fake.deliveries.reach(PUBLIC_URL, here.url)
    return here


def joined(seed: int, *, livemode: bool) -> list[Object]:
    """Somebody becomes a member: a customer, a paid session, a subscription."""
    kinds = ("customer.created", "checkout.session.completed", "charge.succeeded", "customer.subscription.created")
    return [happened(kind, seed + place, livemode=livemode) for place, kind in enumerate(kinds)]


async def test_one_command_registers_both_modes_and_members_join_in_each(installer: Installer) -> None:
    fake = FakeStripe()
    async with serving(fake) as stripe_url:
        here = await installed(installer, fake, stripe_url)
        planned = await here.run("endpoints", "plan")
        assert registered(fake, mode="test") == registered(fake, mode="live") == []
        await here.done("endpoints", "apply")
        made = {mode: registered(fake, mode=mode) for mode in NAMES}
        wrote = [request for request in fake.requests if request.method != "GET"]
        again = await here.done("endpoints", "apply")
        status = await here.done("endpoints", "status")

        in_sandbox, in_live = joined(10, livemode=False), joined(20, livemode=True)
        async with here.receiving(), here.consuming():
            fake.add_all(in_sandbox)
            fake.add_all(in_live)
            await here.settled(fake)

        subscriptions, payments = await here.rows("subscriptions"), await here.rows("payments")
        customers = await here.records("customers")

    for mode, name in NAMES.items():
        assert f"{PUBLIC_URL}/webhooks/{name}" in "".join(planned.out.split())
        (endpoint,) = made[mode]
        assert endpoint["url"] == f"{PUBLIC_URL}/webhooks/{name}"
        assert len(endpoint["enabled_events"]) == 17
        assert registered(fake, mode=mode) == made[mode]
        assert name in status.said
    # The second time it asked, and changed nothing.
    assert [request for request in fake.requests if request.method != "GET"] == wrote, again.said
    assert {name: row["livemode"] for name, row in subscriptions.items()} == {
        object_id(in_sandbox[-1]): False,
        object_id(in_live[-1]): True,
    }
    assert {row["livemode"] for row in payments.values()} == {False, True}
    assert {record["endpoint"]: record["livemode"] for record in customers} == {
        NAMES["test"]: False,
        NAMES["live"]: True,
    }


async def test_localhost_is_refused_before_stripe_is_asked(installer: Installer) -> None:
    fake = FakeStripe()
    async with serving(fake) as stripe_url:
        here = await installed(installer, fake, stripe_url)
        local = await here.run("endpoints", "apply", STRIPE_INGEST__RECEIVER__PUBLIC_URL="http://localhost:8080")
        plain = await here.run("endpoints", "apply", STRIPE_INGEST__RECEIVER__PUBLIC_URL="http://hooks.example.com")

    assert local.code == plain.code == 2
    assert "receiver.public_url: http://localhost:8080/webhooks/ultimate-member-sandbox" in local.said
    assert "on this machine" in local.said
    assert "stripe listen" in local.said
    # In a sandbox plain http is allowed: only the live one is refused.
    assert "webhooks/ultimate-member-live must begin with https://" in plain.said
    assert "sandbox" not in plain.said
    assert fake.requests == []


async def test_each_permission_that_is_missing_is_named(installer: Installer) -> None:
    fake = FakeStripe()
    said = {}
    async with serving(fake) as stripe_url:
        here = await installed(installer, fake, stripe_url)
        as_in_the_preset = {"STRIPE_INGEST__RECONCILE__INTERVAL_SECONDS": "900"}
        complete = await here.run("keys", "check", **as_in_the_preset)
        meant = await here.run("keys", "check")
        # Two in a run: the sandbox's key lacks one, and live mode's another.
        for of_sandbox, of_live in zip(PERMISSIONS[:3], PERMISSIONS[3:], strict=True):
            here.keep("ultimate-member-sandbox-key", fake.new_key("test", {*PERMISSIONS} - {of_sandbox}))
            here.keep("ultimate-member-live-key", fake.new_key("live", {*PERMISSIONS} - {of_live}))
            checked = await here.run("keys", "check")
            said[NAMES["test"], of_sandbox] = said[NAMES["live"], of_live] = checked
        here.keep("ultimate-member-sandbox-key", fake.new_key("test", PERMISSIONS[:-1]))
        not_registered = await here.run("endpoints", "apply")

    assert len(said) == 6
    for (name, missing), checked in said.items():
        what = f"{missing} ({LABELS[missing]} {missing.rpartition('_')[2].capitalize()})"
        wrong = [line for line in checked.err.splitlines() if f"endpoints ({name}).api_key: lacks " in line]
        assert checked.code == 1
        assert len(wrong) == 1
        assert f"lacks {what}: " in wrong[0]
    # Without Events: Read nobody looks for what Stripe fails to deliver; where that is meant, it is no fault.
    assert complete.code == 1
    lacking = [line for line in complete.err.splitlines() if "lacks" in line]
    assert len(lacking) == 2
    assert all("lacks event_read (Events Read): promise 5 is off" in line for line in lacking)
    assert meant.code == 0, meant.said
    assert not_registered.code == 1
    assert "webhook" in not_registered.said


def priced(fake: FakeStripe) -> tuple[Object, Object]:
    """A product and a price that were in the sandbox long before."""
    product = {**happened("product.updated", 1)["data"]["object"], "name": "Club"}
    price = {**happened("price.updated", 2)["data"]["object"], "product": product["id"], "nickname": "Monthly"}
    fake.put(product)
    fake.put(price)
    return product, price


def changed(event_type: str, obj: Object, number: int, created: int, **fields: object) -> Object:
    """The event of a change, and what was before."""
    after = {**obj, **fields}
    previous = changes.previous_attributes(obj, after) if event_type.endswith(".updated") else None
    return snapshot_event(
        event_type, after, event_id=f"evt_changed{number}", created=created, livemode=False, previous=previous
    )


async def test_prices_are_imported_and_kept_up_to_date_by_events(installer: Installer) -> None:
    fake = FakeStripe()
    product, price = priced(fake)
    async with serving(fake) as stripe_url:
        here = await installed(installer, fake, stripe_url)
        await here.done("endpoints", "apply")
        async with here.receiving(), here.consuming():
            # Prices: Read is enough for the prices, and the products' names need one permission more.
            refused = await here.run("backfill", "products", "prices", "--endpoint", NAMES["test"])
            await here.settled(fake)
            imported = await here.rows("prices")
            unnamed = await here.rows("products")
            here.keep("ultimate-member-sandbox-key", fake.new_key("test", [*PERMISSIONS, "product_read"]))
            await here.done("backfill", "products", "prices", "--endpoint", NAMES["test"])
            await here.settled(fake)
            named = await here.rows("products")

            # A day later.
            now = fake.now() + 86_400
            fake.add(changed("product.updated", product, 1, now, name="Club for two"))
            fake.add(changed("price.updated", price, 2, now, nickname="Monthly, for two"))
            await here.settled(fake)
            renamed_product, renamed_price = await here.rows("products"), await here.rows("prices")
            fake.add(changed("price.deleted", price, 3, now + 1, active=False))
            await here.settled(fake)
            prices = await here.rows("prices")

    assert refused.code == 1
    assert "product_read" in refused.said
    assert unnamed == {}
    assert imported[price["id"]]["unit_amount_minor"] == price["unit_amount"]
    assert imported[price["id"]]["nickname"] == "Monthly"
    assert named[product["id"]]["name"] == "Club"
    assert renamed_product[product["id"]]["name"] == "Club for two"
    assert renamed_price[price["id"]]["nickname"] == "Monthly, for two"
    assert (prices[price["id"]]["deleted"], prices[price["id"]]["active"]) == (True, False)


async def test_a_delivery_that_failed_comes_again_after_an_hour(installer: Installer) -> None:
    fake = FakeStripe(speed=1_200)  # an hour is three seconds
    member = happened("customer.subscription.created", 1)
    async with serving(fake) as stripe_url:
        here = await installed(installer, fake, stripe_url)
        await here.done("endpoints", "apply")
        # The service is away for an hour: Stripe tries at once, and ten minutes later.
        fake.add(member)
        await eventually(lambda: len(attempts(fake, member)) == 2, what="two attempts")
        fake.deliveries.pause()
        undelivered = await here.run("endpoints", "status")
        async with here.receiving(), here.consuming():
            fake.deliveries.resume()
            await here.settled(fake)

        subscriptions = await here.rows("subscriptions")

    assert attempts(fake, member) == [None, None, 200]
    assert set(subscriptions) == {object_id(member)}
    # Its key may not read events, so what is undelivered cannot be counted; that is said, and is no failure of its own.
    assert "event_read" in undelivered.said


async def test_resent_by_hand_it_counts_once(installer: Installer) -> None:
    fake = FakeStripe()
    member = happened("customer.subscription.created", 1, livemode=True)
    async with serving(fake) as stripe_url:
        here = await installed(installer, fake, stripe_url)
        await here.done("endpoints", "apply")
        (endpoint,) = registered(fake, mode="live")
        async with here.receiving(), here.consuming():
            fake.add(member)
            await here.settled(fake)
            # What `stripe events resend evt_… --webhook-endpoint=we_… --live` asks for.
            async with client_of(stripe_url, fake.new_key("live")) as client:
                await client.raw_request_async(
                    "post", f"/v1/events/{member['id']}/retry", webhook_endpoint=endpoint["id"]
                )
            await eventually(lambda: len(attempts(fake, member)) == 2, what="it was delivered again")
            await here.settled(fake)

        subscriptions, records = await here.rows("subscriptions"), await here.records("subscriptions")

    assert attempts(fake, member) == [200, 200]
    assert set(subscriptions) == {object_id(member)}
    assert len(records) == 1


async def test_disconnected_in_live_mode_the_sandbox_goes_on(installer: Installer) -> None:
    fake = FakeStripe()
    in_live, in_sandbox = happened("customer.created", 1, livemode=True), happened("customer.created", 2)
    later = happened("customer.created", 3, livemode=True)
    async with serving(fake) as stripe_url:
        here = await installed(installer, fake, stripe_url)
        await here.done("endpoints", "apply")
        async with here.receiving():
            await here.done("endpoints", "disable", NAMES["live"])
            fake.add_all([in_live, in_sandbox])
            await eventually(lambda: attempts(fake, in_sandbox) == [200], what="the sandbox goes on")
            status = await here.run("endpoints", "status")
            await here.done("endpoints", "enable", NAMES["live"])
            fake.add(later)
            await eventually(lambda: attempts(fake, later) == [200], what="live mode is connected again")

            # For good: the table goes, and its secrets with it.
            head, separator, live = here.file.read_text("utf-8").rpartition("\n[[endpoints]]")
            assert separator
            assert NAMES["live"] in live
            here.file.write_text(head, encoding="utf-8")
            await here.done("secrets", "remove", NAMES["live"], "everything")
        left = await here.done("secrets", "list", "--json")

    assert attempts(fake, in_live) == []
    assert status.code == 1
    assert NAMES["test"] in left.out
    assert NAMES["live"] not in left.out
