"""The operator's page on a real broker and a real database: what came, what became of it, and what is put right."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from service.config import AdminConfig, ConsumerConfig, DatabaseConfig, DedupeConfig
from service.contract import Event
from service.events import ConsumedEvent, ConsumedRecord, InvalidRecord, KnownEvent, PassedOver, Secret, Unprocessable
from service.events import QuarantineReason as Reason
from service.local.arrivals import until_caught_up
from service.local.kafka import LocalKafka
from service.projections import PROJECTIONS
from service.receiver import ingest as spine
from service.records import decode_for
from service.redaction import Redaction
from service.signature import sign
from service.simulator.shop import STORY_SPAN, deliveries, shop
from tests.support.deployment import ROWS, TEST_SECRET, Deployment, deployment
from tests.support.page import Browser, page_of, with_page
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

KINDS = {
    "payments": "payment",
    "refunds": "refund",
    "subscriptions": "subscription",
    "subscription_items": "subscription_item",
    "invoices": "invoice",
    "products": "product",
    "prices": "price",
}
PAYMENTS_PARTS = ("ch_", "cs_", "re_", "in_")


@pytest.fixture
async def deployed(kafka: LocalKafka, database_url: str, topic_prefix: str) -> Deployment:
    made = with_page(await deployment(kafka.bootstrap_servers, database_url, topic_prefix))
    return Deployment(replace(made.config, consumer=ConsumerConfig(dead_letter_limit=10_000)))


def story(seed: int = 7) -> Sequence[Mapping[str, Any]]:
    """A shop's events as Stripe delivers them: some twice, some out of order."""
    return deliveries(shop(seed, datetime.now(UTC) - STORY_SPAN), seed)


async def post(url: str, events: Sequence[Mapping[str, Any]]) -> None:
    async with aiohttp.ClientSession() as session:
        for event in events:
            body = orjson.dumps(event)
            headers = {"Stripe-Signature": sign(body, TEST_SECRET, int(time.time()))}
            async with session.post(f"{url}/webhooks/test", data=body, headers=headers) as response:
                assert response.status == 200


def consuming(deployed: Deployment) -> AbstractAsyncContextManager[None]:
    """All consumers, each with an admin side at a port of its own."""
    return Deployment(replace(deployed.config, admin=AdminConfig(port=0))).consuming()


async def caught_up(deployed: Deployment) -> None:
    config = deployed.config
    assert await until_caught_up(
        config.kafka.bootstrap_servers, config.database_url, deployed.topics, timeout_seconds=90
    )


async def logged(browser: Browser, count: int) -> Sequence[Mapping[str, Any]]:
    """All arrivals, the newest first, once there are so many: the log is written in the background."""
    found: list[Mapping[str, Any]] = []

    async def are_there() -> bool:
        found.clear()
        page = await browser.get("/api/events", limit=50)
        found.extend(page["arrivals"])
        while page["next"] is not None:
            page = await browser.get("/api/events", limit=50, before=page["next"])
            found.extend(page["arrivals"])
        return len(found) >= count

    await eventually(are_there, timeout_seconds=20, what=f"{count} arrivals are on the log")
    assert len({each["arrival_id"] for each in found}) == len(found) == count
    return found


async def test_a_shops_life_can_be_followed(deployed: Deployment) -> None:
    events = story()
    async with deployed.receiving() as url, consuming(deployed), page_of(deployed) as browser:
        await post(url, events)
        await caught_up(deployed)
        arrivals = await logged(browser, len(events))
        assert {each["event_id"] for each in arrivals} == {event["id"] for event in events}
        await finds_what_is_searched_for(browser, arrivals)
        await tells_an_events_way(browser, arrivals)
        await finds_every_object(browser, deployed, arrivals)
        await shows_how_it_goes(browser, deployed, len(events))


async def finds_what_is_searched_for(browser: Browser, arrivals: Sequence[Mapping[str, Any]]) -> None:
    for column in ("event_id", "object_id", "customer_id"):
        wanted = next(each[column] for each in arrivals if each[column] is not None)
        found = (await browser.get("/api/events", q=wanted, limit=200))["arrivals"]
        expected = [each for each in arrivals if wanted in (each["event_id"], each["object_id"], each["customer_id"])]
        assert sorted(each["arrival_id"] for each in found) == sorted(each["arrival_id"] for each in expected)
        walked: list[int] = []
        page = await browser.get("/api/events", q=wanted, limit=1)
        while page["arrivals"]:
            walked += [each["arrival_id"] for each in page["arrivals"]]
            if page["next"] is None:
                break
            page = await browser.get("/api/events", q=wanted, limit=1, before=page["next"])
        assert walked == [each["arrival_id"] for each in found]
    assert (await browser.get("/api/events", q="evt_of_nobody"))["arrivals"] == []


