"""Artha Job Board: four endpoints of one account, at the paths that stand at Stripe, each with a secret of its own."""

import json
from collections.abc import Mapping
from typing import Final

import pytest

from service.events import Secret
from service.simulator.events import render
from service.simulator.fake_stripe import FakeStripe, serving
from service.simulator.objects import Object
from service.simulator.stripe_sender import StripeSender
from tests.support.integrations import PUBLIC_URL, Installation, Installer, attempts, happened, object_id
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)

STANDING: Final[Mapping[str, tuple[str, str]]] = {
    "artha-payment-succeeded": ("/api/v1/webhook/subscription/payment-intent/succeded", "invoice.payment_succeeded"),
    "artha-payment-failed": ("/api/v1/webhook/subscription/payment-intent/failed", "invoice.payment_failed"),
    "artha-renewal-canceled": ("/api/v1/webhook/subscription/renewal/canceled", "customer.subscription.deleted"),
    "artha-verify": ("/webhook/stripe/verify", "checkout.session.completed"),
}
"""What is registered at Stripe today: endpoint → path and event."""
PERMISSIONS: Final = {"checkout_session_write", "payment_intent_write", "event_read"}


async def moved_in(
    installer: Installer, fake: FakeStripe, stripe_url: str
) -> tuple[Installation, Mapping[str, Secret]]:
    """The four endpoints stand at Stripe; the preset is installed, and given their four secrets."""
    here = await installer.install("artha-job-board", stripe_url, artha_key=fake.new_key("live", PERMISSIONS))
    fake.deliveries.reach(PUBLIC_URL, here.url)
    secrets: dict[str, Secret] = {}
    for name, (path, event_type) in STANDING.items():
        endpoint = fake.register(f"{PUBLIC_URL}{path}", [event_type], mode="live")
        secrets[name] = Secret(endpoint["secret"])
        here.give(name, endpoint["secret"])
    return here, secrets


def one_of_each() -> Mapping[str, Object]:
    """An event for each endpoint."""
    return {
        name: happened(event_type, seed, livemode=True) for seed, (name, (_, event_type)) in enumerate(STANDING.items())
    }


async def test_four_urls_as_they_stand_at_stripe_and_each_event_reaches_its_table(installer: Installer) -> None:
    fake = FakeStripe()
    async with serving(fake) as stripe_url:
        here, secrets = await moved_in(installer, fake, stripe_url)
        listed = await here.done("secrets", "list", "--json")
        events = one_of_each()
        async with here.receiving(), here.consuming():
            fake.add_all(events.values())
            await here.settled(fake)

        records = {record["event_id"]: record for record in await here.records("payments", "subscriptions")}
        invoices, subscriptions, payments = [await here.rows(t) for t in ("invoices", "subscriptions", "payments")]

    assert {kept["endpoint"] for kept in json.loads(listed.out) if kept["kind"] == "signing-secret"} == set(STANDING)
    assert not any(secret.value in listed.said for secret in secrets.values())
    # Each came by its own endpoint, at the first attempt.
    assert {name: records[event["id"]]["endpoint"] for name, event in events.items()} == {
        name: name for name in STANDING
    }
    assert [attempts(fake, event) for event in events.values()] == [[200]] * 4
    assert len(records) == 4

    assert invoices[object_id(events["artha-payment-succeeded"])]["status"] == "paid"
    failed = invoices[object_id(events["artha-payment-failed"])]
    assert (failed["status"], failed["amount_paid_minor"], failed["attempt_count"]) == ("open", 0, 1)
    assert subscriptions[object_id(events["artha-renewal-canceled"])]["status"] == "canceled"
    session = events["artha-verify"]["data"]["object"]
    assert payments[session["payment_intent"]]["checkout_session_id"] == session["id"]


async def test_what_one_endpoints_secret_signs_every_other_endpoint_refuses(installer: Installer) -> None:
    fake = FakeStripe()
    answers: dict[tuple[str, str], int | str] = {}
    async with serving(fake) as stripe_url:
        here, secrets = await moved_in(installer, fake, stripe_url)
        async with here.receiving():
            for seed, (signer, secret) in enumerate(secrets.items()):
                body = render(happened(STANDING[signer][1], seed, livemode=True))
                for name, (path, _) in STANDING.items():
                    async with StripeSender(f"{here.url}{path}", [secret]) as sender:
                        result = await sender.attempt(body)
                    answers[signer, name] = result.reason if not result.answer.delivered else 200
            # Correctly spelt it is another path, and nobody's.
            async with StripeSender(
                f"{here.url}/api/v1/webhook/subscription/payment-intent/succeeded", [secrets["artha-payment-succeeded"]]
            ) as sender:
                corrected = await sender.attempt(render(happened("invoice.payment_succeeded", 8, livemode=True)))

        records = await here.records()

    assert answers == {
        (signer, name): 200 if signer == name else "signature_mismatch" for signer in STANDING for name in STANDING
    }
    assert (corrected.status, corrected.reason) == (404, "endpoint_unknown")
    # What was refused went nowhere; and each of the four was taken once.
    assert sorted(record["endpoint"] for record in records) == sorted(STANDING)


async def test_what_happens_while_the_service_is_away_comes_again_and_counts_once(installer: Installer) -> None:
    fake = FakeStripe(speed=600)  # five minutes are half a second
    async with serving(fake) as stripe_url:
        here, _ = await moved_in(installer, fake, stripe_url)
        events = one_of_each()
        fake.add_all(events.values())
        await eventually(lambda: len(fake.deliveries.attempts) >= 4, what="each was tried once, in vain")
        async with here.receiving(), here.consuming():
            await here.settled(fake)
            found = await here.run("reconcile", "--since", "24h")

        invoices, subscriptions = await here.rows("invoices"), await here.rows("subscriptions")
        records = await here.records("payments", "subscriptions")

    for event in events.values():
        *before, last = attempts(fake, event)
        assert set(before) == {None}
        assert last == 200
    # The key may read events: they are looked for, and nothing is missing.
    assert found.code == 0, found.said
    assert "missing" in found.said
    assert len(records) == 4
    assert len(invoices) == 2
    assert len(subscriptions) == 1
