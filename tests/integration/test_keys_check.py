"""`keys check` and every command that needs a permission, over HTTP against the fake Stripe, with each one missing."""

import asyncio
import contextlib
import io
import json
import os
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import pytest_asyncio
from aiohttp import web

from service.__main__ import main
from service.bootstrap.recovery import Recovery
from service.config import Config
from service.credentials.book import Credentials, EndpointCredentials
from service.credentials.file import CredentialsFile, new_key
from service.events import Secret
from service.ports import StripeList
from service.presets import PRESETS
from service.simulator.events import sample
from service.simulator.fake_stripe import PERMISSIONS, Failing, FakeStripe, serving
from service.simulator.fake_stripe.shelf import Page
from service.stripe_account.scopes import PROBE, RESOURCES, labelled
from tests.support.fake_stripe import ManualClock
from tests.support.recovering import World
from tests.support.waiting import free_port

PROMISE_5: Final = "promise 5 is off: gaps are not found, until reconcile.api_key_file names a key that may read events"
CONFIGURATION: Final = """
[receiver]
public_url = "https://hooks.example.com"
[dedupe]
url = "memory://"
[secrets]
store = "secrets.json"
[reconcile]
interval_seconds = {interval}
{reconcile}
[[endpoints]]
name = "shop"
mode = "{mode}"
events = ["charge.succeeded"]
secrets = [{secrets}]
api_key = "{key}"
permissions = {permissions}
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All of it, on one line."""
        return " ".join(f"{self.out} {self.err}".split())

    @property
    def wrong(self) -> Sequence[str]:
        """What was wrong, a sentence each."""
        return self.err.splitlines()


@dataclass
class Shop:
    """A folder with a configuration, and the fake Stripe that it names."""

    folder: Path
    url: str
    fake: FakeStripe = field(default_factory=FakeStripe)

    def configure(
        self,
        key: str,
        *permissions: str,
        mode: str = "test",
        interval: int = 0,
        events_key: str | None = None,
        signs: bool = True,
    ) -> None:
        """Write the configuration of one endpoint."""
        self.write(
            CONFIGURATION.format(
                key=key,
                mode=mode,
                interval=interval,
                permissions=json.dumps(permissions),
                reconcile="" if events_key is None else f'api_key = "{events_key}"',
                secrets='"whsec_0123456789abcdef"' if signs else "",
            )
        )

    def write(self, text: str) -> None:
        (self.folder / "stripe-ingest.toml").write_text(text, encoding="utf-8")

    async def run(self, *arguments: str) -> Ended:
        """Run `stripe-ingest …` to its end, beside the fake Stripe."""
        ended = await asyncio.to_thread(_run, arguments)
        # Whatever went wrong, nobody was told a key.
        keys = re.findall(r"\b[a-z]k_(?:live|test|org)_[A-Za-z0-9_]{8,}", ended.out + ended.err)
        assert keys == []
        return ended


