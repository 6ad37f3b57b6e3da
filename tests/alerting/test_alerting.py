"""Time compressed, a fault for every alert, some of them injected, and the way from an alert back to rows that are right."""

import re
from pathlib import Path

import pytest
import yaml

from service.local.kafka import LocalKafka
from service.local.postgres import LocalPostgres
from service.local.redis import LocalRedis
from tests.alerting.faults import execute
from tests.alerting.running import RUNBOOKS, play
from tests.alerting.scaling import compressed, compressed_text, seconds_of
from tests.alerting.scenarios import SCENARIOS
from tests.alerting.world import Servers, World, rule_files, world
from tests.support.processes import CommandLine
from tests.support.waiting import eventually

FIRES_SECONDS_MAX = 60.0
INJECTED = ("StripeIngestDeadLetters", "StripeIngestSecretWrong", "StripeIngestReceiverAbsent")
"""The others take an hour: `python -m tests.alerting`."""


def alerts() -> set[str]:
    return {
        rule["alert"]
        for file in rule_files()
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def test_there_is_a_fault_for_every_alert_and_one_only() -> None:
    named = [each.alert for each in SCENARIOS]

    assert sorted(named) == sorted(alerts())


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("increase(x_total[5m]) > 3", "increase(x_total[5000ms]) > 3"),
        ("time() - x > 1h30m offset 5m", "time() - x > 11900ms offset 5000ms"),
        ('stripe_ingest:deliveries:increase15m{le="5m"} >= 5', 'stripe_ingest:deliveries:increase15m{le="5m"} >= 5'),
        ("0s", "0ms"),
    ],
)
def test_durations_are_compressed_and_nothing_else(given: str, wanted: str) -> None:
    assert compressed_text(given) == wanted


def test_compressing_keeps_the_order_of_durations() -> None:
    durations = ["0s", "1s", "30s", "1m", "5m", "1h", "1h1m", "12h", "1d", "3d", "1w", "30d"]

    seconds = [compressed(seconds_of(duration)) for duration in durations]

    assert seconds == sorted(set(seconds))


@pytest.fixture
async def on(kafka: LocalKafka, migrated_postgres: LocalPostgres, redis: LocalRedis) -> Servers:
    return Servers(kafka, migrated_postgres, redis)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("alert", INJECTED)
async def test_a_fault_fires_its_alert(alert: str, on: Servers, topic_prefix: str) -> None:
    """What else fires on a machine as busy as a test's is told by `python -m tests.alerting`, not here."""
    (scenario,) = (each for each in SCENARIOS if each.alert == alert)

    played = await play(scenario, on, topic_prefix)

    assert played.problem is None
    assert played.fired_after_seconds is not None


def commands(alert: str, group: str) -> list[str]:
    """The commands of a group that a runbook tells one to run, in its order."""
    found = re.findall(rf"stripe-ingest ({group} [^`\n]+)", (RUNBOOKS / f"{alert}.md").read_text("utf-8"))
    return list(dict.fromkeys(found))


@pytest.mark.timeout(300)
async def test_from_an_alert_to_the_affected_events_and_their_replay_by_the_runbook_alone(
    on: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    """A constraint that somebody has put on the table has the database refuse rows; then it is taken away again."""
    many = {"STRIPE_INGEST__CONSUMER__DEAD_LETTER_LIMIT": "10000"}
    async with world(tmp_path, on, topic_prefix, settings=many, until_quiet=False) as here:
        await execute(here, "ALTER TABLE payments ADD CONSTRAINT planted CHECK (status <> 'succeeded') NOT VALID")
        await eventually(
            lambda: fires(here, "StripeIngestDeadLetters"), timeout_seconds=FIRES_SECONDS_MAX, what="the alert fires"
        )
        here.traffic.per_second = 0
        await execute(here, "ALTER TABLE payments DROP CONSTRAINT planted")

        listing, showing, dry, *_ = commands("StripeIngestDeadLetters", "dead-letter")
        command = CommandLine(here.environment | {"STRIPE_INGEST_CONFIG": str(here.config_file)})
        listed = await command.run(*listing.split(), "--json")
        letters = listed.listed
        assert {letter["reason"] for letter in letters} == {"row_refused"}
        shown = await command.run(*showing.replace("<id>", letters[0]["id"]).split())
        assert letters[0]["id"] in shown.out
        dry = dry.replace("<reason>", letters[0]["reason"])
        would = await command.run(*dry.split())
        assert would.code == 0
        replayed = await command.run(*dry.removesuffix(" --dry-run").split(), "--yes")
        assert replayed.code == 0

        events = {letter["id"] for letter in letters}

        async def applied() -> bool:
            rows = await here.query("SELECT event_id FROM payment_events")
            return events <= {row["event_id"] for row in rows}

        await eventually(applied, timeout_seconds=60, what="every dead letter is in the ledger")


async def fires(here: World, alert: str) -> bool:
    return alert in await here.prometheus.firing()