async def tells_an_events_way(browser: Browser, arrivals: Sequence[Mapping[str, Any]]) -> None:
    again = next(
        each for each in arrivals if each["outcome"] == "duplicate" and each["object_type"] == "payment_intent"
    )
    way = await browser.get(f"/api/events/{again['event_id']}")
    assert [each["outcome"] for each in way["arrivals"]] == ["accepted", "duplicate"]
    first, second = way["arrivals"]
    assert first["duplicate_of"] is None
    assert second["duplicate_of"] == {
        name: first[name] for name in ("arrival_id", "topic", "partition", "record_offset")
    }
    assert first["record_offset"] is not None
    (effect,) = way["effects"]
    assert (effect["projection"], effect["object_id"], effect["event_type"]) == (
        "payments",
        again["object_id"],
        again["event_type"],
    )
    assert [(row["table"], row["id"]) for row in effect["rows"]] == [("payments", again["object_id"])]
    assert (await browser.ask("GET", "/api/events/evt_of_nobody")).status == 404


async def finds_every_object(browser: Browser, deployed: Deployment, arrivals: Sequence[Mapping[str, Any]]) -> None:
    connection = await asyncpg.connect(deployed.config.database_url)
    try:
        for table, column in ROWS.items():
            for row in await connection.fetch(f"SELECT {column} AS id, account, livemode FROM {table} LIMIT 5"):
                found = await browser.get(f"/api/objects/{row['id']}")
                assert (found["kind"], found["account"], found["livemode"]) == (KINDS[table], row["account"], False)
                assert found["row"][column] == row["id"]
                assert {"table": table, "id": row["id"]}.items() <= found["rows"][0].items()
                assert not found["truncated"]
                assert found["entries"] or table == "subscription_items"
                assert found["entries"] == sorted(found["entries"], key=lambda entry: entry["created_at"])
        linked = {row["ref_id"]: row["payment_id"] for row in await connection.fetch("SELECT * FROM payment_refs")}
    finally:
        await connection.close()
    for prefix in PAYMENTS_PARTS:
        wanted = next(each for each in linked if each.startswith(prefix))
        found = await browser.get(f"/api/objects/{wanted}")
        assert linked[wanted] in {row["id"] for row in found["rows"] if row["table"] == "payments"}
        if wanted.startswith(("ch_", "cs_")):  # of the others there are rows
            assert (found["kind"], found["row"]["payment_id"]) == ("payment", linked[wanted])
            assert wanted in {entry["object_id"] for entry in found["entries"]}
    await follows_a_payment(browser, arrivals)
    customer = next(each["customer_id"] for each in arrivals if each["object_type"] == "subscription")
    found = await browser.get(f"/api/objects/{customer}")
    assert (found["kind"], found["row"], found["entries"]) == ("customer", None, [])
    assert {"payments", "subscriptions", "invoices"} == {row["table"] for row in found["rows"]}
    assert {each["customer_id"] for each in found["arrivals"]} == {customer}
    assert (await browser.ask("GET", "/api/objects/pi_of_nobody")).status == 404


async def follows_a_payment(browser: Browser, arrivals: Sequence[Mapping[str, Any]]) -> None:
    """A payment's timeline has what its charge and its refunds went through; the last word is the row's."""
    refunded = next(each["object_id"] for each in arrivals if each["event_type"] == "charge.refunded")
    found = await browser.get(f"/api/objects/{refunded}")
    assert {"payment_intent", "charge", "refund"} <= {entry["object_type"] for entry in found["entries"]}
    told = [
        change["to"]
        for entry in found["entries"]
        if entry["object_id"] == found["row"]["payment_id"]
        for change in entry["changes"]
        if change["field"] == "status"
    ]
    assert told[-1] == found["row"]["status"] == "succeeded"
    assert len(told) == len(set(told))


