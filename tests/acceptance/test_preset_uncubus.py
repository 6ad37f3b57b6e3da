"""Uncubus: one standing path, payloads of 2020-08-27, a rolled secret, and an endpoint that is switched off and on."""

from itertools import count
from typing import Final

import pytest

from service.events import Secret
from service.simulator.events import render
from service.simulator.fake_stripe import FakeStripe, serving
from service.simulator.objects import Object
from service.simulator.stripe_sender import DeliveryResult, StripeSender
from tests.support.integrations import PUBLIC_URL, Installation, Installer, attempts, happened, object_id, registered
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)

PATH: Final = "/internal/create-payment"
TYPE: Final = "payment_intent.succeeded"
VERSION: Final = "2020-08-27"
PERMISSIONS: Final = {"event_read", "webhook_write"}


async def moved_in(installer: Installer, fake: FakeStripe, stripe_url: str) -> tuple[Installation, Object]:
    """The endpoint stands at Stripe; the preset is installed, and given its secret. Gives the endpoint."""
    here = await installer.install("uncubus", stripe_url, uncubus_key=fake.new_key("test", PERMISSIONS))
    fake.deliveries.reach(PUBLIC_URL, here.url)
    endpoint = fake.register(f"{PUBLIC_URL}{PATH}", [TYPE], mode="test", api_version=VERSION)
    here.give("uncubus", endpoint["secret"])
    return here, endpoint


