"""`endpoints` on a Stripe in memory: what the commands print, what they ask, and what they end with."""

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from rich.console import Console

from service.__main__ import main
from service.adapters.memory_webhook_endpoints import MemoryWebhookEndpoints, MemoryWebhookEndpointsClient
from service.bootstrap.endpoints import ReceiverSecrets
from service.clock import SystemClock
from service.config import Config
from service.credentials.book import EndpointCredentials
from service.credentials.file import CredentialsFile
from service.errors import StripeRequestRefused, StripeUnavailable
from service.events import Secret
from service.normalize.event_types import THIN_TYPES
from service.signature import fingerprint
from service.stripe_account.endpoint_matching import ENDPOINT
from service.stripe_account.endpoint_roll import QUIET_EVENT
from tests.support.endpoints import Crash

TEST_KEY = "sk_test_0123456789abcdef"
LIVE_KEY = "sk_live_0123456789abcdef"
URL = "https://hooks.example.com/webhooks/shop"
SHOP = f"""
[[endpoints]]
name = "shop"
mode = "test"
events = ["charge.succeeded", "charge.refunded"]
api_key = "{TEST_KEY}"
"""
LIVE = f"""
[[endpoints]]
name = "live"
mode = "live"
api_key = "{LIVE_KEY}"
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run: TypeAlias = Callable[..., Ended]


class StandardInput(io.TextIOWrapper):
    """What is piped in, or somebody at a terminal."""

    def __init__(self, given: str | None) -> None:
        super().__init__(io.BytesIO((given or "").encode()))
        self._somebody = given is None

    def isatty(self) -> bool:
        return self._somebody


@dataclass
class World:
    """What the commands find: an account in both modes, a store, and receivers that tell what they have verified."""

    folder: Path
    test: MemoryWebhookEndpoints = field(default_factory=lambda: MemoryWebhookEndpoints(SystemClock()))
    live: MemoryWebhookEndpoints = field(default_factory=lambda: MemoryWebhookEndpoints(SystemClock()))
    verified: Mapping[str, float] = field(default_factory=dict)
    late: int = 0
    """How often receivers are asked before they know what the store has; negative where there is none."""
    asked: list[tuple[list[str], str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clients: dict[str, MemoryWebhookEndpointsClient] = {
            TEST_KEY: self.test.client(), LIVE_KEY: self.live.client(),
        }  # fmt: skip

    @property
    def store(self) -> CredentialsFile:
        return CredentialsFile(self.folder / "secrets.json", None)

    def kept(self, name: str = "shop") -> EndpointCredentials:
        return self.store.read().of(name)

    def told(self, name: str) -> ReceiverSecrets | None:
        """What a receiver says now."""
        if self.late < 0:
            return None
        known = self.kept(name).signing
        if self.late and len(known) > 1:
            self.late -= 1
            known = known[1:]
        return ReceiverSecrets(frozenset(fingerprint(each.value) for each in known), self.verified)

    def configure(self, *endpoints: str, store: bool = True, public_url: str = "https://hooks.example.com") -> None:
        head = f'[receiver]\npublic_url = "{public_url}"\n'
        if store:
            head += f'[secrets]\nstore = "{self.store.path}"\n'
        (self.folder / "stripe-ingest.toml").write_text(head + "".join(endpoints or (SHOP,)))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    made.configure()

    def client(_: Config, key: Secret) -> MemoryWebhookEndpointsClient:
        return made.clients[key.value]

    async def receiver_secrets(urls: Sequence[str], name: str) -> Mapping[str, ReceiverSecrets | None]:
        made.asked.append((list(urls), name))
        return dict.fromkeys(urls, await asyncio.to_thread(made.told, name))

    monkeypatch.setattr("service.bootstrap.endpoints.webhook_endpoints", client)
    monkeypatch.setattr("service.bootstrap.endpoints.receiver_secrets", receiver_secrets)
    for pause in ("KNOWN_PAUSE_SECONDS", "UNSEEN_SECONDS", "UNDER_WAY_SECONDS"):
        monkeypatch.setattr(f"service.commands.endpoint_roll.{pause}", 0.0)
    return made


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line with the world's configuration; `given` is what is piped in, None for a terminal."""
    monkeypatch.chdir(world.folder)
    monkeypatch.setattr("service.commands.options.configure", lambda *_: None)
    for name in [name for name in os.environ if name.startswith("STRIPE")]:
        monkeypatch.delenv(name)

    def ended(*arguments: str, given: str | None = "") -> Ended:
        monkeypatch.setattr(sys, "argv", ["stripe-ingest", "endpoints", *arguments])
        monkeypatch.setattr(sys, "stdin", StandardInput(given))
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        for secret in (*(each.value.value for each in world.kept().signing), TEST_KEY, LIVE_KEY):
            assert secret not in err
            assert secret not in out
        return Ended(done.value.code, out, err)

    return ended