async def shows_how_it_goes(browser: Browser, deployed: Deployment, count: int) -> None:
    consumers = await browser.get("/api/consumers")
    assert consumers["problem"] is None
    groups = {group["projection"]: group for group in consumers["groups"]}
    assert groups.keys() == PROJECTIONS.keys()
    assert all(group["lag"] == 0 and group["updated_at"] is not None for group in groups.values())
    assert sum(each["end_offset"] for each in groups["payments"]["partitions"]) > 0
    assert {each["topic"] for each in groups["payments"]["partitions"]} == {
        deployed.topics.of("payment"),
        deployed.topics.of("refund"),
    }

    async def sampled() -> bool:
        return bool(sum((await browser.get("/api/live"))["totals"].values()) >= count)

    await eventually(sampled, what="a sample was taken after the last delivery")
    live = await browser.get("/api/live")
    assert live["ready"] is True
    assert live["totals"]["accepted"] + live["totals"]["duplicate"] == count
    (endpoint,) = [each for each in live["endpoints"] if each["name"] == "test"]
    assert endpoint["health"] == "ok"
    assert sum(secret["verified"] for secret in endpoint["secrets"]) == count
    assert all(len(series) == len(live["at"]) for series in live["outcomes"].values())


def refuses(event_type: str) -> Callable[..., ConsumedEvent | InvalidRecord | PassedOver]:
    """A consumer's bug."""

    def decoded(record: ConsumedRecord, *, consumer_group: str) -> ConsumedEvent | InvalidRecord | PassedOver:
        read = decode_for(record, consumer_group=consumer_group)
        if isinstance(read, ConsumedEvent) and read.event.event_type == event_type:
            return InvalidRecord(record, "schema_mismatch", "$.data")
        return read

    return decoded


