"""From nothing to deliveries that arrive, by one command; and that command killed at any moment, and run again."""

import asyncio
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from service.bootstrap import kafka as bootstrap_kafka
from service.credentials.file import CredentialsFile, new_key
from service.local.kafka import LocalKafka
from service.simulator.fake_stripe import FakeStripe, Held, Lost, serving
from service.simulator.objects import Object
from tests.support.integrations import PUBLIC_URL, Ended, Installation, happened, registered
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)

PATH: Final = "/v1/webhook_endpoints"
ENDPOINTS: Final = ("shop", "other")
SPEED: Final = 600
"""Ten minutes of Stripe's are a second: what is refused comes again at once."""
UNDER_WAY_MAX: Final = 4
"""Deliveries at the same time, under load."""
SOME: Final = 40
"""Payments between two steps of a roll."""


def configuration(folder: Path, names: Collection[str]) -> str:
    """Endpoints of one account in test mode; the secrets and their key in files beside it."""
    return f"""
        [receiver]
        public_url = "{PUBLIC_URL}"
        [secrets]
        store = "{folder}/secrets.json"
        key_file = "{folder}/store-key"
        [database]
        url_file = "{folder}/database-url"
    """ + "".join(
        f"""
        [[endpoints]]
        name = "{name}"
        mode = "test"
        events = ["payment_intent.succeeded"]
        api_key_file = "{folder}/api-key"
        """
        for name in names
    )


class Shop(Installation):
    """A configuration of its own on the tests' servers, and its account at the fake Stripe."""

    fake: FakeStripe

    @property
    def store(self) -> CredentialsFile:
        return CredentialsFile(self.folder / "secrets.json", self.config.secrets.key)

    @property
    def at_stripe(self) -> Collection[Object]:
        return registered(self.fake, mode="test")

    @property
    def changes(self) -> list[Any]:
        """What was asked of Stripe but to tell."""
        return [request for request in self.fake.requests if request.method != "GET"]

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Begin a command."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", *arguments, env=self.environment, stdout=-1, stderr=-1
        )

    async def delivered(self, event: Object) -> None:
        """Return once each endpoint that takes the event has had it."""
        self.fake.add(event)
        await eventually(lambda: self.fake.pending(event["id"]) == 0, timeout_seconds=30, what="the event is delivered")

    def assert_registered_once(self, names: Collection[str]) -> None:
        """Each endpoint is at Stripe once, and the store has its secret, and none else."""
        stripe = self.fake.book(self.fake.account, livemode=False).endpoints
        by_name = {each["metadata"]["stripe_ingest_endpoint"]: each["id"] for each in self.at_stripe}
        assert len(by_name) == len(self.at_stripe) == len(names)
        for name in names:
            kept = self.store.read().of(name)
            assert [(each.value, each.webhook_endpoint_id) for each in kept.signing] == [
                (stripe.secrets(by_name[name])[0], by_name[name])
            ]
            assert kept.creation is None


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """Two endpoints that nobody has registered; there is nothing to receive with."""
    async with installed(tmp_path, "127.0.0.1:1", "postgresql://nobody@127.0.0.1:1/none", "none") as here:
        yield here


