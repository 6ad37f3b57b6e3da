"""The watch and `endpoints status`, with a Stripe and a receiver on HTTP: what breaks is seen, and so is its end."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from service.__main__ import main
from service.adapters.dedupe_memory import MemoryDedupeStore
from service.adapters.http_probe import HttpUrlProbe
from service.bootstrap import watch as bootstrap_watch
from service.bootstrap.watch import keep_watched
from service.clock import SystemClock
from service.config import Config, EndpointConfig, ReconcileConfig, StripeConfig
from service.events import Endpoint, Secret
from service.ports import ProbeAnswer
from service.receiver.http import Receiver
from service.simulator.events import sample
from service.simulator.fake_stripe import FakeStripe, RateLimited
from service.simulator.fake_stripe import serving as serving_stripe
from service.stripe_account.endpoint_problems import EndpointProblem
from service.telemetry.metrics import ProcessRegistry
from tests.support.receiving import ScriptedPublisher, receiver, serving
from tests.support.waiting import eventually

EVENTS: Final = ("charge.succeeded", "charge.refunded")
PINNED: Final = "2026-10-28.endive"
INTERVAL_SECONDS: Final = 0.1
"""Less than any configuration may say: nobody waits for it here."""
ACCOUNT: Final = "acct_1SimulatedShop0001"


@dataclass
class World:
    """A Stripe on a port, a receiver that it delivers to, and a configuration that is right."""

    stripe: FakeStripe
    api_base: str
    receiver: Receiver
    url: str
    endpoint_id: str
    config: Config
    registry: ProcessRegistry = field(default_factory=ProcessRegistry)

    def having(self, **changes: Any) -> Config:
        """The configuration with its endpoint changed."""
        (endpoint,) = self.config.endpoints
        return msgspec.structs.replace(self.config, endpoints=(msgspec.structs.replace(endpoint, **changes),))

    def happens(self, event_type: str = "charge.succeeded") -> str:
        """Something happens at the shop; the event's id."""
        event = sample(event_type, seed=time.time_ns(), created=int(time.time()))
        self.stripe.add(event)
        return str(event["id"])

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def problem(self, problem: EndpointProblem, name: str = "shop") -> float | None:
        return self.sample("stripe_ingest_endpoint_problem", endpoint=name, problem=problem.value)

    def runs(self, outcome: str) -> float:
        return (
            self.sample("stripe_ingest_endpoint_watch_runs_total", account=ACCOUNT, mode="test", outcome=outcome) or 0
        )

    async def looked(self) -> None:
        """Return when the watch has begun and ended a look."""
        until = self.runs("done") + 2
        await eventually(lambda: self.runs("done") >= until, what="the watch has looked")


def an_endpoint(secret: str, path: str = "/webhooks/shop") -> Endpoint:
    return Endpoint("shop", path, (Secret(secret),), "test", ACCOUNT, False, EVENTS)


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(bootstrap_watch, "FIRST_LOOK_SECONDS", 0.0)
    store = MemoryDedupeStore(SystemClock(), retention_seconds=3600, max_entries=100)
    receiving = receiver([], ScriptedPublisher(), store)
    fake = FakeStripe(account=ACCOUNT)
    async with serving_stripe(fake) as api_base, serving(receiving) as url:
        made = fake.register(f"{url}/webhooks/shop", EVENTS, api_version=PINNED)
        receiving.serve([an_endpoint(made["secret"])])
        endpoint = EndpointConfig(
            name="shop",
            mode="test",
            account=ACCOUNT,
            secrets=(Secret(made["secret"]),),
            events=EVENTS,
            api_key=Secret(fake.new_key("test", {"webhook_read", "event_read"})),
            url=f"{url}/webhooks/shop",
            api_version=PINNED,
        )
        often = msgspec.structs.replace(
            StripeConfig(api_base=api_base, requests_per_second=100), watch_interval_seconds=INTERVAL_SECONDS
        )
        config = Config(
            stripe=often,
            reconcile=ReconcileConfig(grace_seconds=0),
            endpoints=(endpoint,),
        )
        yield World(fake, api_base, receiving, url, made["id"], config)


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[None]:
    """The watch runs inside the block, with the world's configuration of the time."""
    task = asyncio.create_task(keep_watched(lambda: world.config, world.registry))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def seen(world: World, problem: EndpointProblem, value: float = 1) -> None:
    await eventually(lambda: world.problem(problem) == value, what=f"{problem} is {value}")