async def test_dead_letters_are_listed_and_replayed(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    events = story()
    planted = {event["id"] for event in events if event["type"] == "payment_intent.succeeded"}
    async with deployed.receiving() as url, page_of(deployed) as browser:
        await post(url, events)
        with monkeypatch.context() as bug:
            bug.setattr("service.bootstrap.consumer.decode_for", refuses("payment_intent.succeeded"))
            async with consuming(deployed):
                await caught_up(deployed)
        listed = await browser.get("/api/parked/dead-letter")
        assert {record["id"] for record in listed["records"]} == planted
        assert not listed["truncated"]
        assert all(record["reason"] == "schema_mismatch" for record in listed["records"])
        assert (await browser.get("/api/consumers"))["parked"] == {"dead-letter": len(planted), "quarantine": 0}
        one = listed["records"][0]
        assert (await browser.get("/api/parked/dead-letter", id=one["id"]))["records"] == [one]
        assert len((await browser.get("/api/parked/dead-letter", limit=1))["records"]) == 1

        headers = await browser.sign_in()
        places = [record["place"] for record in listed["records"]]
        gone = f"{one['place']}999999"
        asked = {"places": [*places, gone], "dry_run": True}
        planned = await browser.ask("POST", "/api/parked/dead-letter/replay", json=asked, headers=headers)
        assert [each["outcome"] for each in planned.document["results"]] == ["would_replay"] * len(places) + [
            "not_found"
        ]
        with capture_logs() as lines:
            done = await browser.ask("POST", "/api/parked/dead-letter/replay", json={"places": places}, headers=headers)
        assert [each["place"] for each in done.document["results"]] == places
        assert {each["outcome"] for each in done.document["results"]} == {"replayed"}
        (line,) = [line for line in lines if line["event"] == "page.replayed"]
        assert (line["outcomes"], line["places"], line["peer"]) == ({"replayed": len(places)}, len(places), "127.0.0.1")
        assert len(line["session"]) == 12
        async with consuming(deployed):
            await caught_up(deployed)
        metrics = (await browser.ask("GET", "/metrics")).body.decode()
        assert f'stripe_ingest_page_replays_total{{outcome="replayed",topic="dead_letter"}} {len(places)}.0' in metrics
        for event_id in planted:
            effects = (await browser.get(f"/api/events/{event_id}"))["effects"]
            assert [effect["projection"] for effect in effects] == ["payments"]


async def test_quarantined_bodies_are_listed_and_replayed(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event for event in story() if event["type"] == "payment_intent.succeeded"]

    def cannot_read(known: KnownEvent, redaction: Redaction | None = None) -> Event | Unprocessable:  # noqa: ARG001 -- as `normalize`
        return Unprocessable(
            Reason.OBJECT_MALFORMED, "data.object", str(orjson.loads(known.body)["id"]), known.endpoint, known.body,
            known.received_at, "payment_intent.succeeded",
        )  # fmt: skip

    async with deployed.receiving() as url, page_of(deployed) as browser:
        with monkeypatch.context() as old:
            old.setattr(spine, "normalize", cannot_read)
            await post(url, events)
        listed = await browser.get("/api/parked/quarantine")
        assert {record["id"] for record in listed["records"]} == {event["id"] for event in events}
        assert "pi_" not in str(listed)
        headers = await browser.sign_in()
        places = {"places": [record["place"] for record in listed["records"]]}
        done = await browser.ask("POST", "/api/parked/quarantine/replay", json=places, headers=headers)
        assert {each["outcome"] for each in done.document["results"]} == {"replayed"}
        again = await browser.ask("POST", "/api/parked/quarantine/replay", json=places, headers=headers)
        assert {each["outcome"] for each in again.document["results"]} == {"duplicate"}
        assert len(await deployed.records(deployed.topics.of("payment"))) == len({event["id"] for event in events})


async def test_who_may_not_is_refused(deployed: Deployment) -> None:
    replay = ("POST", "/api/parked/quarantine/replay")
    body = {"places": ["t.quarantine/0/0"], "dry_run": True}
    async with deployed.receiving(), page_of(deployed) as browser:
        # A name of somebody else's that points at us.
        for path in ("/", "/api/session", "/api/live", "/api/events"):
            rebound = await browser.ask("GET", path, headers={"Host": "evil.test"})
            assert (rebound.status, rebound.error) == (403, "host_not_allowed")
        assert (await browser.ask("GET", "/metrics", headers={"Host": "evil.test"})).status == 200
        # Somebody behind a proxy on this machine.
        for path in ("/api/events", "/api/objects/pi_1", "/api/parked/quarantine"):
            remote = await browser.ask("GET", path, headers={"X-Forwarded-For": "203.0.113.9"})
            assert (remote.status, remote.error) == (401, "sign_in_needed")
            assert (await browser.ask("GET", path, headers={"Sec-Fetch-Site": "cross-site"})).status == 403
        assert (await browser.ask(*replay, json=body)).error == "sign_in_needed"
        wrong = await browser.ask("POST", "/api/session", json={"token": "x" * 40})
        assert (wrong.status, wrong.error) == (401, "token_wrong")

        headers = await browser.sign_in()
        assert (await browser.ask("GET", "/api/events", headers={"X-Forwarded-For": "203.0.113.9"})).status == 200
        assert (await browser.ask(*replay, json=body)).error == "csrf_wrong"
        assert (await browser.ask(*replay, json=body, headers={"X-CSRF-Token": "x"})).error == "csrf_wrong"
        elsewhere = {**headers, "Origin": "https://evil.test"}
        assert (await browser.ask(*replay, json=body, headers=elsewhere)).error == "origin_not_allowed"
        done = await browser.ask(*replay, json=body, headers={**headers, "Origin": browser.url})
        assert done.document["results"][0]["outcome"] == "not_found"
        assert (await browser.ask("DELETE", "/api/session", headers=headers)).status == 204
        assert (await browser.ask(*replay, json=body, headers=headers)).error == "sign_in_needed"


async def test_only_one_replay_runs_at_a_time_and_none_keeps_a_receiver_from_ending(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def hangs(*_: object, **__: object) -> None:
        begun.set()
        await gate.wait()

    monkeypatch.setattr("service.page.parked.redrive", hangs)
    body = {"places": ["t.quarantine/0/0"]}
    path = "/api/parked/dead-letter/replay"
    loop = asyncio.get_running_loop()
    async with page_of(deployed) as browser:
        async with deployed.receiving():
            headers = await browser.sign_in()
            first = asyncio.create_task(browser.ask("POST", path, json=body, headers=headers))
            await begun.wait()
            assert (await browser.ask("POST", path, json=body, headers=headers)).error == "replay_running"
            ending = loop.time()
        assert loop.time() - ending < 15
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_without_a_database_the_rest_works(deployed: Deployment) -> None:
    config = replace(deployed.config, database=DatabaseConfig(), dedupe=DedupeConfig(url=Secret("memory://")))
    bare = Deployment(config)
    async with bare.receiving(), page_of(bare) as browser:
        assert (await browser.ask("GET", "/api/events")).error == "no_database"
        assert (await browser.ask("GET", "/api/objects/pi_1")).error == "no_database"
        assert await browser.get("/api/consumers") == {"groups": [], "problem": "no_database"}
        assert (await browser.get("/api/parked/quarantine"))["records"] == []
        assert (await browser.get("/api/live"))["ready"] is True


async def test_what_is_away_is_told_by_its_tag(deployed: Deployment, kafka: LocalKafka) -> None:
    async with deployed.receiving(), page_of(deployed) as browser:
        kafka.kill()
        consumers = await browser.get("/api/consumers")
        assert consumers["problem"] in {"broker_unavailable", "timed_out"}
        parked = await browser.ask("GET", "/api/parked/dead-letter")
        assert (parked.status, parked.error) == (503, "broker_unavailable")
        assert (await browser.get("/api/events"))["arrivals"] == []