# --- plan and apply --------------------------------------------------------------------------------------------------


def test_from_nothing_by_one_command_and_the_same_again_changes_nothing(run: Run, world: World) -> None:
    planned = run("plan")
    assert planned.code == 1
    assert "create" in planned.out
    assert len(world.test.endpoints) == 0
    assert not world.store.path.exists()

    applied = run("apply")

    assert (applied.code, applied.err) == (0, "")
    (made,) = world.test.endpoints
    (signed,) = world.kept().signing
    assert (made.url, signed.value, signed.webhook_endpoint_id) == (URL, world.test.secret_of(made.id), made.id)
    assert fingerprint(signed.value) in applied.out.replace("\n", "").replace(" ", "")
    assert "shop: 1 of 16 webhook endpoints in test mode, 15 left" in applied.out
    before = world.store.path.read_bytes()

    again = run("apply")

    assert again.code == 0
    assert "as they should be" in again.out
    assert list(world.test.endpoints) == [made]
    assert world.store.path.read_bytes() == before
    assert run("plan").code == 0


def test_scripts_are_told_everything(run: Run, world: World) -> None:
    old = world.test.register("https://hooks.example.com/old", ("*",), metadata={ENDPOINT: "gone"}).endpoint
    keyless = '[[endpoints]]\nname = "keyless"\nmode = "test"\n'
    world.configure(SHOP, keyless)

    planned = run("plan", "--json").json
    applied = run("apply", "--json")

    (step,) = planned["steps"]
    assert step == {
        "endpoint": "shop", "mode": "test", "step": "create", "webhook_endpoint_id": None, "changes": {}, "refused": None,
    }  # fmt: skip
    assert planned["accounts"] == [{"mode": "test", "endpoints": ["shop"], "left": 14, "failed": None}]
    assert planned["not_looked_at"] == ["keyless"]
    (finding,) = planned["findings"]
    assert (finding["finding"], finding["endpoint"], finding["webhook_endpoint_id"]) == ("left_over", "gone", old.id)
    assert applied.code == 1
    assert applied.json["steps"] == [{**step, "webhook_endpoint_id": "we_2"}]
    assert applied.json["accounts"] == planned["accounts"]


def test_what_differs_is_shown_and_changed(run: Run, world: World) -> None:
    run("apply")
    world.configure(SHOP.replace('"charge.refunded"', '"charge.failed"'), public_url="https://new.example.com")

    planned = run("plan")
    assert planned.code == 1
    said = " ".join(planned.out.split())
    assert "update" in said
    for part in ("events: +charge.failed, -charge.refunded", "new.example.com"):
        assert part in said
    (step,) = run("plan", "--json").json["steps"]
    assert step["changes"] == {
        "url": "https://new.example.com/webhooks/shop", "enabled_events": ["charge.succeeded", "charge.failed"],
    }  # fmt: skip

    assert run("apply").code == 0
    assert world.test.endpoints[0].enabled_events == ("charge.succeeded", "charge.failed")


def test_both_modes_are_looked_after_each_with_its_own_key(run: Run, world: World) -> None:
    world.configure(SHOP, LIVE)

    assert run("apply").code == 0

    assert [each.url for each in world.test.endpoints] == [URL]
    assert [(each.url, each.enabled_events) for each in world.live.endpoints] == [
        ("https://hooks.example.com/webhooks/live", ("*",))
    ]
    assert world.kept("live").signing[0].value == world.live.secret_of("we_1")


