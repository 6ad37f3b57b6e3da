"""What `endpoints status` and the watch find: each problem by itself, what is no problem, and what nobody can know."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from rich.console import Console

from service.adapters.memory_stripe import MemoryStripe
from service.adapters.memory_webhook_endpoints import MemoryWebhookEndpoints
from service.commands.endpoint_status import show
from service.config import Config
from service.credentials.book import Creation, Credentials, EndpointCredentials
from service.errors import StripeKeyRefused, StripeUnavailable
from service.events import Secret
from service.ports import ProbeAnswer
from service.simulator.events import sample
from service.stripe_account import endpoint_look
from service.stripe_account.endpoint_look import Looked, Looking, ReadEvents, SeenAccount, undelivered_events
from service.stripe_account.endpoint_matching import CREATION, ENDPOINT, QUIET, REPLACES
from service.stripe_account.endpoint_problems import (
    AccountStatus,
    EndpointNote,
    EndpointProblem,
    EndpointStatus,
    Note,
    Problem,
)
from service.stripe_account.endpoint_renderings import configured_renderings, mixed_versions
from service.stripe_account.endpoint_subjects import Listing, subjects
from tests.support.endpoints import API_KEY, PUBLIC_URL, config, endpoint, keeping, signing
from tests.support.fake_stripe import ManualClock

URL = f"{PUBLIC_URL}/webhooks/shop"
EVENTS = ("charge.succeeded", "charge.refunded")
PINNED = "2026-10-28.endive"
OURS = ProbeAnswer(400, b'{"error":"signature_missing","detail":"there is no Stripe-Signature header"}')


class ScriptedProbe:
    """Answers what a test says, and remembers what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, ProbeAnswer] = {}
        self.asked: list[str] = []

    async def ask(self, url: str) -> ProbeAnswer:
        self.asked.append(url)
        return self.answers.get(url, OURS)

    async def close(self) -> None:
        """There is nothing to give back."""


@dataclass
class World:
    """A configuration whose one endpoint is at Stripe as it should be, until a test says otherwise."""

    config: Config = field(default_factory=lambda: config(endpoint(api_version=PINNED)))
    clock: ManualClock = field(default_factory=ManualClock)
    probe: ScriptedProbe = field(default_factory=ScriptedProbe)
    credentials: Credentials = field(default_factory=Credentials)
    permissions: frozenset[str] | None = None

    def __post_init__(self) -> None:
        self.stripe = MemoryWebhookEndpoints(self.clock)
        self.events = MemoryStripe(self.clock)
        made = self.stripe.register(URL, EVENTS, api_version=PINNED, metadata={ENDPOINT: "shop"})
        self.shop = made.endpoint.id
        self.credentials = keeping(signing(made.secret.value, self.shop, self.clock))

    @property
    def merged(self) -> Config:
        """The configuration with what is kept, as a receiver has it."""
        completed = tuple(
            msgspec.structs.replace(
                each, secrets=each.secrets or tuple(kept.value for kept in self.credentials.of(each.name).signing)
            )
            for each in self.config.endpoints
        )
        return msgspec.structs.replace(self.config, endpoints=completed)

    @property
    def looking(self) -> Looking:
        names = tuple(each.name for each in self.config.endpoints if each.api_key is not None)
        return Looking(
            self.merged,
            self.credentials,
            [SeenAccount("test", names, self.stripe.client())],
            [ReadEvents("test", names, self.events.reader(self.permissions))],
            self.probe,
            self.clock,
        )

    async def look(self) -> Looked:
        return await self.looking.look()

    async def account(self) -> AccountStatus:
        (account,) = (await self.look()).status.accounts
        return account

    async def status(self, name: str = "shop") -> EndpointStatus:
        (found,) = (each for each in (await self.account()).endpoints if each.name == name)
        return found

    async def problems(self, name: str = "shop") -> list[EndpointProblem]:
        return [each.kind for each in (await self.status(name)).problems]

    async def notes(self, name: str = "shop") -> list[EndpointNote]:
        return [each.kind for each in (await self.status(name)).notes]

    async def said(self, kind: EndpointProblem | EndpointNote) -> str:
        status = await self.status()
        found: Sequence[Problem | Note] = [*status.problems, *status.notes]
        (said,) = (each.said for each in found if each.kind is kind)
        return said

    async def change(self, **changes: Any) -> None:
        await self.stripe.client().update(self.shop, **changes)

    def happens(self, *ages: timedelta, event_type: str = "charge.succeeded", pending: int = 1) -> None:
        """Events that so many endpoints have not taken."""
        for place, age in enumerate(ages):
            created = int((self.clock.now() - age).timestamp())
            event = sample(event_type, seed=created * 1000 + place, created=created)
            self.events.add({**event, "pending_webhooks": pending})


