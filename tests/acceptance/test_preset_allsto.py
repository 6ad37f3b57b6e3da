"""Allsto: a URL, a signing secret and a key of its own for each Stripe account; the key may do one thing."""

import re
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

EVENTS: Final = ("payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.processing")
ONLY: Final = {"payment_intent_write"}
URL: Final = f"{PUBLIC_URL}/webhooks/allsto"
SECOND_URL: Final = f"{PUBLIC_URL}/webhooks/allsto-second"


def with_second_account(here: Installation, first: str, second: str) -> None:
    """Name the first account, and take the comment signs off the second one's table, as the file suggests."""
    here.edit('# account = "acct_…"                #', f'account = "{first}"  #')
    head, _, table = here.file.read_text("utf-8").partition("# [[endpoints]]")
    uncommented = re.sub("^# ", "", table, flags=re.MULTILINE).replace("acct_…", second)
    here.file.write_text(f"{head}[[endpoints]]{uncommented}", encoding="utf-8")


def payments_of_an_account(seed: int) -> Mapping[str, Object]:
    """One that succeeds, one that fails, one that is on its way."""
    return {kind: happened(kind, seed + place, livemode=True) for place, kind in enumerate(EVENTS)}


async def test_each_account_has_a_url_a_key_and_a_secret_of_its_own(installer: Installer) -> None:
    # Two accounts that know nothing of each other are two fakes; keys are asked about at the first one.
    first, second = FakeStripe(account="acct_First"), FakeStripe(account="acct_Second", seed=2)
    async with serving(first) as stripe_url, serving(second):
        here = await installer.install(
            "allsto",
            stripe_url,
            allsto_key=first.new_key("live", ONLY),
            allsto_second_key=first.new_key("live", ONLY, account="acct_Second"),
        )
        with_second_account(here, "acct_First", "acct_Second")
        checked = await here.done("config", "check")
        assert {URL, SECOND_URL} <= set(checked.out.split())  # to copy into the two dashboards

        secrets = {}
        for fake, name, url in ((first, "allsto", URL), (second, "allsto-second", SECOND_URL)):
            fake.deliveries.reach(PUBLIC_URL, here.url)
            secrets[name] = fake.register(url, EVENTS, mode="live")["secret"]
            await here.done("secrets", "set", name, "signing-secret", given=secrets[name])
        of_first, of_second = payments_of_an_account(10), payments_of_an_account(20)
        async with here.receiving(), here.consuming():
            first.add_all(of_first.values())
            second.add_all(of_second.values())
            await here.settled(first, second)
            # The second account's secret opens the second account's URL only.
            forged = render(happened("payment_intent.succeeded", 30, livemode=True))
            async with StripeSender(f"{here.url}/webhooks/allsto", [Secret(secrets["allsto-second"])]) as sender:
                refused = await sender.attempt(forged)

        payments = await here.rows("payments")

    assert (refused.status, refused.reason) == (400, "signature_mismatch")
    assert len(payments) == 6
    for account, events in (("acct_First", of_first), ("acct_Second", of_second)):
        told = {kind: payments[object_id(event)] for kind, event in events.items()}
        assert {row["account"] for row in told.values()} == {account}
        assert all(row["livemode"] for row in told.values())
        assert told["payment_intent.succeeded"]["status"] == "succeeded"
        assert (
            told["payment_intent.succeeded"]["amount_received_minor"]
            == (of_event(events["payment_intent.succeeded"])["amount"])
        )
        assert told["payment_intent.payment_failed"]["status"] == "requires_payment_method"
        assert told["payment_intent.payment_failed"]["failure_code"] == "card_declined"
        assert told["payment_intent.processing"]["status"] == "processing"


def of_event(event: Object) -> Object:
    """The object that an event is about."""
    found: Object = event["data"]["object"]
    return found


async def test_a_payment_that_was_processing_ends_as_it_ends(installer: Installer) -> None:
    fake = FakeStripe()
    processing = happened("payment_intent.processing", 1, livemode=True, ago=3 * 86_400)
    intent = of_event(processing)
    bounced = happened(
        "payment_intent.payment_failed", 2, livemode=True, id=intent["id"], amount=intent["amount"], latest_charge=None
    )
    async with serving(fake) as stripe_url:
        here = await installer.install("allsto", stripe_url, allsto_key=fake.new_key("live", ONLY))
        fake.deliveries.reach(PUBLIC_URL, here.url)
        secret = fake.register(URL, EVENTS, mode="live")["secret"]
        here.give("allsto", secret)
        async with here.receiving(), here.consuming():
            # The failure overtakes the news that it is on its way.
            fake.add_all([bounced, processing])
            await here.settled(fake)

        payments = await here.rows("payments")

    assert {name: row["status"] for name, row in payments.items()} == {intent["id"]: "requires_payment_method"}


async def test_what_comes_before_the_secret_is_refused_and_comes_again_once_it_is_there(installer: Installer) -> None:
    fake = FakeStripe(speed=600)  # Stripe's five minutes are half a second
    paid = happened("payment_intent.succeeded", 1, livemode=True)
    async with serving(fake) as stripe_url:
        here = await installer.install("allsto", stripe_url, allsto_key=fake.new_key("live", ONLY))
        fake.deliveries.reach(PUBLIC_URL, here.url)
        secret = fake.register(URL, EVENTS, mode="live")["secret"]
        async with here.receiving(), here.consuming():
            fake.add(paid)
            await eventually(lambda: attempts(fake, paid), what="Stripe has tried")
            # The running receiver takes it without a restart.
            await here.done("secrets", "set", "allsto", "signing-secret", given=secret)
            await here.settled(fake)

        payments = await here.rows("payments")

    *before, last = attempts(fake, paid)
    assert set(before) == {400}
    assert last == 200
    assert [row["status"] for row in payments.values()] == ["succeeded"]


async def test_the_key_is_enough_and_the_check_says_what_nobody_does_with_it(installer: Installer) -> None:
    fake = FakeStripe()
    as_in_the_preset = {"STRIPE_INGEST__RECONCILE__INTERVAL_SECONDS": "900"}
    async with serving(fake) as stripe_url:
        here = await installer.install("allsto", stripe_url, allsto_key=fake.new_key("live", ONLY))
        alone = await here.run("keys", "check", **as_in_the_preset)
        meant = await here.run("keys", "check")  # with reconcile.interval_seconds = 0 that is as it is meant
        here.keep("allsto-events-key", fake.new_key("live", {"event_read"}))
        events_key = f'api_key_file = "{here.folder}/allsto-events-key"'
        here.edit(f"# {events_key}", events_key)
        with_events = await here.run("keys", "check", **as_in_the_preset)
        found = await here.run("reconcile", "--since", "24h")
        here.keep("allsto-key", fake.new_key("live", {"payment_intent_read"}))
        too_weak = await here.run("keys", "check", **as_in_the_preset)

    assert alone.code == 1
    (wrong,) = [line for line in alone.err.splitlines() if "lacks" in line]
    assert "lacks event_read (Events Read): promise 5 is off" in wrong
    assert "reconcile.api_key_file" in wrong
    assert (meant.code, with_events.code) == (0, 0), (meant.said, with_events.said)
    assert "promise 5" not in with_events.said
    assert found.code == 0, found.said
    assert too_weak.code == 1
    assert "lacks payment_intent_write (PaymentIntents Write)" in too_weak.err
    # All of it by calls that change nothing: not even a payment intent was looked up by an id that could exist.
    assert {request.path for request in fake.requests if request.method == "POST"} <= {
        path for request in fake.requests if "probe" in (path := request.path)
    }