@pytest.fixture
async def open_shop(kafka: LocalKafka, database_url: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """The same, on the tests' servers."""
    async with installed(tmp_path, kafka.bootstrap_servers, database_url, topic_prefix) as here:
        await bootstrap_kafka.apply_topics(here.config)
        yield here


@asynccontextmanager
async def installed(folder: Path, bootstrap_servers: str, database_url: str, topic_prefix: str) -> AsyncIterator[Shop]:
    fake = FakeStripe(speed=SPEED)
    async with serving(fake) as stripe_url:
        here = Shop(
            folder,
            {
                "STRIPE_INGEST__KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
                "STRIPE_INGEST__KAFKA__TOPIC_PREFIX": topic_prefix,
                "STRIPE_INGEST__KAFKA__PARTITIONS": "1",
                "STRIPE_INGEST__KAFKA__REPLICATION_FACTOR": "1",
                "STRIPE_INGEST__KAFKA__MIN_INSYNC_REPLICAS": "1",
                "STRIPE_INGEST__STRIPE__API_BASE": stripe_url,
                "STRIPE_INGEST__STRIPE__REQUESTS_PER_SECOND": "100",
                "STRIPE_INGEST__STRIPE__WATCH_INTERVAL_SECONDS": "0",
                "STRIPE_INGEST__RECONCILE__INTERVAL_SECONDS": "0",
                "STRIPE_INGEST__DEDUPE__TIMEOUT_SECONDS": "1",
            },
        )
        here.fake = fake
        fake.deliveries.reach(PUBLIC_URL, here.url)
        here.file.write_text(configuration(folder, ENDPOINTS), encoding="utf-8")
        here.keep("store-key", new_key())
        here.keep("database-url", database_url)
        here.keep("api-key", fake.new_key("test", ["webhook_write"]))
        yield here


async def ended(process: asyncio.subprocess.Process) -> Ended:
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_from_nothing_one_command_and_deliveries_arrive_and_again_it_changes_nothing(open_shop: Shop) -> None:
    shop = open_shop
    async with shop.receiving():
        # Nobody has a secret yet: every delivery would be refused.
        applied = await shop.done("endpoints", "apply")
        shop.assert_registered_once(ENDPOINTS)
        before, store = list(shop.at_stripe), shop.store.path.read_bytes()
        payment = happened("payment_intent.succeeded", 1)
        # Stripe may be quicker than the receiver, which looks at the store every second; it comes again then.
        await shop.delivered(payment)

    assert [record["event_id"] for record in await shop.records("payments")] == [payment["id"]]
    assert "whsec_" not in applied.said
    assert b"whsec_" not in store
    wrote = shop.changes

    again = await shop.done("endpoints", "apply")

    assert "as they should be" in again.said
    assert (shop.at_stripe, shop.store.path.read_bytes(), shop.changes) == (before, store, wrote)


@pytest.mark.parametrize("endpoint", [0, 1])
@pytest.mark.parametrize("answer_lost", [False, True])
async def test_killed_while_an_endpoint_is_made_and_run_again_it_is_there_once(
    shop: Shop, endpoint: int, answer_lost: bool
) -> None:
    held = Held()
    if answer_lost:
        # It is made; the answer with its secret never comes, and the process ends while it asks once more.
        shop.fake.trouble.next(Lost.AFTER, method="POST", path=PATH, after=endpoint)
        shop.fake.trouble.next(held, method="POST", path=PATH, after=endpoint)
    else:
        shop.fake.trouble.next(held, method="POST", path=PATH, after=endpoint)
    process = await shop.start("endpoints", "apply")
    await eventually(held.reached.is_set, timeout_seconds=30, what="the request is on its way")
    process.kill()
    await ended(process)
    held.release.set()
    assert len(shop.at_stripe) == endpoint + answer_lost
    assert shop.store.read().of(ENDPOINTS[endpoint]).creation is not None

    again = await shop.done("endpoints", "apply", "--json")

    assert '"step":"replay"' in again.out
    shop.assert_registered_once(ENDPOINTS)
    wrote = shop.changes
    await shop.done("endpoints", "apply")
    assert shop.changes == wrote


async def test_killed_before_anything_was_begun_it_has_left_nothing(shop: Shop) -> None:
    held = Held()
    shop.fake.trouble.next(held, method="GET", path=PATH)
    process = await shop.start("endpoints", "apply")
    await eventually(held.reached.is_set, timeout_seconds=30, what="the list is asked for")
    process.kill()
    await ended(process)
    held.release.set()
    assert not shop.store.path.exists()

    await shop.done("endpoints", "apply")

    shop.assert_registered_once(ENDPOINTS)


async def test_two_at_the_same_time_are_one_after_the_other(shop: Shop) -> None:
    held = Held()
    shop.fake.trouble.next(held, method="POST", path=PATH)
    first = await shop.start("endpoints", "apply")
    await eventually(held.reached.is_set, timeout_seconds=30, what="the request is on its way")

    second = await shop.run("endpoints", "apply")

    assert second.code == 75
    assert "is being changed by another process" in second.said
    held.release.set()
    assert (await ended(first)).code == 0
    shop.assert_registered_once(ENDPOINTS)


@asynccontextmanager
async def happening(shop: Shop) -> AsyncIterator[list[Object]]:
    """Payments without an end, delivered to both endpoints; at the end of the block all have been."""
    sent: list[Object] = []
    enough = asyncio.Event()

    async def pay() -> None:
        while not enough.is_set():
            sent.append(happened("payment_intent.succeeded", len(sent)))
            shop.fake.add(sent[-1])
            await eventually(
                lambda: shop.fake.deliveries.waiting < UNDER_WAY_MAX, timeout_seconds=30, what="some are delivered"
            )

    async with asyncio.TaskGroup() as group:
        group.create_task(pay())
        try:
            yield sent
        finally:
            enough.set()
    await eventually(lambda: shop.fake.deliveries.waiting == 0, timeout_seconds=30, what="all are delivered")


async def some_more(sent: list[Object]) -> None:
    wanted = len(sent) + SOME
    await eventually(lambda: len(sent) >= wanted, timeout_seconds=60, what="some more has happened")


async def test_a_second_endpoint_takes_over_under_load_and_not_one_delivery_is_refused(open_shop: Shop) -> None:
    shop = open_shop
    await shop.done("endpoints", "apply")
    async with shop.receiving():
        # A new endpoint's secret may be a second late: the load begins once both are served.
        await shop.delivered(happened("payment_intent.succeeded", -1))
        before = len(shop.fake.deliveries.attempts)
        async with happening(shop) as sent:
            await some_more(sent)
            too_early = await shop.done("endpoints", "roll", "shop", "--finish")
            held = Held()
            # The first request to change one: the second endpoint is to get its events.
            shop.fake.trouble.next(held, method="POST", path=f"{PATH}/")
            killed = await shop.start("endpoints", "roll", "shop", "--replace")
            await eventually(held.reached.is_set, timeout_seconds=30, what="the second endpoint is to take over")
            killed.kill()
            await ended(killed)
            planned = await shop.done("endpoints", "plan")
            stands = await shop.done("endpoints", "roll", "shop")
            await some_more(sent)
            replaced = await shop.done("endpoints", "roll", "shop", "--replace")
            new = shop.store.read().of("shop").signing[0].webhook_endpoint_id
            await eventually(
                lambda: any(attempt.endpoint_id == new for attempt in shop.fake.deliveries.attempts),
                timeout_seconds=30,
                what="the second endpoint delivers",
            )
            held.release.set()
            await shop.done("endpoints", "roll", "shop", "--finish")
            await some_more(sent)

    assert "no roll is under way" in too_early.said
    assert "as they should be" in planned.said
    assert "gets no events until receivers know its secret" in stands.said
    assert "takes its events beside" in replaced.said
    under_load = shop.fake.deliveries.attempts[before:]
    assert {(attempt.status, attempt.number) for attempt in under_load} == {(200, 1)}
    assert {attempt.event_id for attempt in under_load} == {payment["id"] for payment in sent}
    shop_endpoints = [each for each in shop.at_stripe if each["metadata"]["stripe_ingest_endpoint"] == "shop"]
    assert sorted(each["status"] for each in shop_endpoints) == ["disabled", "enabled"]
    arrived = [record["event_id"] for record in await shop.records("payments")]
    assert sorted(arrived[1:]) == sorted(payment["id"] for payment in sent)
    pruned = await shop.done("endpoints", "apply", "--prune", "--yes")
    assert "delete" in pruned.said
    shop.assert_registered_once(ENDPOINTS)
    assert "as they should be" in (await shop.done("endpoints", "plan")).said