def test_a_name_is_enough_where_the_others_are_not_meant(run: Run, world: World) -> None:
    world.configure(SHOP, LIVE.replace('name = "live"', 'name = "live"\nurl = "http://localhost/"'))
    refused = run("apply")
    assert refused.code == 2
    assert "endpoints (live).url: http://localhost/ must begin with https://" in refused.err
    assert world.test.endpoints == ()

    assert run("apply", "shop").code == 0
    assert world.live.calls == 0


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (SHOP.replace("test", "test").replace('api_key = "', 'url = "https://localhost:8080/x"\napi_key = "'),
         "configuration: endpoints (shop).url: https://localhost:8080/x is on this machine (localhost)"),
        (SHOP.replace("charge.succeeded", "charge.succeded"), "is it charge.succeeded"),
        (SHOP.replace("charge.succeeded", "v1.charge.succeeded"), "thin event"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["plan", "apply"])
def test_what_stripe_would_refuse_is_refused_before_it_is_asked(
    run: Run, world: World, command: str, endpoint: str, said: str
) -> None:
    world.configure(endpoint)

    ended = run(command)

    assert ended.code == 2
    assert said in ended.err
    assert world.test.calls == 0


def test_an_unlisted_event_type_is_asked_for_on_demand(run: Run, world: World) -> None:
    world.configure(SHOP.replace("charge.succeeded", "charge.teleported"))
    assert "--unlisted" in run("apply").err

    assert run("apply", "--unlisted").code == 0
    assert "charge.teleported" in world.test.endpoints[0].enabled_events


def test_without_a_store_there_is_nowhere_to_put_a_secret(run: Run, world: World) -> None:
    world.configure(SHOP, store=False)
    assert run("plan").code == 1

    ended = run("apply")

    assert ended.code == 2
    assert "configuration: secrets.store: is needed" in ended.err
    assert world.test.endpoints == ()


def test_without_a_store_one_that_stands_already_is_looked_after(run: Run, world: World) -> None:
    world.configure(SHOP + 'secrets = ["whsec_given"]\n', store=False)
    world.test.register(URL, ("*",), enabled=False)

    assert run("apply").code == 0

    assert (world.test.endpoints[0].enabled, len(world.test.endpoints[0].enabled_events)) == (True, 2)


@pytest.mark.parametrize("arguments", [("plan",), ("apply",), ("apply", "keyless"), ("disable", "keyless")])
def test_without_any_api_key_the_setting_is_named(run: Run, world: World, arguments: tuple[str, ...]) -> None:
    world.configure('[[endpoints]]\nname = "keyless"\nmode = "test"\n')

    ended = run(*arguments)

    assert ended.code == 2
    assert "endpoints (keyless).api_key: is needed (or api_key_file)" in ended.err


def test_an_endpoint_without_a_key_is_not_looked_at_and_that_is_said(run: Run, world: World) -> None:
    world.configure(SHOP, '[[endpoints]]\nname = "keyless"\nmode = "test"\n')

    ended = run("apply")

    assert ended.code == 0
    assert "keyless: no api_key: not looked at" in ended.out


def test_an_api_key_may_be_in_the_store(run: Run, world: World) -> None:
    world.configure(SHOP.replace(f'api_key = "{TEST_KEY}"\n', ""))
    credentials = world.store.read()
    world.store.write(credentials.having("shop", EndpointCredentials(api_key=Secret(TEST_KEY))))

    assert run("apply").code == 0
    assert world.kept().api_key == Secret(TEST_KEY)


def test_a_name_that_there_is_not_is_said_with_those_that_there_are(run: Run) -> None:
    ended = run("apply", "shpo")

    assert ended.code == 2
    assert "there is no endpoint 'shpo'; there are shop" in ended.err


def test_what_stripe_refuses_is_said_and_the_rest_is_done(run: Run, world: World) -> None:
    world.configure(SHOP, SHOP.replace("shop", "other"))
    world.test.fail(StripeRequestRefused("Stripe says no"), after=1)

    ended = run("apply")

    assert ended.code == 1
    assert "refused: Stripe says no" in " ".join(ended.out.split())
    assert len(world.test.endpoints) == 1


def test_a_missing_permission_is_named(run: Run, world: World) -> None:
    world.clients[TEST_KEY] = world.test.client(set())

    ended = run("plan")

    assert ended.code == 1
    assert "shop: the API key lacks the permission webhook_read" in ended.err


def test_a_wrong_key_is_exit_2_and_does_not_keep_the_other_account_back(run: Run, world: World) -> None:
    world.configure(LIVE, SHOP)
    world.clients[LIVE_KEY] = world.live.client_with_wrong_key()

    ended = run("apply")

    assert ended.code == 2
    assert "live: Stripe refuses the API key" in ended.err
    assert len(world.test.endpoints) == 1


def test_a_stripe_that_is_away_is_exit_75_and_again_it_goes_on(run: Run, world: World) -> None:
    world.test.fail(StripeUnavailable("no answer"), after=1, done=True)

    ended = run("apply")

    assert ended.code == 75
    assert "shop: no answer" in ended.err
    assert run("apply").code == 0
    assert len(world.test.endpoints) == 1
    assert world.kept().signing[0].value == world.test.secret_of("we_1")


def test_a_crash_lets_go_of_the_lock_and_again_it_goes_on(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.test.fail(Crash(), after=1, done=True)
    monkeypatch.setattr(sys, "argv", ["stripe-ingest", "endpoints", "apply"])
    with pytest.raises(Crash):
        main()

    planned = run("plan")
    assert "begun" in planned.out
    assert "replay" in planned.out
    applied = run("apply")

    assert applied.code == 0
    assert len(world.test.endpoints) == 1


@pytest.mark.parametrize("arguments", [("apply",), ("roll", "shop", "--replace"), ("roll", "shop", "--finish")])
def test_while_another_process_has_the_store_it_is_tried_later(
    run: Run, world: World, arguments: tuple[str, ...]
) -> None:
    with world.store.held():
        ended = run(*arguments)

    assert ended.code == 75
    assert "is being changed by another process" in ended.err
    assert world.test.calls == 0


def test_where_the_limit_is_passed_that_is_said(run: Run, world: World) -> None:
    for number in range(16):
        world.test.register(f"https://other.example.com/{number}")

    ended = run("apply")

    assert ended.code == 1
    said = " ".join(ended.out.split())
    assert "refused: You have reached the maximum of 16" in said
    assert "shop: 16 of 16 webhook endpoints in test mode, 0 left" in said
    assert "17 are wanted" in said


def test_where_stripe_has_agreed_on_more_there_is_room(run: Run, world: World) -> None:
    world.test = MemoryWebhookEndpoints(SystemClock(), most=100)
    world.clients[TEST_KEY] = world.test.client()
    for number in range(16):
        world.test.register(f"https://other.example.com/{number}")
    assert "17 are wanted" in run("plan").out

    assert run("apply").code == 0

    for again in (run("apply"), run("plan")):
        assert (again.code, again.out.count("as they should be")) == (0, 1)


def test_one_of_thin_events_only_is_made_elsewhere(run: Run, world: World) -> None:
    thin = SHOP.replace("shop", "thin").replace('"charge.succeeded", "charge.refunded"', f'"{THIN_TYPES[0]}"')
    world.configure(SHOP, thin)

    assert run("apply").code == 0
    planned = run("plan")

    assert planned.code == 0
    assert "thin: thin events only" in planned.out
    assert run("plan", "--json").json["not_looked_at"] == ["thin"]
    named = run("apply", "thin")
    assert (named.code, "is a thin event" in named.err) == (2, True)


def test_of_several_failures_the_one_that_waiting_does_not_mend_is_the_exit_code(run: Run, world: World) -> None:
    world.configure(SHOP, LIVE)
    world.clients[LIVE_KEY] = world.live.client_with_wrong_key()
    world.test.fail(StripeUnavailable("no answer"))

    ended = run("status")

    assert ended.code == 2
    assert "shop: no answer" in ended.err
    assert "live: Stripe refuses the API key" in ended.err


def test_on_a_narrow_terminal_ids_are_whole(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.configure(SHOP.replace("shop", "subscriptions-and-one-time-payments"))
    real = "we_1PmUJisYJvEHsLlIgptdn0B6"
    made = world.test.register(f"{URL}/x").endpoint
    world.test._endpoints = {real: replace(made, id=real, metadata={ENDPOINT: "subscriptions-and-one-time-payments"})}
    console = Console(width=80)
    monkeypatch.setattr("service.commands.endpoints.new_console", lambda: console)

    table = run("plan").out.split("\n\n")[0]

    assert real in table
    assert "…" not in table


# --- prune -----------------------------------------------------------------------------------------------------------


def test_what_is_left_over_is_deleted_when_that_is_meant(run: Run, world: World) -> None:
    run("apply")
    world.test.register("https://hooks.example.com/webhooks/gone", metadata={ENDPOINT: "gone"})
    world.test.register("https://stranger.example.com/")
    left = run("apply")
    assert left.code == 1
    assert "--prune deletes it" in left.out

    asked = run("apply", "--prune")
    assert asked.code == 2
    assert "say --yes" in asked.err
    assert len(world.test.endpoints) == 3

    pruned = run("apply", "--prune", "--yes")
    assert pruned.code == 0
    assert "delete" in pruned.out
    assert [each.id for each in world.test.endpoints] == ["we_3", "we_1"]


def test_of_an_account_that_two_keys_see_what_is_left_over_is_told_of_and_deleted_once(run: Run, world: World) -> None:
    another = "sk_test_another"
    world.clients[another] = world.test.client()
    world.configure(SHOP, SHOP.replace("shop", "other").replace(TEST_KEY, another))
    run("apply")
    gone = world.test.register("https://hooks.example.com/gone", metadata={ENDPOINT: "gone"}).endpoint

    assert [each["endpoint"] for each in run("plan", "--json").json["findings"]] == ["gone"]
    pruned = run("apply", "--prune", "--yes", "--json")

    assert pruned.code == 0
    assert [each["webhook_endpoint_id"] for each in pruned.json["steps"] if each["step"] == "delete"] == [gone.id]
    assert len(world.test.endpoints) == 2


def test_prune_is_for_all(run: Run) -> None:
    assert run("apply", "shop", "--prune").code == 2


@pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("n\n", 2)])
def test_at_a_terminal_it_is_asked(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    run("apply")
    world.test.register("https://hooks.example.com/webhooks/gone", metadata={ENDPOINT: "gone"})
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answer.strip())

    ended = run("apply", "--prune", given=None)

    assert ended.code == (0 if left == 1 else 130)
    assert len(world.test.endpoints) == left


