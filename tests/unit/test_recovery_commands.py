"""`reconcile` and `backfill` on an account in memory: what they refuse, what they print, and what they end with."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from service.__main__ import main
from service.adapters.memory_kafka import MemoryRecordLog
from service.adapters.memory_stripe import MemoryStripeReader
from service.bootstrap.recovery import Recovery
from service.config import Config
from service.errors import StripeUnavailable
from service.ports import StripePage
from service.recovery.sources import Source
from service.simulator.events import sample
from tests.support.fake_stripe import ManualClock
from tests.support.recovering import World, endpoint


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str

    @property
    def lines(self) -> Sequence[Mapping[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run: TypeAlias = Callable[..., Ended]


class Failing(MemoryStripeReader):
    """Stripe is away."""

    async def events(self, **_: Any) -> StripePage:
        raise StripeUnavailable("Stripe is away")

    async def objects(self, *_: Any, **__: Any) -> StripePage:
        raise StripeUnavailable("Stripe is away")


@pytest.fixture
def world() -> World:
    return World(clock=ManualClock(datetime.now(UTC).replace(microsecond=0)))


@pytest.fixture
def sources(world: World) -> list[Source]:
    return [world.source]


@pytest.fixture
def run(
    world: World,
    sources: list[Source],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """The command line with a configuration of its own."""

    @asynccontextmanager
    async def recovery(config: Config) -> AsyncIterator[Recovery]:
        vars(world).pop("ingest", None)  # it was of another event loop
        yield Recovery(config, world.ingest, world.jobs)

    @asynccontextmanager
    async def opened(_: Config) -> AsyncIterator[Sequence[Source]]:
        yield sources

    @asynccontextmanager
    async def log(_: Config) -> AsyncIterator[MemoryRecordLog]:
        yield MemoryRecordLog(world.kafka)

    for name, replaced in (
        ("reconcile.recovery", recovery),
        ("reconcile.event_sources", opened),
        ("backfill.recovery", recovery),
        ("backfill.object_sources", opened),
        ("backfill.record_log", log),
        ("options.configure", lambda *_: None),  # the log of the other tests stays as it is
    ):
        monkeypatch.setattr(f"service.commands.{name}", replaced)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STRIPE")]:
        monkeypatch.delenv(name)
    (tmp_path / "stripe-ingest.toml").write_text(
        '[database]\nurl = "postgresql://nobody@127.0.0.1:1/none"\n'
        '[[endpoints]]\nname = "shop"\nmode = "test"\nsecrets = ["whsec_0123456789abcdef"]\napi_key = "rk_test_1"\n'
    )

    def ended(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["stripe-ingest", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return Ended(done.value.code, out, err)

    return ended


def put(world: World, count: int) -> None:
    """So many payment intents."""
    for n in range(count):
        created = int((world.clock.now() - timedelta(hours=1)).timestamp()) - n
        world.stripe.put(
            "payment_intents", sample("payment_intent.succeeded", seed=n, created=created)["data"]["object"]
        )


@pytest.mark.parametrize("since", ["0s", "15m"])
def test_looking_back_no_further_than_the_grace_is_refused_rather_than_told_as_nothing_missing(
    run: Run, since: str
) -> None:
    ended = run("reconcile", "--since", since)

    assert (ended.code, ended.out) == (2, "")
    assert "--since: an event is Stripe's to deliver for 900 s" in ended.err


def test_a_dry_run_ends_with_1_where_something_is_missing_and_a_run_publishes_it(run: Run, world: World) -> None:
    missed = world.happens(2)

    looked = run("reconcile", "--dry-run", "--json")
    done = run("reconcile", "--json")
    again = run("reconcile", "--dry-run", "--json")

    assert [ended.code for ended in (looked, done, again)] == [1, 0, 0]
    for ended in (looked, done):
        *missing, summary = ended.lines
        assert {line["missing"]["event_id"] for line in missing} == set(missed)
        assert (summary["account"], summary["listed"], summary["missing"]) == (
            "acct_1", 2, {"payment_intent.succeeded": 2},
        )  # fmt: skip
    assert again.lines[0]["known"] == 2


def test_what_was_published_before_a_run_failed_is_told(run: Run, world: World, sources: list[Source]) -> None:
    world.happens(2)
    sources.append(replace(world.source, name="other", reader=Failing(world.stripe, None)))

    ended = run("reconcile")

    assert ended.code == 75
    assert "payment_intent.succeeded" in ended.out
    assert "Stripe is away" in ended.err


def test_a_run_that_fails_at_once_prints_no_table_of_nothing(run: Run, world: World, sources: list[Source]) -> None:
    sources[:] = [replace(world.source, reader=Failing(world.stripe, None))]

    assert (ended := run("reconcile")).code == 75
    assert ended.out == ""


def test_the_lists_that_were_done_before_one_failed_are_told(run: Run, world: World, sources: list[Source]) -> None:
    put(world, 3)
    sources.append(replace(world.source, name="other", reader=Failing(world.stripe, None)))

    ended = run("backfill", "payment_intents", "--json")

    assert ended.code == 75
    (line,) = ended.lines
    assert (line["objects"], line["published"]) == ("payment_intents", 3)


@pytest.mark.parametrize("command", [("reconcile",), ("backfill", "charges")], ids=lambda command: command[0])
def test_keys_of_connected_accounts_alone_are_told_to_read_nothing(
    run: Run, sources: list[Source], command: Sequence[str]
) -> None:
    sources.clear()

    ended = run(*command)

    assert (ended.code, ended.out) == (2, "")
    assert "connect = true" in ended.err


def test_a_moment_that_no_calendar_has_in_utc_is_bad_usage(run: Run) -> None:
    assert run("backfill", "charges", "--since", "0001-01-01T00:00:00+05:00").code == 2


@pytest.mark.parametrize("dry_run", [True, False])
def test_only_a_run_that_keeps_something_says_on_ctrl_c_that_it_will_go_on(
    run: Run, world: World, sources: list[Source], dry_run: bool
) -> None:
    class Interrupted(MemoryStripeReader):
        async def events(self, **_: Any) -> StripePage:
            raise KeyboardInterrupt

    sources[:] = [replace(world.source, reader=Interrupted(world.stripe, None))]

    ended = run("reconcile", *(["--dry-run"] if dry_run else []))

    assert (ended.code, "goes on from there" in ended.err) == (130, not dry_run)


def test_an_endpoint_that_is_none_and_a_topic_that_is_none_are_refused(run: Run) -> None:
    unknown = run("backfill", "charges", "--endpoint", "shoop")
    no_topic = run("backfill", "--ids-from", "stripe.othr")

    assert (unknown.code, no_topic.code) == (2, 2)
    assert "'shoop'" in unknown.err
    assert "there is no topic stripe.othr" in no_topic.err


def test_a_length_of_time_goes_on_where_it_was_interrupted(run: Run, world: World, sources: list[Source]) -> None:
    put(world, 9)
    whole = sources[0].reader

    class FailingLater(Failing):
        async def objects(self, *listed: Any, **asked: Any) -> StripePage:
            if asked["after"] is None:
                return await whole.objects(*listed, **asked)
            return await super().objects()

    sources[:] = [replace(world.source, reader=FailingLater(world.stripe, None))]
    interrupted = run("backfill", "payment_intents", "--since", "1d", "--json")
    sources[:] = [world.source]

    again = run("backfill", "payment_intents", "--since", "1d", "--json")
    other = run("backfill", "payment_intents", "--since", "2d", "--json")

    assert [ended.code for ended in (interrupted, again, other)] == [75, 0, 0]
    assert [ended.lines[0]["read"] for ended in (again, other)] == [6, 9]


def test_every_account_is_read_or_that_of_an_endpoint(run: Run, world: World, sources: list[Source]) -> None:
    put(world, 1)
    sources.append(replace(world.source, name="other", endpoints=(endpoint("other"),)))

    assert len(run("backfill", "payment_intents", "--json").lines) == 2
    assert len(run("backfill", "payment_intents", "--endpoint", "other", "--json").lines) == 1
