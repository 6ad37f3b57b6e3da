"""One endpoint for many accounts: whose an event is goes along to the header, the value and the row."""

import time
from dataclasses import replace
from typing import Any, Final

import asyncpg
import msgspec
import orjson
import pytest

from service.config import EndpointConfig
from service.events import Secret
from service.local.arrivals import until_caught_up
from service.local.kafka import LocalKafka
from service.simulator.events import sample
from service.simulator.objects import Object
from service.simulator.stripe_sender import StripeSender, play
from tests.support.deployment import Deployment, deployment

SECRET: Final = Secret("whsec_of_the_platforms_endpoint")
ONE, OTHER, MEMBER = "acct_1Bakery", "acct_1Florist", "acct_1Branch"
ORGANIZATION: Final = "org_6SimulatedChain"
PLATFORM: Final = EndpointConfig(name="platform", connect=True, secrets=(SECRET,))


def paid(account: str) -> Object:
    """A payment of a connected account. Its ids are the same in each: only the account keeps them apart."""
    event = sample("payment_intent.succeeded", seed=11, created=int(time.time()), livemode=False, account=account)
    return {**event, "id": f"evt_{account}"}


def paid_in_organization(account: str) -> Object:
    """A payment of a member of an organization, which is named by the way to it."""
    event = {name: value for name, value in paid(account).items() if name != "account"}
    return {**event, "context": f"{ORGANIZATION}/{account}"}


@pytest.fixture
async def platform(kafka: LocalKafka, database_url: str, topic_prefix: str) -> Deployment:
    return await deployment(kafka.bootstrap_servers, database_url, topic_prefix, endpoints=[PLATFORM])


async def test_payments_of_many_accounts_are_kept_apart_all_the_way(platform: Deployment) -> None:
    events = [paid(ONE), paid(OTHER), paid_in_organization(MEMBER)]
    async with platform.receiving() as url, platform.consuming("payments"):
        async with StripeSender(f"{url}/webhooks/platform", [SECRET]) as sender:
            report = await play([*events, *events], sender, concurrency=3)
        assert report.delivered == 6
        assert await until_caught_up(
            platform.config.kafka.bootstrap_servers, platform.config.database_url, platform.topics, timeout_seconds=60
        )

    records = {dict(record.headers)["ce_id"].decode(): record for record in await platform.records()}
    assert len(records) == len(events)
    for event, account in zip(events, (ONE, OTHER, MEMBER), strict=True):
        headers = {name: value.decode() for name, value in records[event["id"]].headers}
        value: dict[str, Any] = orjson.loads(records[event["id"]].value or b"")
        assert headers["ce_source"] == f"/stripe/{account}/test"
        assert headers.get("stripe_context") == value["context"] == event.get("context")
        assert value["account"] == account

    connection = await asyncpg.connect(platform.config.database_url)
    try:
        rows = await connection.fetch("SELECT account, livemode, payment_id, status FROM payments ORDER BY account")
    finally:
        await connection.close()
    payment_id = events[0]["data"]["object"]["id"]
    assert [tuple(row) for row in rows] == [
        (account, False, payment_id, "succeeded") for account in sorted((ONE, OTHER, MEMBER))
    ]


async def test_an_endpoint_of_one_account_keeps_anothers_events_out_of_its_topics(platform: Deployment) -> None:
    own = msgspec.structs.replace(PLATFORM, name="own", connect=False, account=ONE, mode="test")
    deployed = replace(platform, config=msgspec.structs.replace(platform.config, endpoints=(own,)))
    async with deployed.receiving() as url, StripeSender(f"{url}/webhooks/own", [SECRET]) as sender:
        report = await play([paid(ONE), paid(OTHER)], sender, concurrency=1)

    assert report.delivered == 2  # never refused: Stripe would send it for days
    topics = {record.topic: dict(record.headers) for record in await deployed.records()}
    assert set(topics) == {deployed.topics.of("payment"), deployed.topics.quarantine}
    assert topics[deployed.topics.quarantine]["reason"] == b"account_mismatch"