# --- disable and enable ----------------------------------------------------------------------------------------------


def test_an_endpoint_is_switched_off_and_on(run: Run, world: World) -> None:
    run("apply")

    def enabled() -> bool:
        return world.test.endpoints[0].enabled

    assert run("disable", "shop").out == "shop: we_1 is disabled now\n"
    assert not enabled()
    assert run("disable", "shop").out == "shop: we_1 was disabled already\n"
    assert run("enable", "shop").out == "shop: we_1 is enabled now\n"
    assert enabled()
    run("disable", "shop")
    applied = run("apply")
    assert "enable" in applied.out
    assert enabled()


def test_one_of_the_dashboard_is_found_by_its_url_wherever_that_is(run: Run, world: World) -> None:
    world.configure(SHOP.replace('api_key = "', 'url = "http://localhost/x"\napi_key = "'))
    world.test.register("http://localhost/x")

    assert run("disable", "shop").code == 0
    assert not world.test.endpoints[0].enabled


def test_what_is_not_there_cannot_be_switched(run: Run) -> None:
    ended = run("enable", "shop")

    assert ended.code == 1
    assert "endpoints apply shop" in ended.err


# --- roll ------------------------------------------------------------------------------------------------------------


def test_a_secret_that_was_rolled_in_the_dashboard_takes_over(run: Run, world: World) -> None:
    run("apply")
    old = world.kept().signing[0].value
    new = Secret("whsec_rolled")
    assert "no roll is under way" in run("roll", "shop").out

    added = run("roll", "shop", "--rolled-secret", "-", given=f"{new.value}\n")

    assert added.code == 0
    assert [each.value for each in world.kept().signing] == [new, old]
    assert [fingerprint(each) in added.out for each in (new, old)] == [True, True]
    world.verified = {fingerprint(old): 12}
    unseen = run("roll", "shop", "--finish")
    assert unseen.code == 1
    assert "no delivery has been verified with the new secret" in unseen.err
    assert len(world.kept().signing) == 2
    world.verified = {fingerprint(old): 12, fingerprint(new): 1}
    assert run("roll", "shop", "--json").json == {
        "endpoint": "shop",
        "stage": "rolled",
        "secrets": [
            {"fingerprint": fingerprint(new), "verified": 1}, {"fingerprint": fingerprint(old), "verified": 12},
        ],
        "webhook_endpoint_id": "we_1",
        "replaced": [],
        "seen": True,
    }  # fmt: skip

    finished = run("roll", "shop", "--finish")

    assert finished.code == 0
    assert "no roll is under way" in finished.out
    assert [each.value for each in world.kept().signing] == [new]
    assert run("roll", "shop", "--finish").code == 0
    assert world.asked[-1] == (["http://127.0.0.1:9090/metrics"], "shop")


