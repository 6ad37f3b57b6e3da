"""Every stored payload of the corpus, posted to a real receiver: one record each, where the routing table says."""

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from service.signature import sign
from tests.support.corpus import CORPUS, Payload, needs_corpus, payloads
from tests.support.deployment import LIVE_SECRET, TEST_SECRET, Deployment

pytestmark = [
    needs_corpus,
    pytest.mark.timeout(300),
]

CONCURRENCY = 16


async def post_all(url: str, events: Iterable[Mapping[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Post each event, signed, to the endpoint of its mode; the answers in the events' order."""
    limit = asyncio.Semaphore(CONCURRENCY)

    async def post(session: aiohttp.ClientSession, event: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        mode, secret = ("live", LIVE_SECRET) if event.get("livemode") else ("test", TEST_SECRET)
        body = orjson.dumps(event, option=orjson.OPT_INDENT_2)
        headers = {"Stripe-Signature": sign(body, secret, int(time.time()))}
        async with limit, session.post(f"{url}/webhooks/{mode}", data=body, headers=headers) as response:
            return response.status, await response.json()

    async with aiohttp.ClientSession() as session:
        return list(await asyncio.gather(*(post(session, event) for event in events)))


# --- the routing table, said a second time and from the raw tree: no code is shared with the service ---------------


def expected_topic(event_type: str) -> str:
    if event_type in {"charge.refunded", "charge.refund.updated"} or event_type.startswith("refund."):
        return "refunds"
    if event_type.startswith(("payment_intent.", "charge.", "checkout.session.", "invoice_payment.")):
        return "payments"
    if event_type.startswith(("customer.subscription.", "invoice.")):
        return "subscriptions"
    if event_type.startswith("customer."):
        return "customers"
    return "catalog" if event_type.startswith(("product.", "price.", "plan.")) else "other"


def ref(value: Any) -> str | None:
    return value.get("id") if isinstance(value, dict) else value


def subscription_of_line(line: Mapping[str, Any]) -> str | None:
    parent = (line.get("parent") or {}).get("subscription_item_details") or {}
    own = line.get("id") if line.get("type") == "subscription" and str(line.get("id")).startswith("sub_") else None
    return ref(line.get("subscription")) or ref(parent.get("subscription")) or own


def expected_key(event: Mapping[str, Any]) -> str | None:
    if event["object"] == "v2.core.event":
        related = event.get("related_object") or {}
        return related.get("id") or event.get("account") or "default"
    obj = event["data"]["object"]
    kind, own = obj["object"], obj.get("id")
    paid_by = ref(obj.get("payment_intent"))
    if isinstance(obj.get("payment"), dict):  # an invoice_payment
        paid_by = ref(obj["payment"].get("payment_intent")) or ref(obj["payment"].get("charge"))
    parent = (obj.get("parent") or {}).get("subscription_details") or {}
    of_subscription = ref(obj.get("subscription")) or ref(parent.get("subscription"))
    in_lines = next(filter(None, map(subscription_of_line, (obj.get("lines") or {}).get("data") or ())), None)
    match expected_topic(event["type"]):
        case "payments" | "refunds":
            return (
                (own if kind == "payment_intent" else None)
                or paid_by
                or (own if kind == "charge" else ref(obj.get("charge")))
                or own
            )
        case "subscriptions":
            return (
                (own if kind == "subscription" else None) or of_subscription or in_lines or own or ref(obj["customer"])
            )
        case "customers":
            return own if kind == "customer" else ref(obj.get("customer")) or own
        case "catalog":
            return own if kind == "product" else ref(obj.get("product")) or own
        case _:
            return own or ref(obj.get("customer")) or event.get("account") or "default"


async def test_every_payload_is_one_record_in_its_topic_under_its_key(deployed: Deployment) -> None:
    given = list(payloads())
    assert len(given) == 728
    assert len({payload.event["id"] for payload in given}) == 728

    async with deployed.receiving() as url:
        answers = await post_all(url, (payload.event for payload in given))
        again = await post_all(url, (payload.event for payload in given))
    records = {
        dict(record.headers)["ce_id"].decode(): record for record in await deployed.records(*deployed.topics.data)
    }

    said = Counter((status, answer["status"]) for status, answer in answers)
    said_again = Counter((status, answer["status"]) for status, answer in again)
    assert said == {(200, "accepted"): 728}
    assert said_again == {(200, "duplicate"): 728}
    assert await deployed.records(deployed.topics.quarantine) == []
    assert len(await deployed.records()) == 728
    expected = {
        payload.name: (f"{deployed.topics.prefix}.{expected_topic(payload.event['type'])}", expected_key(payload.event))
        for payload in given
    }
    found = {
        payload.name: (record.topic, (record.key or b"").decode())
        for payload in given
        if (record := records[payload.event["id"]])
    }
    assert found == expected
    for payload in given:
        assert orjson.loads(records[payload.event["id"]].value or b"")["raw"] == payload.event, payload.name
    if report := os.environ.get("CORPUS_REPORT"):
        text = table(given, {name: topic for name, (topic, _) in found.items()})
        await asyncio.to_thread(Path(report).write_text, text, encoding="utf-8")


def table(given: Iterable[Payload], topics: Mapping[str, str]) -> str:
    """Where the payloads went, by API version and by event type, as Markdown."""
    rows = [
        (
            payload.event.get("api_version") or "none",
            payload.event["type"],
            topics.get(payload.name, "quarantine").rpartition(".")[2],
        )
        for payload in given
    ]
    destinations = ["payments", "refunds", "subscriptions", "customers", "catalog", "other", "quarantine"]
    versions = Counter((version, topic) for version, _, topic in rows)
    types = Counter((event_type, topic) for _, event_type, topic in rows)
    lines = [f"| API version | {' | '.join(destinations)} |", "|---" * (len(destinations) + 1) + "|"]
    lines += [
        f"| {version} | {' | '.join(str(versions[version, topic] or '') for topic in destinations)} |"
        for version in sorted({version for version, _, _ in rows})
    ]
    lines += ["", "| event type | topic | events | API versions |", "|---|---|---|---|"]
    lines += [
        f"| {event_type} | {topic} | {count} | {len({v for v, t, _ in rows if t == event_type})} |"
        for (event_type, topic), count in sorted(types.items())
    ]
    return "\n".join(lines) + "\n"


async def test_stored_payloads_that_share_an_id_are_one_event_and_one_without_an_id_is_quarantined(
    deployed: Deployment,
) -> None:
    as_stored = [orjson.loads(path.read_bytes()) for path in sorted(CORPUS.rglob("*.json"))]
    sharing = [
        event for event in as_stored if event.get("id") == "evt_00000000000000" and event["data"]["object"].get("id")
    ]
    sharing = sharing[:20]
    (nameless,) = [event for event in as_stored if "id" not in event]
    assert len(sharing) == 20

    async with deployed.receiving() as url:
        answers = [(await post_all(url, [event]))[0] for event in sharing]
        ((status, answer),) = await post_all(url, [nameless])

    assert [answer["status"] for _, answer in answers] == ["accepted"] + 19 * ["duplicate"]
    assert (status, answer["status"], answer["reason"]) == (200, "quarantined", "event_id_missing")
    accepted, quarantined = (
        await deployed.records(*deployed.topics.data),
        await deployed.records(deployed.topics.quarantine),
    )
    assert [dict(record.headers)["ce_id"] for record in accepted] == [b"evt_00000000000000"]
    (kept,) = quarantined
    assert orjson.loads(kept.value or b"") == nameless
    assert dict(kept.headers)["body_sha256"].decode() == hashlib.sha256(kept.value or b"").hexdigest()


async def test_each_payload_posted_twenty_times_at_once_is_one_record(deployed: Deployment) -> None:
    chosen: list[Payload] = list({payload.event["type"]: payload for payload in payloads()}.values())[:40]

    async with deployed.receiving() as url:
        answers = await post_all(url, (payload.event for payload in chosen for _ in range(20)))

    said = Counter(answer["status"] for _, answer in answers)
    assert {status for status, _ in answers} == {200}
    assert said == {"accepted": 40, "duplicate": 40 * 19}
    assert len(await deployed.records()) == 40