def _run(arguments: Sequence[str]) -> Ended:
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    sys.argv = ["stripe-ingest", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as done:
        main()
    out.flush()
    return Ended(int(done.value.code or 0), out.buffer.getvalue().decode(), err.getvalue())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a command line finds its configuration, and nothing of the machine's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("service.commands.options.configure", lambda *_: None)
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name in [name for name in os.environ if name.startswith("STRIPE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STRIPE_INGEST__STRIPE__REQUESTS_PER_SECOND", "100")
    return tmp_path


@pytest_asyncio.fixture
async def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    fake = FakeStripe()
    async with serving(fake) as url:
        monkeypatch.setenv("STRIPE_INGEST__STRIPE__API_BASE", url)
        yield Shop(folder, url, fake)


# Each permission of each preset, missing.


def _asked(name: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """A preset's endpoints: their name, mode and permissions."""
    for endpoint in tomllib.loads(PRESETS[name].configuration)["endpoints"]:
        yield endpoint["name"], endpoint["mode"], tuple(endpoint["permissions"])


MISSING: Final = sorted({(name, mode, scope) for name in PRESETS for _, mode, asked in _asked(name) for scope in asked})


def install(name: str, shop: Shop, keys: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset's file, and what it names; `keys` are by mode."""
    text = PRESETS[name].configuration
    store_key = new_key()
    (shop.folder / "database-url").write_text("postgresql://nobody@127.0.0.1:1/none\n")
    (shop.folder / "store-key").write_text(store_key + "\n")
    stored = Credentials()
    for endpoint in tomllib.loads(text)["endpoints"]:
        key = keys[endpoint["mode"]]
        if "api_key_file" in endpoint:
            (shop.folder / Path(endpoint["api_key_file"]).name).write_text(f"{key}\n")
        else:
            stored = stored.having(endpoint["name"], EndpointCredentials(api_key=Secret(key)))
    CredentialsFile(shop.folder / "secrets.json", Secret(store_key)).write(stored)
    shop.write(text.replace("/run/secrets", str(shop.folder)).replace("/var/lib/stripe-ingest", str(shop.folder)))
    monkeypatch.setenv("STRIPE_INGEST__RECONCILE__INTERVAL_SECONDS", "0")


def keys_of(name: str, fake: FakeStripe, *, missing: tuple[str, str] | None = None) -> dict[str, str]:
    """A key of each mode with what the preset asks for; where one of (mode, scope) is missing, not with that."""
    asked = {mode: permissions for _, mode, permissions in _asked(name)}
    return {
        mode: fake.new_key(
            "live" if mode == "live" else "test", [scope for scope in scopes if (mode, scope) != missing]
        )
        for mode, scopes in asked.items()
    }


@pytest.mark.parametrize("name", PRESETS)
async def test_a_presets_keys_with_its_permissions_are_right(
    name: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(name, shop, keys_of(name, shop.fake), monkeypatch)

    ended = await shop.run("keys", "check")

    assert (ended.code, ended.err) == (0, "")
    for _, _, asked in _asked(name):
        assert all(scope in ended.out for scope in asked)


@pytest.mark.parametrize("name", PRESETS)
async def test_where_a_preset_may_not_read_events_receivers_have_promise_5_off(
    name: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(name, shop, keys_of(name, shop.fake), monkeypatch)
    monkeypatch.setenv("STRIPE_INGEST__RECONCILE__INTERVAL_SECONDS", "900")

    ended = await shop.run("keys", "check")

    off = {mode for _, mode, asked in _asked(name) if "event_read" not in asked}
    assert ended.code == (1 if off else 0)
    assert len(ended.wrong) == len(off)
    assert all(PROMISE_5 in said for said in ended.wrong)


@pytest.mark.parametrize(("name", "mode", "scope"), MISSING)
async def test_each_permission_of_a_preset_that_is_missing_is_named(
    name: str, mode: str, scope: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(name, shop, keys_of(name, shop.fake, missing=(mode, scope)), monkeypatch)

    ended = await shop.run("keys", "check")

    assert ended.code == 1
    (said,) = ended.wrong
    names = ", ".join(endpoint for endpoint, its_mode, _ in _asked(name) if its_mode == mode)
    resource, _, access = scope.rpartition("_")
    assert said.startswith(
        f"endpoints ({names}).api_key: lacks {scope} ({RESOURCES[resource].label} {access.capitalize()}):"
    )
    assert f"endpoints ({names}).permissions asks for it" in said


async def test_reading_is_not_writing(shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test", {"payment_intent_read"}), "payment_intent_write")

    ended = await shop.run("keys", "check")

    assert ended.code == 1
    assert "lacks payment_intent_write (PaymentIntents Write)" in ended.err


async def test_writing_is_reading(shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test", {"payment_intent_write"}), "payment_intent_read")

    assert (await shop.run("keys", "check")).code == 0


@pytest.mark.parametrize(
    "scope", sorted(f"{resource}_{access}" for resource in RESOURCES for access in ("read", "write"))
)
async def test_each_permission_that_can_be_asked_for_is_found_and_missed(scope: str, shop: Shop) -> None:
    resource, _, access = scope.rpartition("_")
    others = PERMISSIONS - ({scope} if access == "write" else {f"{resource}_read", f"{resource}_write"})
    for has, code in (({scope}, 0), (others, 1)):
        shop.configure(shop.fake.new_key("test", has), scope)

        ended = await shop.run("keys", "check")

        assert ended.code == code, ended.said
        assert (f"lacks {labelled(scope)}" in ended.err) is bool(code)


# A sentence for each key that cannot do.


async def test_a_wrong_key(shop: Shop) -> None:
    shop.configure("rk_test_51MistypedByAPerson")

    ended = await shop.run("keys", "check")

    assert ended.code == 2
    assert ended.wrong == ["endpoints (shop).api_key: Stripe refuses the API key: it is mistyped, rolled or deleted"]
    assert len(shop.fake.requests) == 1


async def test_an_expired_key(shop: Shop) -> None:
    key = shop.fake.new_key("test", {"event_read"})
    shop.fake.expire_key(key)
    shop.configure(key)

    ended = await shop.run("keys", "check")

    assert ended.code == 2
    assert ended.wrong == ["endpoints (shop).api_key: Stripe refuses the API key: it has expired"]


async def test_a_wrong_key_for_events_leaves_the_endpoints_key_checked(shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test"), events_key="rk_test_51MistypedByAPerson")

    ended = await shop.run("keys", "check")

    assert ended.code == 2
    assert ended.wrong == ["reconcile.api_key: Stripe refuses the API key: it is mistyped, rolled or deleted"]
    assert "endpoints (shop).api_key: the secret test key" in ended.out


@pytest.mark.parametrize(
    ("key", "mode", "said"),
    [
        ("rk_live_51SomeKeyOrOther", "test", "is a live key, and the endpoint's mode is test"),
        ("rk_test_51SomeKeyOrOther", "live", "is a test key, and the endpoint's mode is live"),
        ("pk_test_51SomeKeyOrOther", "test", "is a publishable key (pk_…), which is for browsers and may read nothing"),
        ("sk_org_51SomeKeyOrOther", "test", "is an organization's key (sk_org_…), which is of no one account"),
        ("whsec_51SomeKeyOrOther", "test", "is a signing secret (whsec_…)"),
    ],
)
async def test_a_key_of_the_wrong_kind_or_mode_is_refused_before_anybody_is_asked(
    key: str, mode: str, said: str, shop: Shop
) -> None:
    shop.configure(key, mode=mode)

    ended = await shop.run("keys", "check")

    assert ended.code == 2
    (line,) = ended.wrong
    assert line.startswith(f"stripe-ingest: configuration: endpoints (shop).api_key: {said}")
    assert "51SomeKeyOrOther" not in ended.said
    assert shop.fake.requests == []


async def test_a_permission_that_is_misspelt_is_refused_before_anybody_is_asked(shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test"), "webhooks_write")

    ended = await shop.run("keys", "check")

    assert ended.code == 2
    assert "endpoints (shop).permissions: webhooks_write is no permission" in ended.err
    assert "is it webhook_write?" in ended.err
    assert shop.fake.requests == []


async def test_a_key_that_this_machine_may_not_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {
        "error": {
            "message": "The API key provided does not allow requests from your IP address.",
            "type": "invalid_request_error",
        }
    }

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(refused, status=401)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        monkeypatch.setenv("STRIPE_INGEST__STRIPE__API_BASE", url)
        there = Shop(folder, url)
        there.configure("rk_test_51Restricted")

        ended = await there.run("keys", "check")
    finally:
        await runner.cleanup()

    assert ended.code == 2
    assert ended.wrong == [
        "endpoints (shop).api_key: Stripe refuses the API key: it may not be used from this machine's IP address"
    ]


async def test_stripe_unreachable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("STRIPE_INGEST__STRIPE__API_BASE", url)
    there = Shop(folder, url)
    there.configure("rk_test_51Unreachable", "payment_intent_write", events_key="rk_test_51Another")

    ended = await there.run("keys", "check")

    assert ended.code == 75
    for setting, said in zip(("endpoints (shop).api_key", "reconcile.api_key"), ended.wrong, strict=True):
        assert re.fullmatch(rf"{re.escape(setting)}: \w+ /v1/\S+: no answer; asked 3 times", said), said


async def test_a_failure_that_passes_is_not_told(shop: Shop) -> None:
    shop.fake.trouble.next(Failing())
    shop.configure(shop.fake.new_key("test"))

    assert (await shop.run("keys", "check")).code == 0


# What is said of the rest.


async def test_a_key_for_events_turns_promise_5_on(shop: Shop) -> None:
    own = shop.fake.new_key("test", {"webhook_write"})
    shop.configure(own, interval=900)
    without = await shop.run("keys", "check")
    shop.configure(own, interval=900, events_key=shop.fake.new_key("test", {"event_read"}))
    with_key = await shop.run("keys", "check")
    shop.configure(own, interval=900, events_key=shop.fake.new_key("test", {"customer_read"}))
    with_weak_key = await shop.run("keys", "check")

    assert without.code == 1
    assert f"endpoints (shop).api_key: lacks event_read (Events Read): {PROMISE_5}" in without.err
    assert with_key.code == 0
    assert "promise 5" not in with_key.said
    assert with_weak_key.code == 1
    assert "reconcile.api_key: lacks event_read (Events Read): promise 5 is off" in with_weak_key.err


async def test_the_table_says_what_is_off_without_what_is_not_required(shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test", {"customer_read"}))

    ended = await shop.run("keys", "check")

    assert (ended.code, ended.err) == (0, "")
    for scope in ("charge_read", "event_read", "webhook_read", "webhook_write"):
        assert re.search(rf"^ lacks .* {scope} ", ended.out, re.MULTILINE), ended.out
    for off in ("`backfill charges` is off", "promise 5 is off", "`endpoints plan` and `endpoints status` are off"):
        assert off in ended.said
    assert "Developers → API keys" in ended.said


async def test_a_secret_key_does_and_a_restricted_one_is_recommended(shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test"), "payment_intent_write", interval=900)

    ended = await shop.run("keys", "check", "--all")

    assert (ended.code, ended.err) == (0, "")
    assert "lacks" not in ended.out
    assert "is a secret key, which may do everything: a restricted key (rk_test_…)" in ended.said


async def test_what_a_key_may_do_beyond_need_is_said_when_asked(shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test", {"event_read", "plan_write", "customer_read"}))

    quiet, asked = await shop.run("keys", "check"), await shop.run("keys", "check", "--all")

    assert quiet.code == asked.code == 0
    assert "note:" not in quiet.out
    assert (
        "may do more than anything here needs: customer_read (Customers Read), plan_write (Prices Write)" in asked.out
    )


async def test_scripts_read_it_as_json(shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test", {"event_read"}), "plan_read")

    ended = await shop.run("keys", "check", "--json")

    assert (ended.code, ended.err) == (1, "")
    told = json.loads(ended.out)
    (key,) = told["keys"]
    assert (key["setting"], key["mode"], key["restricted"]) == ("endpoints (shop).api_key", "test", True)
    assert (key["endpoints"], key["failed"]) == (["shop"], None)
    by_scope = {each["scope"]: each for each in key["permissions"]}
    assert {scope: each["verdict"] for scope, each in by_scope.items()} == {
        "charge_read": "lacks",
        "event_read": "has",
        "plan_read": "lacks",
        "webhook_read": "lacks",
        "webhook_write": "lacks",
    }
    assert {scope for scope, each in by_scope.items() if each["required"]} == {"plan_read"}
    assert by_scope["plan_read"]["label"] == "Prices Read"
    assert told["wrong"] == [
        "endpoints (shop).api_key: lacks plan_read (Prices Read): endpoints (shop).permissions asks for it"
    ]


async def test_scripts_read_a_refused_key_as_json(shop: Shop) -> None:
    shop.configure("rk_test_51MistypedByAPerson")

    ended = await shop.run("keys", "check", "--json")

    assert ended.code == 2
    assert json.loads(ended.out)["keys"][0]["failed"]["tag"] == "stripe_key_refused"


async def test_with_no_endpoint_there_is_nothing_to_check(shop: Shop) -> None:
    shop.write("")

    ended = await shop.run("keys", "check")

    assert (ended.code, ended.out) == (0, "There is no API key, and nothing needs one.\n")


async def test_as_a_process_it_ends_with_its_code(shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test", {"event_read"}), "plan_read")

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "keys", "check", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=shop.folder, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()

    assert process.returncode == 1
    assert b"lacks plan_read (Prices Read)" in err
    assert b"Traceback" not in out + err


# Nothing is made, changed or sent.


def everything(fake: FakeStripe) -> dict[str, Any]:
    """All that the fake Stripe has, in both modes, and how often it has delivered something."""
    page = Page.of({"limit": "100"})
    found: dict[str, Any] = {"deliveries": len(fake.deliveries.attempts)}
    for livemode in (False, True):
        book = fake.book(fake.account, livemode=livemode)
        listed = {"event": book.events.page(page, lambda _: True)[0], "webhook_endpoint": book.endpoints.page(page)[0]}
        listed |= {kind: shelf.page(page, lambda _: True)[0] for kind, shelf in book.objects.items()}
        # A copy: what is changed later must not be changed here.
        found |= {f"{book.mode} {kind}": json.loads(json.dumps(objects)) for kind, objects in listed.items() if objects}
    return found


@pytest.mark.parametrize("permissions", [None, PERMISSIONS, ()], ids=["secret", "all", "none"])
async def test_it_changes_nothing(permissions: Collection[str] | None, shop: Shop) -> None:
    for n, kind in enumerate(("payment_intent.succeeded", "charge.succeeded", "customer.created", "product.updated",
                              "price.updated", "invoice.paid", "customer.subscription.created")):  # fmt: skip
        created = shop.fake.now() - 60
        shop.fake.add(sample(kind, seed=n, created=created, livemode=False))
    shop.fake.register("https://hooks.example.com/somebody", ["charge.refunded"])
    before = everything(shop.fake)
    assert sum(len(objects) for kind, objects in before.items() if kind != "deliveries") == 15
    shop.configure(
        shop.fake.new_key("test", permissions), *sorted(f"{r}_{a}" for r in RESOURCES for a in ("read", "write"))
    )

    ended = await shop.run("keys", "check", "--all")

    assert ended.code == (1 if permissions == () else 0)
    assert everything(shop.fake) == before
    assert {request.method for request in shop.fake.requests} == {"GET", "POST"}
    for request in shop.fake.requests:
        if request.method == "POST":
            assert re.fullmatch(rf"/v1/[a-z_/]+/[a-z]+_{PROBE}(/retry)?", request.path)
            assert request.status == (403 if permissions == () else 404)
        else:
            assert request.status == (403 if permissions == () else 200)


# Each command with a key that may do everything but what it needs.


@dataclass(frozen=True)
class Needing:
    """A command, and the permission without which it does nothing."""

    scope: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.command)

    @property
    def others(self) -> frozenset[str]:
        """All permissions without it; a key that may not read may not write either."""
        resource, _, access = self.scope.rpartition("_")
        return PERMISSIONS - ({self.scope} if access == "write" else {f"{resource}_read", f"{resource}_write"})


BACKFILLS: Final[Mapping[StripeList, str]] = {
    "products": "product_read",
    "prices": "plan_read",
    "customers": "customer_read",
    "subscriptions": "subscription_read",
    "payment_intents": "payment_intent_read",
    "charges": "charge_read",
    "refunds": "refund_read",
    "invoices": "invoice_read",
    "disputes": "dispute_read",
    "checkout_sessions": "checkout_session_read",
    "invoice_payments": "invoice_read",
}
RECOVERING: Final = (
    Needing("event_read", ("reconcile", "--since", "24h")),
    *(Needing(scope, ("backfill", name)) for name, scope in BACKFILLS.items()),
)
READING: Final = (
    Needing("webhook_read", ("endpoints", "plan")),
    Needing("webhook_read", ("endpoints", "status")),
    Needing("webhook_read", ("endpoints", "apply")),
)
WRITING: Final = (
    Needing("webhook_write", ("endpoints", "apply")),
    Needing("webhook_write", ("endpoints", "disable", "shop")),
    Needing("webhook_write", ("endpoints", "enable", "shop")),
    Needing("webhook_write", ("endpoints", "roll", "shop", "--replace", "--unseen")),
)


@pytest.fixture
def recovering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka, dedupe store and jobs in memory; the account is read over HTTP."""

    @asynccontextmanager
    async def recovery(config: Config) -> AsyncIterator[Recovery]:
        world = World(clock=ManualClock())
        yield Recovery(config, world.ingest, world.jobs)

    monkeypatch.setattr("service.commands.reconcile.recovery", recovery)
    monkeypatch.setattr("service.commands.backfill.recovery", recovery)


@pytest.mark.usefixtures("recovering")
@pytest.mark.parametrize("needing", RECOVERING, ids=str)
async def test_what_recovers_says_which_permission_it_lacks(needing: Needing, shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test", needing.others))
    lacking = await shop.run(*needing.command)
    shop.configure(shop.fake.new_key("test", {needing.scope}))
    having = await shop.run(*needing.command)

    assert lacking.code == 1, lacking.said
    assert needing.scope in lacking.said
    assert having.code == 0, having.said


@pytest.mark.parametrize("needing", READING, ids=str)
async def test_what_looks_at_endpoints_says_which_permission_it_lacks(needing: Needing, shop: Shop) -> None:
    shop.configure(shop.fake.new_key("test", needing.others), signs=False)

    ended = await shop.run(*needing.command)

    assert ended.code == 1, ended.said
    assert labelled(needing.scope) in ended.said


@pytest.mark.parametrize("needing", WRITING, ids=str)
async def test_what_changes_endpoints_says_which_permission_it_lacks(needing: Needing, shop: Shop) -> None:
    if needing.command[1] != "apply":
        shop.configure(shop.fake.new_key("test"), signs=False)
        applied = await shop.run("endpoints", "apply")
        assert applied.code == 0, applied.said
        if needing.command[1] == "enable":
            assert (await shop.run("endpoints", "disable", "shop")).code == 0
    before = everything(shop.fake)
    shop.configure(shop.fake.new_key("test", needing.others), signs=False)

    ended = await shop.run(*needing.command)

    assert ended.code == 1, ended.said
    assert labelled(needing.scope) in ended.said
    assert everything(shop.fake) == before


def test_each_list_that_can_be_backfilled_is_tried_here() -> None:
    assert set(BACKFILLS) == set(get_args(StripeList))