async def test_an_endpoint_that_is_as_it_should_be_has_neither_problems_nor_notes() -> None:
    world = World()
    looked = await world.look()

    assert (looked.failures, looked.status.has_problems) == ((), False)
    assert await world.status() == EndpointStatus(
        name="shop",
        mode="test",
        endpoint_id=world.shop,
        url=URL,
        enabled=True,
        api_version=PINNED,
        undelivered=(await world.status()).undelivered,
        problems=(),
        notes=(),
    )
    assert world.probe.asked == [URL, URL, URL]


async def test_on_a_narrow_terminal_ids_are_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = "we_1PmUJisYJvEHsLlIgptdn0B6"
    world = World(config(endpoint("subscriptions-and-one-time-payments", api_version=PINNED)))
    (made,) = world.stripe.endpoints
    world.stripe._endpoints = {real: replace(made, id=real, metadata={ENDPOINT: world.config.endpoints[0].name})}
    monkeypatch.setattr("service.commands.endpoint_status.new_console", lambda: Console(width=80))

    show(await world.look())

    table = capsys.readouterr().out.split("\n\n")[0]
    assert f" {real} " in table
    assert f" {PINNED} " in table
    assert "…" not in table


async def test_an_endpoint_that_stripe_does_not_have_is_missing() -> None:
    world = World()
    world.stripe.remove(world.shop)

    assert await world.problems() == [EndpointProblem.MISSING]
    assert "`endpoints apply shop`" in await world.said(EndpointProblem.MISSING)


async def test_the_advice_is_another_where_the_configuration_has_the_secrets() -> None:
    world = World(config(endpoint(api_version=PINNED, secrets=(Secret("whsec_new"), Secret("whsec_old")))))
    assert "endpoints (shop).secrets has the old one too" in await world.said(EndpointNote.ROLL_UNDER_WAY)

    world.stripe.remove(world.shop)
    assert "once endpoints (shop).secrets are out" in await world.said(EndpointProblem.MISSING)


async def test_of_a_missing_one_that_stripe_could_not_reach_it_is_said_why() -> None:
    world = World(config(endpoint(url="http://localhost:8080/webhooks/shop")))
    world.stripe.remove(world.shop)

    assert "is on this machine" in await world.said(EndpointProblem.MISSING)


@pytest.mark.parametrize(
    ("changes", "problem", "said"),
    [
        ({"enabled": False}, EndpointProblem.DISABLED, "`endpoints enable shop`"),
        ({"url": "https://old.example.com/hook"}, EndpointProblem.URL_DIFFERS, "https://old.example.com/hook"),
        ({"enabled_events": ["charge.succeeded"]}, EndpointProblem.EVENTS_MISSING, "charge.refunded"),
    ],
)
async def test_what_differs_at_stripe_is_a_problem_with_its_way_out(
    changes: dict[str, Any], problem: EndpointProblem, said: str
) -> None:
    world = World()
    await world.change(**changes)

    assert await world.problems() == [problem]
    assert said in await world.said(problem)


async def test_a_configuration_that_wants_all_events_misses_them_in_a_list() -> None:
    world = World(config(endpoint(events=())))

    assert await world.problems() == [EndpointProblem.EVENTS_MISSING]


async def test_more_events_than_configured_are_no_problem() -> None:
    world = World()
    for events in ([*EVENTS, "payout.paid"], ["*"]):
        await world.change(enabled_events=events)
        assert (await world.problems(), await world.notes()) == ([], [EndpointNote.EXTRA_EVENTS])


async def test_another_api_version_is_a_problem_only_where_one_is_configured() -> None:
    for configured, problems in ((None, []), ("2025-03-31.basil", [EndpointProblem.API_VERSION_DIFFERS])):
        assert await World(config(endpoint(api_version=configured))).problems() == problems


async def test_one_that_follows_its_account_is_told_of() -> None:
    world = World(config(endpoint(secrets=(Secret("whsec_own"),))))
    world.stripe.remove(world.shop)
    world.stripe.register(URL, EVENTS)

    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.NOT_PINNED])


async def test_one_whose_secret_nobody_has_is_a_problem_unless_the_configuration_has_one() -> None:
    world = World(credentials=Credentials())
    world.credentials = Credentials()
    assert await world.problems() == [EndpointProblem.SECRET_UNKNOWN]

    world.config = config(endpoint(secrets=(Secret("whsec_from_the_dashboard"),), api_version=PINNED))
    assert await world.problems() == []


async def test_secrets_of_the_store_are_told_from_the_configurations_own() -> None:
    world = World()
    world.credentials = keeping(signing("whsec_of_another", "we_deleted", world.clock))

    assert await world.problems() == [EndpointProblem.SECRET_UNKNOWN]


async def test_a_second_one_with_the_same_url_is_a_problem() -> None:
    world = World()
    other = world.stripe.register(URL.replace("https://hooks", "HTTPS://Hooks"), EVENTS).endpoint

    assert await world.problems() == [EndpointProblem.DOUBLED]
    assert other.id in await world.said(EndpointProblem.DOUBLED)

    await world.stripe.client().update(other.id, enabled=False)
    assert await world.problems() == []


async def test_one_that_another_deployment_calls_the_same_is_a_stranger() -> None:
    world = World()
    other = world.stripe.register("https://theirs.example.com/x", EVENTS, metadata={ENDPOINT: "shop"}).endpoint
    gone = world.stripe.register("https://theirs.example.com/y", EVENTS, metadata={ENDPOINT: "gone"}).endpoint

    account = await world.account()

    assert (await world.problems(), await world.notes()) == ([], [])
    (note,) = account.notes
    assert note.kind is EndpointNote.STRANGERS
    assert other.id in note.said
    assert gone.id in note.said


async def test_one_that_waits_for_receivers_misses_no_events() -> None:
    world = World()
    quiet = {ENDPOINT: "shop", REPLACES: world.shop, QUIET: "yes"}
    second = world.stripe.register(URL, ("topup.reversed",), api_version=PINNED, metadata=quiet)
    signed = signing(second.secret.value, second.endpoint.id, world.clock)
    old = world.credentials.of("shop")
    world.credentials = world.credentials.having("shop", old.with_signing(signed))
    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.ROLL_UNDER_WAY])
    assert (await world.status()).endpoint_id == world.shop

    # Also where the old one's secret is not known.
    world.credentials = keeping(signed)
    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.ROLL_UNDER_WAY])

    # Alone it misses them, as `apply` would see.
    world.stripe.remove(world.shop)
    assert await world.problems() == [EndpointProblem.EVENTS_MISSING]


async def test_two_while_a_secret_is_being_rolled_are_no_problem() -> None:
    world = World()
    second = world.stripe.register(URL, EVENTS, api_version=PINNED, metadata={ENDPOINT: "shop", REPLACES: world.shop})
    signed = signing(second.secret.value, second.endpoint.id, world.clock)
    world.credentials = world.credentials.having("shop", world.credentials.of("shop").with_signing(signed))

    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.ROLL_UNDER_WAY])
    assert (await world.status()).endpoint_id == second.endpoint.id


async def test_a_roll_in_the_dashboard_is_one_too() -> None:
    world = World()
    rolled = signing("whsec_rolled", world.shop, world.clock)
    world.credentials = world.credentials.having("shop", world.credentials.of("shop").with_signing(rolled))

    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.ROLL_UNDER_WAY])


@pytest.mark.parametrize(
    ("age", "problems", "said"),
    [
        (timedelta(minutes=1), [], ""),
        (timedelta(hours=1), [EndpointProblem.CREATION_UNFINISHED], "`endpoints apply shop` goes on"),
        (timedelta(hours=30), [EndpointProblem.CREATION_UNFINISHED], "its secret is not told any more"),
    ],
)
async def test_a_registration_that_never_ended_is_a_problem(
    age: timedelta, problems: list[EndpointProblem], said: str
) -> None:
    world = World(config=config(endpoint(api_version=PINNED, secrets=(Secret("whsec_own"),))))
    begun = world.clock.now() - age
    creation = Creation("key_1", begun, replace(_params(world), metadata={CREATION: "key_1"}))
    world.credentials = Credentials().having("shop", EndpointCredentials(creation=creation))
    await world.change(metadata={CREATION: "key_1"})

    assert await world.problems() == problems
    if problems:
        assert said in await world.said(EndpointProblem.CREATION_UNFINISHED)


async def test_one_that_can_be_repeated_no_more_and_has_made_nothing_is_no_problem() -> None:
    world = World()
    creation = Creation("key_1", world.clock.now() - timedelta(hours=30), replace(_params(world)))
    kept = replace(world.credentials.of("shop"), creation=creation)
    world.credentials = world.credentials.having("shop", kept)

    assert await world.problems() == []


def _params(world: World) -> Any:
    listing = Listing("default", "test", ("shop",), ())
    (subject,) = subjects(world.config, world.credentials, [listing])
    return subject.wanted.params()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (OURS, None),
        (ProbeAnswer(301, location="https://www.example.com/hook?token=1"), EndpointProblem.REDIRECTS),
        (ProbeAnswer(308), EndpointProblem.REDIRECTS),
        (ProbeAnswer(200, b"<html>"), EndpointProblem.FOREIGN_ANSWER),
        (ProbeAnswer(200, b'{"status":"accepted"}'), EndpointProblem.FOREIGN_ANSWER),
        (ProbeAnswer(400, b'{"error":{"message":"no"}}'), EndpointProblem.FOREIGN_ANSWER),
        (ProbeAnswer(400, b'{"error":"bad_request"}'), EndpointProblem.FOREIGN_ANSWER),
        (ProbeAnswer(400, b"[" * 4096), EndpointProblem.FOREIGN_ANSWER),
        (ProbeAnswer(404, b"Not Found"), EndpointProblem.FOREIGN_ANSWER),
        (ProbeAnswer(404, b'{"error":"endpoint_unknown"}'), EndpointProblem.NOT_SERVED),
        (ProbeAnswer(502, b"Bad Gateway"), EndpointProblem.FOREIGN_ANSWER),
        (ProbeAnswer(503, b'{"error":"maintenance"}'), EndpointProblem.FOREIGN_ANSWER),
        (ProbeAnswer(503, b'{"error":"overloaded"}'), EndpointNote.NOT_ASKED),
        (ProbeAnswer(403, b'{"error":"address_not_allowed"}'), EndpointNote.NOT_ASKED),
        (ProbeAnswer(None, why="no such host"), EndpointNote.UNREACHABLE_FROM_HERE),
    ],
)
async def test_who_answers_at_the_url(answer: ProbeAnswer, found: EndpointProblem | EndpointNote | None) -> None:
    world = World()
    world.probe.answers[URL] = answer

    assert [*await world.problems(), *await world.notes()] == ([] if found is None else [found])


async def test_a_redirect_is_told_with_where_to_and_without_what_may_be_a_token() -> None:
    world = World()
    world.probe.answers[URL] = ProbeAnswer(302, location="https://user:word@www.example.com/hook?token=secret#here")

    said = await world.said(EndpointProblem.REDIRECTS)

    assert "answers 302 to https://***@www.example.com/hook:" in said
    assert not {"word", "token", "secret", "here"} & set(said.replace("/", " ").replace("@", " ").split())


async def test_a_password_in_a_url_is_not_told() -> None:
    world = World(config(endpoint(url="https://user:word@shop.example.com/hook", api_version=PINNED)))
    world.probe.answers["https://user:word@shop.example.com/hook"] = ProbeAnswer(200)
    looked = await world.look()

    assert {EndpointProblem.URL_DIFFERS, EndpointProblem.FOREIGN_ANSWER} <= set(await world.problems())
    assert "word" not in str(looked)


async def test_events_that_nobody_has_taken_in_time_are_counted_with_the_oldest() -> None:
    world = World()
    await _since_long(world)
    world.happens(timedelta(minutes=5), timedelta(hours=1), timedelta(hours=2), timedelta(hours=25))
    world.happens(timedelta(hours=3), event_type="customer.created")
    world.happens(timedelta(hours=4), pending=0)

    undelivered = (await world.status()).undelivered

    assert undelivered is not None
    assert (undelivered.count, undelivered.more) == (2, False)
    assert undelivered.oldest == world.clock.now() - timedelta(hours=2)
    assert await world.problems() == [EndpointProblem.UNDELIVERED]
    assert "2 events were not taken" in await world.said(EndpointProblem.UNDELIVERED)


async def test_events_of_before_it_was_there_are_not_its_own() -> None:
    world = World()
    world.happens(timedelta(hours=1))

    assert await world.problems() == []


async def _since_long(world: World) -> None:
    world.clock.advance(7 * 86_400)


async def test_very_many_are_counted_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_look, "PAGES_MAX", 2)
    world = World()
    await _since_long(world)
    world.happens(*(timedelta(minutes=20, seconds=n) for n in range(250)))

    found = await undelivered_events(world.events.reader(), world.clock.now(), timedelta(minutes=15), ())

    assert (len(found.events), found.more) == (200, True)
    assert "more than 200 events" in await world.said(EndpointProblem.UNDELIVERED)


async def test_a_grace_as_long_as_the_look_back_asks_nothing() -> None:
    world = World()

    found = await undelivered_events(world.events.reader(), world.clock.now(), timedelta(hours=24), ())

    assert (found.events, world.events.requests) == ((), 0)


async def test_a_key_that_may_not_read_events_is_told_of_and_is_no_failure() -> None:
    world = World(permissions=frozenset())
    looked = await world.look()

    assert looked.failures == ()
    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.EVENTS_UNREAD])
    assert "event_read" in await world.said(EndpointNote.EVENTS_UNREAD)
    assert (await world.status()).undelivered is None


async def test_events_that_cannot_be_read_now_are_a_failure_and_the_rest_is_known() -> None:
    world = World()
    await world.change(enabled=False)
    world.events.fail(StripeUnavailable("away"))

    looked = await world.look()

    (failure,) = looked.failures
    assert (failure.account, failure.mode, failure.names, failure.error.tag) == (
        "default",
        "test",
        ("shop",),
        "stripe_unavailable",
    )
    (seen,) = looked.status.endpoints
    assert [each.kind for each in seen.problems] == [EndpointProblem.DISABLED]
    assert seen.undelivered is None


async def test_of_connected_accounts_nobody_says_what_was_delivered() -> None:
    world = World(config(endpoint(connect=True, api_version=PINNED)))
    await _since_long(world)
    world.happens(timedelta(hours=1))

    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.EVENTS_UNREAD])


