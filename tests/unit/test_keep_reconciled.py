"""What each replica does in each interval: nothing where another does it, and no failure goes uncounted or further."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.adapters.memory_stripe import MemoryStripeReader
from service.bootstrap import recovery as module
from service.bootstrap.recovery import Recovery, Rounds, event_sources, keep_reconciled
from service.config import Config, DatabaseConfig, DedupeConfig, EndpointConfig, ReconcileConfig
from service.errors import StripeUnavailable
from service.events import Secret
from service.ports import StripePage
from service.recovery.sources import Source
from service.telemetry.metrics import RecoveryMetrics
from tests.support.recovering import World
from tests.support.signing import SECRET
from tests.support.waiting import eventually

RUNS = "stripe_ingest_reconcile_runs_total"
CONFIG = Config(
    database=DatabaseConfig(url=Secret("postgresql://nobody@127.0.0.1:9/nothing")),
    endpoints=(EndpointConfig(name="shop", mode="test", secrets=(SECRET,), api_key=Secret("rk_test_1")),),
)


class Broken(MemoryStripeReader):
    """A reader with a bug."""

    async def events(self, **_: Any) -> StripePage:
        raise ZeroDivisionError


@dataclass
class Replica:
    """A replica in this process."""

    world: World
    undecided: Sequence[tuple[str, str]] = ()
    sources: list[Source] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    opened: int = 0
    """How often it has opened what needs Kafka."""

    def __post_init__(self) -> None:
        self.sources.append(self.world.source)
        self.rounds = Rounds(RecoveryMetrics(self.registry))

    def runs(self, outcome: str, account: str = "acct_1") -> float | None:
        labels = {"account": account, "mode": "test", "outcome": outcome}
        return self.registry.get_sample_value(RUNS, labels)

    def ties(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("stripe_ingest_tie_reads_total", {"outcome": outcome})


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Replica:
    world = World()
    made = Replica(world)

    class Undecided:
        async def undecided(
            self, *, account: str, livemode: bool, before: datetime, limit: int
        ) -> Sequence[tuple[str, str]]:
            assert (account, livemode, before < world.clock.now()) == ("acct_1", False, True)
            return made.undecided[:limit]

    @asynccontextmanager
    async def recovery(config: Config) -> AsyncIterator[Recovery]:
        made.opened += 1
        yield Recovery(config, world.ingest, world.jobs)

    def having(what: Any) -> Any:
        @asynccontextmanager
        async def opened(_: Config) -> AsyncIterator[Any]:
            yield what

        return opened

    monkeypatch.setattr(module, "SystemClock", lambda: world.clock)
    monkeypatch.setattr(module, "recovery", recovery)
    monkeypatch.setattr(module, "_job_store", having(world.jobs))
    monkeypatch.setattr(module, "_undecided_objects", having(Undecided()))
    monkeypatch.setattr(module, "event_sources", having(made.sources))
    monkeypatch.setattr(module, "object_sources", having(made.sources))
    return made


async def test_a_replica_does_what_is_due_and_counts_it(replica: Replica) -> None:
    missed = replica.world.happens(2)

    await replica.rounds.one(CONFIG)

    assert set(replica.world.published()) == set(missed)
    assert (replica.opened, replica.runs("done")) == (1, 1)


async def test_the_first_missed_event_of_a_type_that_an_endpoint_has_is_seen_to_be_one_more(replica: Replica) -> None:
    (endpoint,) = CONFIG.endpoints
    having = msgspec.structs.replace(endpoint, events=("charge.succeeded", "payment_intent.pondered", "charge.failed"))

    await replica.rounds.one(msgspec.structs.replace(CONFIG, endpoints=(having,)))

    (counts,) = (family for family in replica.registry.collect() if family.name == "stripe_ingest_missed_events")
    assert {sample.labels["event_type"]: sample.value for sample in counts.samples} == {
        "charge.failed": 0,
        "charge.succeeded": 0,
    }


async def test_what_another_has_done_within_the_interval_opens_nothing(replica: Replica) -> None:
    await replica.rounds.one(CONFIG)
    replica.world.clock.advance(600)

    await replica.rounds.one(CONFIG)
    assert (replica.opened, replica.runs("done")) == (1, 1)

    replica.world.clock.advance(300)
    await replica.rounds.one(CONFIG)
    assert (replica.opened, replica.runs("done")) == (2, 2)


async def test_what_another_is_doing_opens_nothing_and_is_counted_as_that(replica: Replica) -> None:
    await replica.world.jobs.begin("reconcile:acct_1/test", owner="another", lease_seconds=60)

    with capture_logs() as logs:
        await replica.rounds.one(CONFIG)

    assert (replica.opened, replica.runs("job_held"), logs) == (0, 1, [])


async def test_a_failure_that_nobody_foresaw_is_counted_and_keeps_no_other_account_waiting(replica: Replica) -> None:
    missed = replica.world.happens(1)
    (endpoint,) = replica.world.endpoints
    endpoints = [replace(endpoint, account="acct_broken")]
    replica.sources.insert(0, Source("broken", False, Broken(replica.world.stripe, None), endpoints))

    with capture_logs() as logs:
        await replica.rounds.one(CONFIG)

    assert replica.runs("internal_error", "acct_broken") == 1
    assert (replica.runs("done"), set(replica.world.published())) == (1, set(missed))
    (failed,) = (line for line in logs if line["event"] == "reconcile.failed")
    assert (failed["error"], failed["account"]) == ("ZeroDivisionError", "acct_broken")


async def test_a_stripe_that_is_away_is_counted_by_its_tag(replica: Replica) -> None:
    replica.world.stripe.fail(StripeUnavailable("away"))

    await replica.rounds.one(CONFIG)

    assert (replica.runs("stripe_unavailable"), replica.runs("done")) == (1, None)


async def test_ties_that_cannot_be_settled_do_not_make_the_run_a_failed_one(replica: Replica) -> None:
    replica.undecided = [("charge", "ch_1"), ("payment_intent", "pi_gone")]
    replica.sources[:] = [
        replace(replica.world.source, reader=replica.world.stripe.reader({"event_read", "charge_read"}))
    ]

    await replica.rounds.one(CONFIG)

    assert replica.runs("done") == 1
    assert (replica.ties("gone"), replica.ties("not_permitted")) == (1, 1)

    # Neither is asked about again in each round: nothing is opened for them.
    replica.world.clock.advance(900)
    before = replica.opened
    await replica.rounds.one(CONFIG)
    assert replica.opened == before + 1
    assert (replica.ties("gone"), replica.ties("not_permitted")) == (1, 1)


async def test_a_key_that_is_replaced_finds_the_jobs_of_the_one_before() -> None:
    (endpoint,) = CONFIG.endpoints

    async def name(key: str, mode: Any = "test") -> str:
        keyed = EndpointConfig(name=endpoint.name, mode=mode, secrets=endpoint.secrets, api_key=Secret(key))
        async with event_sources(Config(endpoints=(keyed,))) as (source,):
            return source.name

    assert await name("rk_test_1") == await name("sk_test_2")
    assert await name("rk_test_1") != await name("rk_live_1", "live")


async def test_two_keys_have_jobs_of_their_own() -> None:
    (endpoint,) = CONFIG.endpoints
    other = EndpointConfig(name="other", mode="test", secrets=endpoint.secrets, api_key=Secret("rk_test_2"))

    async with event_sources(Config(endpoints=(endpoint, other))) as sources:
        assert len({source.name for source in sources}) == 2


@pytest.mark.parametrize(
    ("config", "logged"),
    [
        (Config(endpoints=CONFIG.endpoints, dedupe=DedupeConfig(url=Secret("redis://127.0.0.1:9/0"))), "database.url"),
        (
            Config(database=CONFIG.database, endpoints=CONFIG.endpoints, dedupe=DedupeConfig(url=Secret("memory://"))),
            None,
        ),
        (
            Config(database=CONFIG.database, endpoints=CONFIG.endpoints, reconcile=ReconcileConfig(interval_seconds=0)),
            None,
        ),
    ],
    ids=["no database", "memory", "off"],
)
async def test_where_there_is_nothing_to_do_it_with_it_ends_and_says_what_is_wrong(
    config: Config, logged: str | None
) -> None:
    with capture_logs() as logs:
        await keep_reconciled(lambda: config, CollectorRegistry())

    assert [logged in line["detail"] for line in logs] == ([True] if logged else [])


async def test_a_key_that_is_none_is_told_in_each_round_without_being_quoted() -> None:
    wrong = Config(
        database=CONFIG.database,
        endpoints=(EndpointConfig(name="shop", secrets=(SECRET,), api_key=Secret("pk_test_1")),),
    )
    with capture_logs() as logs:
        kept = asyncio.create_task(keep_reconciled(lambda: wrong, CollectorRegistry()))
        await eventually(lambda: logs, what="the first round has failed")
        assert not kept.done()
        kept.cancel()
        await asyncio.gather(kept, return_exceptions=True)

    assert [(line["event"], line["reason"]) for line in logs] == [("reconcile.failed", "configuration")]
    assert "pk_test" not in str(logs)


async def test_without_a_key_nothing_is_opened_and_with_one_that_comes_later_it_is(replica: Replica) -> None:
    keyless = msgspec.structs.replace(
        CONFIG, endpoints=tuple(msgspec.structs.replace(each, api_key=None) for each in CONFIG.endpoints)
    )

    await replica.rounds.one(keyless)
    assert (replica.opened, replica.runs("done")) == (0, None)

    await replica.rounds.one(CONFIG)
    assert replica.runs("done") == 1