def test_a_second_endpoint_takes_over(run: Run, world: World) -> None:
    run("apply")

    replaced = run("roll", "shop", "--replace")

    assert replaced.code == 0
    assert "we_2 takes its events beside we_1" in replaced.out
    assert [each.webhook_endpoint_id for each in world.kept().signing] == ["we_2", "we_1"]
    assert run("apply").code == 0
    world.late = -1
    nobody = run("roll", "shop", "--finish", "--metrics-url", "http://user:word@receiver:9090/metrics")
    assert nobody.code == 1
    assert "no receiver tells its metrics at http://***@receiver:9090/metrics" in nobody.err
    finished = run("roll", "shop", "--finish", "--unseen")
    assert finished.code == 0
    assert "we_1 is switched off" in finished.out
    assert [(each.id, each.enabled) for each in world.test.endpoints] == [("we_2", True), ("we_1", False)]
    assert run("plan").code == 0


def test_a_second_endpoint_that_stripe_had_refused_is_not_made_by_apply(run: Run, world: World) -> None:
    run("apply")
    world.test.fail(StripeUnavailable("no answer"), after=2)
    run("roll", "shop", "--replace")
    world.test.fail(StripeRequestRefused("no"), after=1)

    applied = run("apply")

    assert "shop: Stripe had refused it: `endpoints roll shop --replace` begins anew" in applied.out
    assert len(world.test.endpoints) == 1
    assert run("plan").code == 0


def test_a_second_endpoint_gets_its_events_once_receivers_know_its_secret(run: Run, world: World) -> None:
    run("apply")
    world.late = 3

    replaced = run("roll", "shop", "--replace", "--metrics-url", "http://one/", "--metrics-url", "http://two/")

    assert replaced.code == 0
    secret = fingerprint(world.kept().signing[0].value)
    waiting = "shop: we_2 is made and gets no events yet: waiting for the receiver at http://one/, http://two/ to take"
    assert replaced.err == f"{waiting} its secret ({secret}), 60 s at most\n"
    assert (world.late, world.test.endpoints[0].enabled_events) == (0, ("charge.succeeded", "charge.refunded"))