async def test_an_account_that_cannot_be_read_is_a_failure_and_the_others_are_looked_at() -> None:
    world = World(
        config(endpoint(api_version=PINNED), endpoint("other", account="acct_2", api_key=Secret("rk_test_2")))
    )
    looking = world.looking
    own = SeenAccount("test", ("shop",), world.stripe.client())
    broken = SeenAccount("test", ("other",), world.stripe.client_with_wrong_key())

    looked = await replace(looking, accounts=[broken, own]).look()

    (failure,) = looked.failures
    assert (failure.account, failure.names, type(failure.error)) == ("acct_2", ("other",), StripeKeyRefused)
    assert [each.name for each in looked.status.endpoints] == ["shop"]


async def test_an_endpoint_without_a_key_is_not_looked_at() -> None:
    world = World(config(endpoint(api_version=PINNED), endpoint("other", api_key=None)))

    looked = await world.look()

    assert looked.status.not_looked_at == ("other",)
    assert world.probe.asked == [URL]


async def test_strangers_and_what_is_left_over_are_told_of_and_are_no_problem() -> None:
    world = World()
    stranger = world.stripe.register("https://crm.example.com/stripe", ("*",)).endpoint
    gone = world.stripe.register(f"{PUBLIC_URL}/webhooks/gone", ("*",), metadata={ENDPOINT: "gone"}).endpoint

    account = await world.account()

    assert (account.used, account.left, await world.problems()) == (3, 13, [])
    assert [note.kind for note in account.notes] == [EndpointNote.LEFT_OVER, EndpointNote.STRANGERS]
    assert f"{gone.id} (gone)" in account.notes[0].said
    assert stranger.id in account.notes[1].said


async def test_what_somebody_wrote_into_metadata_cannot_draw_on_a_terminal() -> None:
    world = World()
    world.stripe.register("https://other.example.com/", ("*",), metadata={ENDPOINT: "gone\x1b[2J"})

    (note,) = (await world.account()).notes

    assert note.said.isprintable()


async def test_without_a_public_url_the_path_says_which_one_it_is() -> None:
    world = World()
    world.config = Config(endpoints=world.config.endpoints)
    await world.change(enabled=False)
    assert (await world.problems(), await world.notes()) == ([EndpointProblem.DISABLED], [EndpointNote.URL_UNKNOWN])

    world.stripe.remove(world.shop)
    world.probe.asked.clear()
    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.URL_UNKNOWN])
    assert world.probe.asked == []


async def test_thin_events_are_an_event_destinations() -> None:
    world = World(config(endpoint(events=("v1.charge.succeeded", *EVENTS), api_version=PINNED)))
    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.THIN_EVENTS])

    world.config = config(endpoint(events=("v1.charge.succeeded",), api_version=PINNED))
    world.stripe.remove(world.shop)
    assert (await world.problems(), await world.notes()) == ([], [EndpointNote.THIN_EVENTS])


@dataclass
class Pair:
    """Two endpoints of one account."""

    one: dict[str, Any]
    other: dict[str, Any]
    mixed: bool


PAIRS = [
    Pair({"api_version": "2020-08-27"}, {"api_version": PINNED}, True),
    Pair({"api_version": PINNED}, {"api_version": PINNED}, False),
    Pair({"api_version": None}, {"api_version": PINNED}, False),
    Pair({"api_version": "2020-08-27", "events": ("charge.failed",)}, {"api_version": PINNED}, False),
    Pair({"api_version": "2020-08-27", "events": ()}, {"api_version": PINNED}, True),
    Pair({"api_version": "2020-08-27", "connect": True}, {"api_version": PINNED}, False),
]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_configuration_that_mixes_versions_is_told(pair: Pair) -> None:
    found = mixed_versions(configured_renderings(config(endpoint("one", **pair.one), endpoint("other", **pair.other))))

    assert [(each.one.name, each.other.name) for each in found] == ([("one", "other")] if pair.mixed else [])