def failed_looks(logs: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The lines about them; a receiver's are among the others."""
    return [line for line in logs if line["event"] == "endpoint.watch_failed"]


# --- the watch -------------------------------------------------------------------------------------------------------


async def test_what_is_well_is_shown_as_that(world: World) -> None:
    async with watched(world):
        await eventually(lambda: world.runs("done"), what="the first look")

        assert [world.problem(problem) for problem in EndpointProblem] == [0.0] * len(EndpointProblem)
        assert world.sample("stripe_ingest_endpoint_undelivered_events", endpoint="shop") == 0
        watched_at = world.sample("stripe_ingest_endpoint_watched_timestamp_seconds")
        assert watched_at is not None
        assert abs(watched_at - time.time()) < 60


async def test_an_endpoint_that_stripe_disables_is_seen_and_told_once_and_so_is_its_end(world: World) -> None:
    with capture_logs() as logs:
        async with watched(world):
            await world.looked()
            world.stripe.switch_off(world.endpoint_id)
            await seen(world, EndpointProblem.DISABLED)
            await world.looked()
            world.stripe.book(ACCOUNT, livemode=False).endpoints.update(world.endpoint_id, {"disabled": "false"})
            await seen(world, EndpointProblem.DISABLED, 0)

    told = [(line["event"], line["endpoint"], line["problem"]) for line in logs if "problem" in line]
    assert told == [("endpoint.problem", "shop", "disabled"), ("endpoint.problem_ended", "shop", "disabled")]


async def test_event_types_that_are_taken_away_are_seen(world: World) -> None:
    endpoints = world.stripe.book(ACCOUNT, livemode=False).endpoints
    async with watched(world):
        endpoints.update(world.endpoint_id, {"enabled_events": ["charge.succeeded"]})
        await seen(world, EndpointProblem.EVENTS_MISSING)
        endpoints.update(world.endpoint_id, {"enabled_events": list(EVENTS)})
        await seen(world, EndpointProblem.EVENTS_MISSING, 0)


async def test_a_delivery_that_never_came_is_seen_until_it_does(world: World) -> None:
    async with watched(world):
        world.stripe.deliveries.drop(1.0, seed=1)
        event_id = world.happens()
        world.happens("customer.created")  # which the endpoint does not take
        await seen(world, EndpointProblem.UNDELIVERED)
        assert world.sample("stripe_ingest_endpoint_undelivered_events", endpoint="shop") == 1

        world.stripe.deliveries.resend(event_id, world.endpoint_id)
        await seen(world, EndpointProblem.UNDELIVERED, 0)
        assert world.sample("stripe_ingest_endpoint_undelivered_events", endpoint="shop") == 0


async def test_a_receiver_that_has_lost_the_endpoint_is_seen(world: World) -> None:
    (endpoint,) = world.receiver.endpoints.values()
    async with watched(world):
        world.receiver.serve([replace(endpoint, path="/webhooks/renamed")])
        await seen(world, EndpointProblem.NOT_SERVED)
        world.receiver.serve([endpoint])
        await seen(world, EndpointProblem.NOT_SERVED, 0)


async def test_a_stripe_that_fails_is_counted_and_told_and_what_is_known_stays(world: World) -> None:
    world.stripe.switch_off(world.endpoint_id)
    with capture_logs() as logs:
        async with watched(world):
            await seen(world, EndpointProblem.DISABLED)
            world.stripe.trouble.next(RateLimited(retry_after=3600), times=2, path="/v1/webhook_endpoints")
            await eventually(lambda: world.runs("stripe_unavailable") == 2, what="two looks have failed")
            assert world.problem(EndpointProblem.DISABLED) == 1
            await world.looked()

    failed = [line for line in logs if line["event"] == "endpoint.not_looked_at"]
    assert [(line["reason"], line["endpoints"]) for line in failed] == [("stripe_unavailable", ["shop"])] * 2
    assert not [line for line in logs if line["event"] == "endpoint.problem_ended"]


async def test_events_that_cannot_be_read_leave_what_is_known_of_them(world: World) -> None:
    world.stripe.deliveries.drop(1.0, seed=1)
    world.happens()
    async with watched(world):
        await seen(world, EndpointProblem.UNDELIVERED)
        world.stripe.trouble.next(RateLimited(retry_after=3600), times=2, path="/v1/events")
        await eventually(lambda: world.runs("stripe_unavailable") == 2, what="two looks have failed")

        assert world.problem(EndpointProblem.UNDELIVERED) == 1
        assert world.sample("stripe_ingest_endpoint_undelivered_events", endpoint="shop") == 1


async def test_an_endpoint_that_is_not_configured_any_more_leaves_no_series(world: World) -> None:
    (endpoint,) = world.config.endpoints
    async with watched(world):
        await eventually(lambda: world.runs("done"), what="the first look")

        world.config = world.having(name="store")
        await eventually(lambda: world.problem(EndpointProblem.MISSING, "store") == 0, what="the new one is seen")
        assert [world.problem(problem) for problem in EndpointProblem] == [None] * len(EndpointProblem)
        assert world.sample("stripe_ingest_endpoint_undelivered_events", endpoint="shop") is None

        world.config = msgspec.structs.replace(
            world.config, endpoints=(msgspec.structs.replace(endpoint, api_key=None),)
        )
        await eventually(
            lambda: world.problem(EndpointProblem.MISSING, "store") is None, what="no endpoint is looked at"
        )


async def test_the_certificate_of_an_endpoints_url_is_shown_as_it_was_last_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [datetime(2027, 1, 31, tzinfo=UTC)]

    class WithCertificate(HttpUrlProbe):
        async def ask(self, url: str) -> ProbeAnswer:
            return replace(await super().ask(url), certificate_ends=ends.pop() if ends else None)

    monkeypatch.setattr(bootstrap_watch, "HttpUrlProbe", WithCertificate)
    name = "stripe_ingest_certificate_not_after_timestamp_seconds"
    async with watched(world):
        await eventually(lambda: world.runs("done") >= 2, what="a look that saw it, and one that did not")
        assert world.sample(name, certificate="endpoint/shop") == datetime(2027, 1, 31, tzinfo=UTC).timestamp()

        world.config = world.having(name="store")
        await eventually(lambda: world.problem(EndpointProblem.MISSING, "store") == 0, what="the new one is seen")
        assert world.sample(name, certificate="endpoint/shop") is None


async def test_a_configuration_that_is_wrong_ends_nothing(world: World) -> None:
    right, world.config = world.config, world.having(api_key=Secret("pk_test_public"))
    with capture_logs() as logs:
        async with watched(world):
            await eventually(lambda: failed_looks(logs), what="a look has failed")
            world.config = right
            await eventually(lambda: world.runs("done"), what="a look has not")

    assert {(line["event"], line["reason"]) for line in failed_looks(logs)} == {
        ("endpoint.watch_failed", "configuration")
    }
    assert "pk_test" not in str(logs)


async def test_what_nobody_foresaw_ends_nothing_either(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("with a payload in it")

    with capture_logs() as logs:
        async with watched(world):
            with monkeypatch.context() as patched:
                patched.setattr(bootstrap_watch, "chosen", broken)
                await eventually(lambda: failed_looks(logs), what="a look has failed")
            await eventually(lambda: world.runs("done"), what="a look has not")

    assert {line["error"] for line in failed_looks(logs)} == {"ZeroDivisionError"}
    assert "payload" not in str(logs)


async def test_where_no_endpoint_has_a_key_there_are_no_metrics(world: World) -> None:
    with_key, world.config = world.config, world.having(api_key=None)
    watched_at = "stripe_ingest_endpoint_watched_timestamp_seconds"
    rounds = 0

    def current() -> Config:
        nonlocal rounds
        rounds += 1
        return world.config

    task = asyncio.create_task(keep_watched(current, world.registry))
    try:
        await eventually(lambda: rounds > 2, what="two rounds")
        assert (world.sample(watched_at), world.stripe.requests) == (None, [])

        world.config = with_key
        await eventually(lambda: world.sample(watched_at), what="the endpoint is looked at")

        world.config = world.having(api_key=None)
        await eventually(lambda: world.sample(watched_at) is None, what="nobody looks, and nothing is shown")

        world.config = with_key
        await eventually(lambda: world.sample(watched_at), what="the endpoint is looked at again")
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_interval_of_0_is_off(world: World) -> None:
    off = msgspec.structs.replace(world.config, stripe=StripeConfig(watch_interval_seconds=0))

    await asyncio.wait_for(keep_watched(lambda: off, world.registry), 10)

    assert world.stripe.requests == []


# --- the command -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str

    @property
    def told(self) -> Mapping[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def problems(self) -> Sequence[str]:
        ((endpoint,),) = (account["endpoints"] for account in self.told["accounts"])
        return [problem["kind"] for problem in endpoint["problems"]]


@dataclass
class Shell:
    """The command line, in a thread: it has an event loop of its own."""

    world: World
    folder: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    async def run(self, *arguments: str) -> Ended:
        """Run `endpoints status`."""
        (endpoint,) = self.world.config.endpoints
        key = "" if endpoint.api_key is None else f"api_key = {json.dumps(endpoint.api_key.value)}\n"
        (self.folder / "stripe-ingest.toml").write_text(
            f'[stripe]\napi_base = "{self.world.api_base}"\n[reconcile]\ngrace_seconds = 0\n'
            f'[[endpoints]]\nname = "shop"\nmode = "test"\naccount = "{ACCOUNT}"\nurl = "{endpoint.url}"\n'
            f'secrets = ["{endpoint.secrets[0].value}"]\nevents = {json.dumps(EVENTS)}\napi_version = "{PINNED}"\n{key}'
        )
        self.monkeypatch.setattr(sys, "argv", ["stripe-ingest", "endpoints", "status", *arguments])
        self.capsys.readouterr()
        with capture_logs():  # the receiver's
            code = await asyncio.to_thread(_exit_code)
        out, err = self.capsys.readouterr()
        assert endpoint.secrets[0].value not in out + err
        assert endpoint.api_key is None or endpoint.api_key.value not in out + err
        return Ended(code, out, err)


def _exit_code() -> int | str | None:
    try:
        main()
    except SystemExit as done:
        return done.code
    raise AssertionError("main always exits")


@pytest.fixture
def shell(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("service.commands.options.configure", lambda *_: None)
    for name in [name for name in os.environ if name.startswith("STRIPE_")]:
        monkeypatch.delenv(name)
    return Shell(world, tmp_path, capsys, monkeypatch)


async def test_status_of_what_is_well_ends_with_0(shell: Shell, world: World) -> None:
    ended = await shell.run()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("The endpoints are as they should be.\n")
    assert world.endpoint_id in ended.out

    assert (await shell.run("--json")).told == {
        "accounts": [
            {
                "account": ACCOUNT,
                "mode": "test",
                "used": 1,
                "left": 15,
                "endpoints": [
                    {
                        "name": "shop",
                        "mode": "test",
                        "webhook_endpoint_id": world.endpoint_id,
                        "url": f"{world.url}/webhooks/shop",
                        "enabled": True,
                        "api_version": PINNED,
                        "undelivered": {"count": 0, "oldest": None, "more": False},
                        "problems": [],
                        "notes": [],
                    }
                ],
                "notes": [],
            }
        ],
        "failures": [],
        "not_looked_at": [],
    }


async def test_status_of_what_is_wrong_ends_with_1_until_it_is_repaired(shell: Shell, world: World) -> None:
    endpoints = world.stripe.book(ACCOUNT, livemode=False).endpoints
    world.stripe.deliveries.drop(1.0, seed=1)
    event_id = world.happens()
    world.stripe.switch_off(world.endpoint_id)
    endpoints.update(world.endpoint_id, {"enabled_events": ["charge.succeeded"]})

    wrong = await shell.run("--json")
    assert (wrong.code, wrong.problems) == (1, ["disabled", "events_missing", "undelivered"])
    shown = await shell.run()
    assert shown.code == 1
    assert "shop: disabled: it is switched off at Stripe" in shown.out
    assert "shop: undelivered: 1 event was not taken" in shown.out

    endpoints.update(world.endpoint_id, {"enabled_events": list(EVENTS), "disabled": "false"})
    world.stripe.deliveries.resend(event_id, world.endpoint_id)
    await eventually(lambda: world.stripe.pending(event_id) == 0, what="the event is delivered")

    repaired = await shell.run("--json")
    assert (repaired.code, repaired.problems) == (0, [])


async def test_status_changes_nothing(shell: Shell, world: World) -> None:
    world.stripe.switch_off(world.endpoint_id)
    await shell.run()

    assert {request.method for request in world.stripe.requests} == {"GET"}


async def test_a_key_that_may_not_list_endpoints_is_told_with_the_permission(shell: Shell, world: World) -> None:
    world.config = world.having(api_key=Secret(world.stripe.new_key("test", {"event_read"})))

    ended = await shell.run("--json")

    assert (ended.code, ended.told["accounts"]) == (1, [])
    (failure,) = ended.told["failures"]
    assert (failure["endpoints"], failure["error"]) == (["shop"], "stripe_permission_missing")
    assert "webhook_read" in ended.err


async def test_a_key_that_may_not_read_events_leaves_that_open(shell: Shell, world: World) -> None:
    world.config = world.having(api_key=Secret(world.stripe.new_key("test", {"webhook_read"})))

    ended = await shell.run()

    assert ended.code == 0
    assert "shop: events_unread: the key may not read events (event_read)" in ended.out


async def test_a_key_that_stripe_refuses_ends_with_2_and_an_absent_one_too(shell: Shell, world: World) -> None:
    world.config = world.having(api_key=Secret("rk_test_nobody_knows"))
    assert (await shell.run()).code == 2

    world.config = world.having(api_key=None)
    ended = await shell.run()
    assert (ended.code, ended.out) == (2, "")
    assert "endpoints (shop).api_key" in ended.err


async def test_a_stripe_that_is_away_ends_with_75(shell: Shell, world: World) -> None:
    world.stripe.trouble.next(RateLimited(retry_after=3600))

    assert (await shell.run()).code == 75