def test_one_whose_secret_does_not_arrive_in_time_stays_without_events(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("apply")
    world.late = 1_000_000
    monkeypatch.setattr("service.commands.endpoint_roll.KNOWN_SECONDS_MAX", 0.01)

    waited = run("roll", "shop", "--replace")

    assert waited.code == 75
    assert "`endpoints roll shop --replace` goes on" in waited.err
    assert world.test.endpoints[0].enabled_events == (QUIET_EVENT,)
    for plan in (run("plan"), run("apply")):
        assert (plan.code, plan.err) == (0, "")
    stands = run("roll", "shop")
    assert "we_2 is to take over, and gets no events until receivers know its secret" in stands.out
    assert "roll shop --replace` once more" in stands.out
    assert run("roll", "shop", "--json").json["stage"] == "prepared"
    assert run("roll", "shop", "--finish", "--unseen").code == 1

    world.late = 0
    assert run("roll", "shop", "--replace").code == 0
    assert [each.enabled_events for each in world.test.endpoints] == [("charge.succeeded", "charge.refunded")] * 2


def test_nothing_is_made_where_no_receiver_can_be_asked_unless_that_is_meant(run: Run, world: World) -> None:
    run("apply")
    world.late = -1

    refused = run("roll", "shop", "--replace")

    assert refused.code == 1
    assert "no receiver tells its metrics at http://127.0.0.1:9090/metrics" in refused.err
    assert len(world.test.endpoints) == 1
    unseen = run("roll", "shop", "--replace", "--unseen")
    assert unseen.code == 0
    assert "we_2 is made and gets no events yet" in unseen.err
    assert [each.enabled_events for each in world.test.endpoints] == [("charge.succeeded", "charge.refunded")] * 2
    assert run("roll", "shop", "--replace").code == 0


def test_a_receiver_that_does_not_know_the_new_secret_is_in_the_way_of_the_end(run: Run, world: World) -> None:
    run("apply")
    run("roll", "shop", "--replace")
    world.late, world.verified = 1, {fingerprint(world.kept().signing[0].value): 1}

    refused = run("roll", "shop", "--finish")

    assert refused.code == 1
    assert "the receiver at http://127.0.0.1:9090/metrics does not verify with the new secret" in refused.err
    assert run("roll", "shop", "--finish").code == 0


def test_a_roll_whose_answer_was_lost_is_taken_up(run: Run, world: World) -> None:
    run("apply")
    world.test.fail(StripeUnavailable("no answer"), after=2, done=True)
    assert run("roll", "shop", "--replace").code == 75
    assert "--replace` once more" in run("roll", "shop").out
    assert run("roll", "shop", "--finish").code == 1

    assert run("roll", "shop", "--replace").code == 0

    assert len(world.test.endpoints) == 2
    assert len(world.kept().signing) == 2


def test_without_a_key_a_dashboard_roll_is_possible_and_the_other_is_not(run: Run, world: World) -> None:
    run("apply")
    world.configure(SHOP.replace(f'api_key = "{TEST_KEY}"\n', ""))
    assert run("roll", "shop", "--rolled-secret", "-", given="whsec_rolled").code == 0

    assert run("roll", "shop", "--finish", "--unseen").code == 0
    refused = run("roll", "shop", "--replace")

    assert refused.code == 2
    assert "endpoints (shop).api_key: is needed" in refused.err


def test_without_a_key_a_second_endpoint_is_not_let_take_over(run: Run, world: World) -> None:
    run("apply")
    run("roll", "shop", "--replace")
    world.configure(SHOP.replace(f'api_key = "{TEST_KEY}"\n', ""))

    ended = run("roll", "shop", "--finish", "--unseen")

    assert ended.code == 2
    assert "endpoints (shop).api_key: is needed" in ended.err
    assert len(world.kept().signing) == 2


@pytest.mark.parametrize("given", ["", "\n", "sk_test_mistaken", "whsec_one whsec_two", "whsec_" + "a" * 5000])
def test_what_is_no_signing_secret_is_refused_and_not_shown(run: Run, world: World, given: str) -> None:
    run("apply")

    ended = run("roll", "shop", "--rolled-secret", "-", given=given)

    assert ended.code == 2
    assert "expected on standard input" in ended.err
    assert not given.strip() or given.strip() not in ended.err
    assert len(world.kept().signing) == 1


def test_a_secret_in_argv_is_refused_and_not_shown_again(run: Run) -> None:
    ended = run("roll", "shop", "--rolled-secret", "whsec_in_argv")

    assert ended.code == 2
    assert "standard input" in ended.err


def test_at_a_terminal_the_secret_is_asked_for_unseen(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run("apply")
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda _: "whsec_typed")

    assert run("roll", "shop", "--rolled-secret", "-", given=None).code == 0
    assert world.kept().signing[0].value == Secret("whsec_typed")


@pytest.mark.parametrize(
    ("endpoint", "store", "said"),
    [
        (SHOP + 'secrets = ["whsec_given"]\n', True, "endpoints (shop).secrets: are in the configuration"),
        (SHOP, False, "secrets.store: is needed"),
    ],
)
def test_what_the_store_cannot_roll_is_said(run: Run, world: World, endpoint: str, store: bool, said: str) -> None:
    world.configure(endpoint, store=store)

    ended = run("roll", "shop", "--replace")

    assert ended.code == 2
    assert said in ended.err


def test_one_step_at_a_time(run: Run) -> None:
    assert run("roll", "shop", "--replace", "--finish").code == 2