@pytest.mark.parametrize(
    ("one", "other", "mixed"),
    [
        ({"mode": "live"}, {"mode": "test"}, False),
        ({"mode": "any"}, {"mode": "test"}, True),
        ({"mode": None}, {"mode": "live"}, True),
        ({"account": "acct_1"}, {"account": "acct_2"}, False),
        ({"account": "acct_1"}, {}, False),
        ({"account": "acct_1"}, {"account": "acct_1"}, True),
    ],
)
def test_only_one_account_and_mode_has_one_event_twice(one: dict[str, Any], other: dict[str, Any], mixed: bool) -> None:
    both = config(endpoint("one", api_version="2020-08-27", **one), endpoint("other", api_version=PINNED, **other))

    assert bool(mixed_versions(configured_renderings(both))) is mixed


def test_what_both_take_is_said() -> None:
    both = config(endpoint("one", api_version="2020-08-27"), endpoint("other", api_version=PINNED, events=()))
    (mixed,) = mixed_versions(configured_renderings(both))

    assert str(mixed).startswith(
        "one and other take charge.succeeded and 1 more in different API versions (2020-08-27, 2026-10-28.endive)"
    )


async def test_two_at_stripe_that_mix_versions_are_each_told() -> None:
    world = World(config(endpoint(), endpoint("other", secrets=(Secret("whsec_o"),), events=("charge.refunded",))))
    other = world.stripe.register(f"{PUBLIC_URL}/webhooks/other", ("charge.refunded",), api_version="2020-08-27")

    assert await world.problems() == await world.problems("other") == [EndpointProblem.MIXED_VERSIONS]

    await world.stripe.client().update(other.endpoint.id, enabled=False)
    assert (await world.problems(), await world.problems("other")) == ([], [EndpointProblem.DISABLED])


async def test_two_keys_of_one_account_mix_versions_too() -> None:
    second = endpoint("other", secrets=(Secret("whsec_o"),), api_key=Secret("rk_test_2"), events=EVENTS)
    world = World(config(endpoint(), second))
    world.stripe.register(f"{PUBLIC_URL}/webhooks/other", EVENTS, api_version="2020-08-27")
    keys = [SeenAccount("test", (name,), world.stripe.client()) for name in ("shop", "other")]

    looked = await replace(world.looking, accounts=keys).look()

    problems = {each.name: [problem.kind for problem in each.problems] for each in looked.status.endpoints}
    assert problems == {name: [EndpointProblem.MIXED_VERSIONS] for name in ("shop", "other")}
    assert [account.notes for account in looked.status.accounts] == [(), ()]


async def test_one_that_follows_its_account_beside_a_pinned_one_is_told_of_for_both_reasons() -> None:
    world = World(config(endpoint(), endpoint("other", secrets=(Secret("whsec_o"),), events=EVENTS)))
    world.stripe.register(f"{PUBLIC_URL}/webhooks/other", EVENTS)

    notes = (await world.status("other")).notes

    assert (await world.problems(), await world.problems("other")) == ([], [])
    assert [note.kind for note in notes] == [EndpointNote.NOT_PINNED] * 2
    assert f"shop ({PINNED})" in notes[1].said


async def test_nothing_that_is_found_tells_a_secret() -> None:
    world = World()
    await world.change(enabled=False, url="https://elsewhere.example.com/hook")
    world.stripe.register(URL, EVENTS)

    looked = str(await world.look())

    assert API_KEY.value not in looked
    assert "whsec_" not in looked


def test_the_tags_are_a_closed_set_that_can_be_labels() -> None:
    tags = [*EndpointProblem, *EndpointNote]

    assert len({str(tag) for tag in tags}) == len(tags)
    assert json.loads(json.dumps([*EndpointProblem])) == [problem.value for problem in EndpointProblem]
