"""`stripe listen --forward-to …`: what the Stripe CLI hands on is taken with the secret that it prints, as it is."""

import hashlib
import hmac
import time
from pathlib import Path

import aiohttp
import pytest

from service.config import load
from service.local.kafka import LocalKafka
from service.simulator.events import render, sample
from tests.support.deployment import deployment

PRINTED_SECRET = "whsec_" + hashlib.sha256(b"of a session of the Stripe CLI").hexdigest()
"""As `stripe listen --print-secret` prints it: 64 hex digits."""


def forwarded(body: bytes) -> dict[str, str]:
    """The headers that Stripe gives to the CLI, and the CLI to us: signed twice, v0 being test mode's decoy."""
    signed_at = int(time.time())
    payload = b"%d." % signed_at + body
    v1, v0 = (hmac.new(key, payload, "sha256").hexdigest() for key in (PRINTED_SECRET.encode(), b"a decoy"))
    return {
        "Stripe-Signature": f"t={signed_at},v1={v1},v0={v0}",
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Accept": "*/*; q=0.5, application/xml",
        "Cache-Control": "no-cache",
    }


async def test_what_stripe_listen_forwards_arrives_with_the_secret_that_it_prints(
    kafka: LocalKafka, database_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no file at all: two variables are the whole configuration
    configured = load(None, {"STRIPE_WEBHOOK_SECRET": PRINTED_SECRET})
    deployed = await deployment(kafka.bootstrap_servers, database_url, topic_prefix, endpoints=configured.endpoints)
    triggered = sample("payment_intent.succeeded", seed=7, created=int(time.time()), livemode=False)
    body = render(triggered)

    async with (
        deployed.receiving() as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/webhooks/stripe", data=body, headers=forwarded(body)) as answer,
    ):
        assert (answer.status, await answer.json()) == (200, {"status": "accepted", "id": triggered["id"]})

    (record,) = await deployed.records()
    assert record.topic == deployed.topics.of("payment")
    assert dict(record.headers)["ce_id"] == triggered["id"].encode()