def paid(seed: int) -> Object:
    """A payment as the API version of 2020 tells of it: with its charges, and their refunds, inside."""
    event = happened(TYPE, seed)
    intent = dict(event["data"]["object"])
    charge = {
        "id": intent.pop("latest_charge"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"],
        "amount_refunded": 0,
        "captured": True,
        "created": intent["created"],
        "currency": intent["currency"],
        "customer": intent["customer"],
        "paid": True,
        "payment_intent": intent["id"],
        "payment_method_details": {"card": {"brand": "visa", "last4": "4242"}, "type": "card"},
        "refunded": False,
        "refunds": {"object": "list", "data": [], "has_more": False, "total_count": 0, "url": "/v1/refunds"},
        "status": "succeeded",
    }
    charges = {"object": "list", "data": [charge], "has_more": False, "total_count": 1, "url": "/v1/charges"}
    return {**event, "api_version": VERSION, "data": {"object": {**intent, "charges": charges}}}


def charge_of(event: Object) -> Object:
    """The charge inside."""
    charge: Object = event["data"]["object"]["charges"]["data"][0]
    return charge


async def posted(here: Installation, event: Object, *secrets: str) -> DeliveryResult:
    """A delivery that these secrets sign."""
    async with StripeSender(f"{here.url}{PATH}", [Secret(secret) for secret in secrets]) as sender:
        return await sender.attempt(render(event))


async def test_payloads_of_2020_come_to_the_rows_of_today(installer: Installer) -> None:
    fake = FakeStripe()
    event = paid(1)
    async with serving(fake) as stripe_url:
        here, _ = await moved_in(installer, fake, stripe_url)
        async with here.receiving(), here.consuming():
            fake.add(event)
            await here.settled(fake)
        looked_after = await here.run("endpoints", "status")

        (record,) = await here.records("payments")
        payments = await here.rows("payments")

    assert (record["api_version"], record["endpoint"], record["livemode"]) == (VERSION, "uncubus", False)
    row = payments[object_id(event)]
    assert row["status"] == "succeeded"
    assert row["charge_id"] == charge_of(event)["id"]
    assert row["payment_method_type"] == "card"
    assert row["amount_received_minor"] == event["data"]["object"]["amount_received"]
    # Stripe has it as it is configured: URL, event and version.
    assert looked_after.code == 0, looked_after.said


async def test_the_test_webhook_is_a_row(installer: Installer) -> None:
    fake = FakeStripe()
    async with serving(fake) as stripe_url:
        here, _ = await moved_in(installer, fake, stripe_url)
        async with here.receiving(), here.consuming():
            sent = await here.done("send", TYPE, "--endpoint", "uncubus")
            await here.settled(fake)
        nobody_there = await here.run("send", TYPE, "--endpoint", "uncubus")

        (record,) = await here.records("payments")
        payments = await here.rows("payments")

    assert "200" in sent.out
    assert "accepted" in sent.out
    assert record["event_id"] in sent.out
    assert [row["status"] for row in payments.values()] == ["succeeded"]
    assert nobody_there.code == 1


async def test_a_rolled_secret_refuses_nothing_on_the_way_and_the_old_one_after_its_overlap(
    installer: Installer,
) -> None:
    fake = FakeStripe()
    seeds = count(1)
    async with serving(fake) as stripe_url:
        here, endpoint = await moved_in(installer, fake, stripe_url)
        old = endpoint["secret"]

        async def delivered() -> bool:
            """One more payment is delivered as Stripe signs it now."""
            event = paid(next(seeds))
            fake.add(event)
            await eventually(lambda: attempts(fake, event), what="it was delivered")
            return attempts(fake, event) == [200]

        async with here.receiving(), here.consuming():
            assert await delivered()
            # In the dashboard: Roll secret. From here on Stripe signs with both.
            new = fake.roll_secret(endpoint["id"])
            assert await delivered()
            await here.done("endpoints", "roll", "uncubus", "--rolled-secret", "-", given=new)
            assert len((await here.done("secrets", "list")).out.split("signing-secret")) == 3

            async def taken() -> bool:
                return (await posted(here, paid(next(seeds)), new)).status == 200

            await eventually(taken, timeout_seconds=30, what="the running receiver has taken the new one")
            assert await delivered()
            by_the_old_one = await posted(here, paid(next(seeds)), old)
            assert by_the_old_one.status == 200  # while they overlap

            fake.expire_old_secrets(endpoint["id"])
            assert await delivered()
            await here.done("endpoints", "roll", "uncubus", "--finish")

            async def refused() -> bool:
                return (await posted(here, paid(next(seeds)), old)).status == 400

            await eventually(refused, timeout_seconds=30, what="the old one is dropped")
            assert await delivered()
            await here.settled(fake)
        listed = await here.done("secrets", "list")

    assert listed.out.count("signing-secret") == 1
    # Of what Stripe delivered, all the way, nothing was refused.
    assert {attempt.status for attempt in fake.deliveries.attempts} == {200}


async def test_what_happens_while_the_endpoint_is_off_is_found_afterwards(installer: Installer) -> None:
    fake = FakeStripe()
    before, meanwhile, after = paid(1), paid(2), paid(3)
    async with serving(fake) as stripe_url:
        here, endpoint = await moved_in(installer, fake, stripe_url)
        async with here.receiving(), here.consuming():
            fake.add(before)
            await here.settled(fake)

            await here.done("endpoints", "disable", "uncubus")
            (at_stripe,) = registered(fake, mode="test")
            assert (at_stripe["id"], at_stripe["status"]) == (endpoint["id"], "disabled")
            switched_off = await here.run("endpoints", "status")
            fake.add(meanwhile)
            await here.done("endpoints", "enable", "uncubus")
            fake.add(after)
            await here.settled(fake)
            delivered = await here.rows("payments")

            found = await here.done("reconcile", "--since", "24h")
            await here.settled(fake)
            again = await here.done("reconcile", "--since", "24h", "--json")

        payments = await here.rows("payments")
        sources = {record["event_id"]: record["ingest_source"] for record in await here.records("payments")}

    assert switched_off.code == 1
    assert set(delivered) == {object_id(before), object_id(after)}
    assert attempts(fake, meanwhile) == []
    assert TYPE in found.out
    assert "missing" not in [line.split('"')[1] for line in again.out.splitlines()]
    assert set(payments) == {object_id(event) for event in (before, meanwhile, after)}
    assert sources == {before["id"]: "webhook", meanwhile["id"]: "reconcile", after["id"]: "webhook"}
