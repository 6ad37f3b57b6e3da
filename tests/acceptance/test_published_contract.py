"""A consumer that has nothing but the published files and public libraries reads all that is published."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from service.contract import Event
from service.events import Record
from service.normalize import normalize
from service.records import Topics, encode, marked
from service.signature import verify
from service.simulator.events import SAMPLE_EVENT_TYPES, render, sample
from service.simulator.objects import Object
from service.simulator.shop import shop
from tests.support.corpus import needs_corpus, payloads
from tests.support.published_contract import PUBLISHED, SCHEMAS, complaints
from tests.support.signing import NOW, endpoint, signed_delivery

CREATED = 1_790_000_000


def published(events: Iterable[Object], *, include_raw: bool = True) -> Iterator[Record]:
    """What the service publishes for each of Stripe's events; a body that goes to quarantine is none."""
    for event in events:
        # Three thin events of the corpus do not say their mode: their endpoint's says it.
        to = replace(endpoint(), mode="live" if event.get("livemode") else "test")
        taken = normalize(verify(signed_delivery(render(event), to=to), now=NOW, tolerance_seconds=300))
        if isinstance(taken, Event):
            encoded = encode(
                taken,
                topics=Topics("stripe"),
                ingest_source="webhook",
                include_raw=include_raw,
                traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            yield marked(encoded, "checked")


def samples() -> Iterator[Object]:
    for event_type in sorted(SAMPLE_EVENT_TYPES):
        for seed in range(3):
            yield sample(event_type, seed=seed, created=CREATED)
        yield sample(event_type, seed=4, created=CREATED, livemode=True, account="acct_1")


def lives() -> Iterator[Object]:
    for seed in range(5):
        yield from shop(seed, datetime(2026, 7, 1, 9, 30, tzinfo=UTC)).events


# --- what the consumer finds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("include_raw", [True, False])
def test_all_that_the_simulator_sends_is_as_the_contract_says(include_raw: bool) -> None:
    records = list(published([*samples(), *lives()], include_raw=include_raw))

    assert len(records) > 4 * len(SAMPLE_EVENT_TYPES)
    assert {dict(record.headers)["ce_dataschema"].decode() for record in records} >= {
        f"urn:stripe-ingest:schema:1:{name}" for name in SCHEMAS if name not in {"plan", "other"}
    }
    found = {record.key: problems for record in records if (problems := complaints(record))}
    assert found == {}


@needs_corpus
def test_all_of_the_corpus_is_as_the_contract_says() -> None:
    given = {payload.name: list(published([payload.event])) for payload in payloads()}

    assert {name for name, records in given.items() if len(records) != 1} == set()
    found = {name: problems for name, records in given.items() for each in records if (problems := complaints(each))}
    assert found == {}
    assert {dict(each.headers)["ce_dataschema"].decode() for records in given.values() for each in records} == {
        schema["$id"] for schema in SCHEMAS.values()
    }


# --- the command ---------------------------------------------------------------------------------------------------


def stripe_ingest(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "contract", *arguments]
    return subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_prints_and_writes_the_files(tmp_path: Path) -> None:
    printed = stripe_ingest("asyncapi", folder=tmp_path)
    schema = stripe_ingest("schema", "subscription", folder=tmp_path)
    written = stripe_ingest("write", "contract", folder=tmp_path)
    committed = {path.relative_to(PUBLISHED): path.read_bytes() for path in PUBLISHED.rglob("*.json")}

    assert printed.stdout.encode() == committed[Path("asyncapi.json")]
    assert schema.stdout.encode() == committed[Path("schemas/subscription.json")]
    assert len(written.stdout.splitlines()) == len(committed)
    assert {
        path.relative_to(tmp_path / "contract"): path.read_bytes() for path in tmp_path.rglob("*.json")
    } == committed
    assert (printed.returncode, schema.returncode, written.returncode) == (0, 0, 0)


def test_the_command_lists_the_schemas_with_their_topics_under_another_prefix(tmp_path: Path) -> None:
    listed = stripe_ingest("list", "--prefix", "acme", folder=tmp_path)

    (line,) = [line.split() for line in listed.stdout.splitlines() if line.split()[:1] == ["charge"]]
    assert line == ["charge", "urn:stripe-ingest:schema:1:charge", "acme.payments,", "acme.refunds"]


def test_the_command_says_what_breaks_a_consumer_of_an_earlier_contract(tmp_path: Path) -> None:
    earlier = orjson.loads((PUBLISHED / "asyncapi.json").read_bytes())
    (tmp_path / "same.json").write_bytes(orjson.dumps(earlier))
    earlier["components"]["schemas"]["Charge"]["properties"]["fees"] = {"type": "integer"}
    (tmp_path / "earlier.json").write_bytes(orjson.dumps(earlier))
    (tmp_path / "other.json").write_text("{}")

    same = stripe_ingest("compare", "same.json", folder=tmp_path)
    broken = stripe_ingest("compare", "earlier.json", folder=tmp_path)
    other = stripe_ingest("compare", "other.json", folder=tmp_path)

    assert same.returncode == 0
    assert (broken.returncode, broken.stdout) == (1, "Charge.fees: is gone\n")
    assert (other.returncode, other.stdout) == (2, "")
    assert "other.json" in other.stderr


@pytest.mark.parametrize("arguments", [("schema", "mandate"), ("asyncapi", "--prefix", "no spaces")])
def test_the_command_refuses_what_it_does_not_know(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused = stripe_ingest(*arguments, folder=tmp_path)

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr
