"""`endpoints roll`: a signing secret rolled without a refused delivery, step by step."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import click
import orjson

from service import bootstrap_endpoints
from service.bootstrap_endpoints import (
    NO_STORE,
    Account,
    NoStore,
    accounts_of,
    chosen,
    configured,
    metrics_urls,
    store_of,
)
from service.clock import SystemClock
from service.commands.options import run_async, with_given_config
from service.config import Config
from service.credentials.book import Credentials, is_signing_secret
from service.errors import ConfigurationError
from service.events import Secret
from service.ports import CredentialStore, WebhookEndpoints
from service.stripe_account.endpoint_apply import Registration
from service.stripe_account.endpoint_roll import (
    RollRefused,
    RollStage,
    Standing,
    finish,
    replace_endpoint,
    standing,
    with_rolled,
)
from service.stripe_account.endpoint_wanted import wanted_endpoints

SECRET_CHARACTERS_MAX: Final = 4096
STANDARD_INPUT: Final = "-"


def _dash(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value not in {None, STANDARD_INPUT}:
        # Not shown again: it may be the secret.
        raise click.BadParameter(
            "is read from standard input, never from the command line, which others see: --rolled-secret -"
        )
    return value


@click.command("roll")
@click.argument("name")
@click.option(
    "--rolled-secret", callback=_dash, metavar="-", help="Keep the new secret of an endpoint rolled in the dashboard."
)
@click.option("--replace", "replacing", is_flag=True, help="Make a second endpoint that takes over from this one.")
@click.option("--finish", "finishing", is_flag=True, help="Let go of the old secret, and of the old endpoint.")
@click.option("--unseen", is_flag=True, help="--finish although no receiver has been seen to verify with the new one.")
@click.option("--metrics-url", "urls", multiple=True, metavar="URL", help="A receiver's; by default that of [admin].")
@click.option("--unlisted", is_flag=True, help="With --replace, as for `apply`.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@with_given_config
def roll(
    given: Config,
    *,
    name: str,
    rolled_secret: str | None,
    replacing: bool,
    finishing: bool,
    unseen: bool,
    urls: tuple[str, ...],
    unlisted: bool,
    as_json: bool,
) -> None:
    """Roll an endpoint's signing secret without a refused delivery. Alone: where it stands, and what comes next.

    There are two ways. Either roll it in the dashboard, let the old one live on for some hours, and give the new one to
    --rolled-secret - ; or have --replace make a second endpoint at the same URL. Deliveries are verified with both
    secrets until --finish, which waits for nothing: it is refused until a running receiver has been seen to verify one
    with the new secret. Each step can be repeated, and interrupted at any moment.
    """
    if (rolled_secret is not None) + replacing + finishing > 1:
        raise click.UsageError("--rolled-secret, --replace and --finish are one step each: give one of them")
    endpoint = configured(given, name)
    if endpoint.secrets:
        raise ConfigurationError(
            f"endpoints ({name}).secrets: are in the configuration, which the store's cannot override: put the new one"
            " before the old one there, and take the old one out once deliveries are verified with the new one"
        )
    store = store_of(given)
    if isinstance(store, NoStore):
        raise ConfigurationError(NO_STORE)
    task = _Task(given, name, store, urls or tuple(metrics_urls(given)))
    try:
        if rolled_secret is not None:
            task.add(_asked_for(name))
        elif replacing:
            with store.held():
                run_async(lambda: _replace(task, unlisted=unlisted))
        elif finishing:
            with store.held():
                before = run_async(lambda: _finish(task, unseen=unseen))
            if before.replaced and not as_json:
                click.echo(_switched_off(before))
        stands, verified = run_async(lambda: _look(task))
    except RollRefused as refused:
        click.echo(f"stripe-ingest: {refused}", err=True)
        raise click.exceptions.Exit(1) from None
    if as_json:
        click.echo(orjson.dumps(_json(stands, verified)))
    else:
        _show(stands, verified)


@dataclass(frozen=True, slots=True)
class _Task:
    given: Config
    name: str
    store: CredentialStore
    urls: Sequence[str]

    @property
    def configured(self) -> frozenset[str]:
        return frozenset(endpoint.name for endpoint in self.given.endpoints)

    def account(self, credentials: Credentials) -> Account:
        """Whose it is. Raises `ConfigurationError` where it has no API key."""
        (account,) = chosen(self.given, credentials, [self.name]).accounts
        return account

    def add(self, secret: Secret) -> None:
        """Keep the new secret as the newest."""
        with self.store.held():
            credentials = self.store.read()
            kept = credentials.of(self.name)
            changed = with_rolled(self.name, kept, secret, SystemClock().now())
            if changed != kept:
                self.store.write(credentials.having(self.name, changed))


async def _replace(task: _Task, *, unlisted: bool) -> None:
    account = task.account(await asyncio.to_thread(task.store.read))
    wanted = wanted_endpoints(task.given, {task.name: account.mode}, unlisted=unlisted)[task.name]
    async with bootstrap_endpoints.clients(task.given, [account]) as ((_, endpoints),):
        await replace_endpoint(wanted, Registration(endpoints, task.store, SystemClock()), task.configured)


async def _finish(task: _Task, *, unseen: bool) -> Standing:
    """End the roll; gives where it stood before."""
    async with AsyncExitStack() as stack:
        stands, endpoints = await _standing(task, stack)
        if stands.stage is RollStage.NONE:
            return stands
        if stands.stage is RollStage.REPLACED and endpoints is None:
            task.account(Credentials())  # which says that it has no key
        if stands.stage is not RollStage.BEGUN and not unseen:
            _check_seen(task, stands, await bootstrap_endpoints.verified_with(task.urls, task.name))
        await finish(stands, task.store, endpoints)
        return stands


def _check_seen(task: _Task, stands: Standing, verified: Mapping[str, float] | None) -> None:
    if verified is None:
        raise RollRefused(
            f"{task.name}: no receiver tells its metrics at {', '.join(task.urls)}: give --metrics-url, or --unseen"
            " where deliveries are known to be verified with the new secret"
        )
    if not verified.get(stands.fingerprints[0]):
        raise RollRefused(
            f"{task.name}: no delivery has been verified with the new secret ({stands.fingerprints[0]}) yet: wait for"
            " one, or say --unseen"
        )


async def _look(task: _Task) -> tuple[Standing, Mapping[str, float] | None]:
    async with AsyncExitStack() as stack:
        stands, _ = await _standing(task, stack)
    if stands.stage in {RollStage.NONE, RollStage.BEGUN}:
        return stands, None
    return stands, await bootstrap_endpoints.verified_with(task.urls, task.name)


async def _standing(task: _Task, stack: AsyncExitStack) -> tuple[Standing, WebhookEndpoints | None]:
    """Where it stands; and its account's endpoints, where it has a key."""
    credentials = await asyncio.to_thread(task.store.read)
    found = [account for account in accounts_of(task.given, credentials) if task.name in account.names]
    if not found:
        return standing(task.name, credentials.of(task.name), None), None
    ((_, endpoints),) = await stack.enter_async_context(bootstrap_endpoints.clients(task.given, found))
    return standing(task.name, credentials.of(task.name), await endpoints.all()), endpoints


def _asked_for(name: str) -> Secret:
    """The new secret, piped in or typed in. Raises `ConfigurationError` for none, and for what is none."""
    if sys.stdin.isatty():
        text = click.prompt(f"The new signing secret of {name}", hide_input=True, err=True, type=str)
    else:
        text = sys.stdin.read(SECRET_CHARACTERS_MAX + 1)
    secret = Secret(text.strip())
    if len(text) > SECRET_CHARACTERS_MAX or not is_signing_secret(secret):
        raise ConfigurationError(
            f"the new signing secret of {name}: one is expected on standard input, beginning with whsec_"
        )
    return secret


# --- what is shown ---------------------------------------------------------------------------------------------------


def _show(stands: Standing, verified: Mapping[str, float] | None) -> None:
    click.echo(_where(stands))
    for place, secret in enumerate(stands.fingerprints if len(stands.fingerprints) > 1 else ()):
        count = "" if verified is None else f", {verified.get(secret, 0):.0f} deliveries verified with it"
        click.echo(f"  {secret} ({'old' if place else 'new'}{count})")
    if (following := _next(stands, verified)) is not None:
        click.echo(following)


def _where(stands: Standing) -> str:
    name = stands.name
    match stands.stage:
        case RollStage.NONE:
            kept = (
                f"its signing secret is {stands.fingerprints[0]}" if stands.fingerprints else "it has no signing secret"
            )
            return f"{name}: no roll is under way; {kept}."
        case RollStage.BEGUN:
            return f"{name}: a second endpoint was begun, and Stripe's answer was lost."
        case RollStage.ROLLED:
            return f"{name}: deliveries are verified with the secret rolled in the dashboard, and with the old one."
        case RollStage.REPLACED:
            old = f" beside {', '.join(stands.replaced)}" if stands.replaced else ""
            return f"{name}: {stands.endpoint_id} takes its events{old}, and deliveries are verified with both secrets."


def _switched_off(before: Standing) -> str:
    return (
        f"{before.name}: {', '.join(before.replaced)} is switched off. What Stripe had still to send again there,"
        " `stripe-ingest reconcile` finds; `stripe-ingest endpoints apply --prune` deletes what this service has made."
    )


def _next(stands: Standing, verified: Mapping[str, float] | None) -> str | None:
    command = f"`stripe-ingest endpoints roll {stands.name}"
    match stands.stage:
        case RollStage.NONE:
            return (
                f"To roll it: in the dashboard, with some hours for the old one, and then {command} --rolled-secret -`;"
                f" or {command} --replace`, which makes a second endpoint."
            )
        case RollStage.BEGUN:
            return f"Next: {command} --replace` once more, which gets the answer again."
        case RollStage.ROLLED | RollStage.REPLACED:
            if verified is None:
                return (
                    f"Next: {command} --finish`. No receiver tells its metrics here: --metrics-url says where one does."
                )
            if not verified.get(stands.fingerprints[0]):
                return f"Next: wait for a delivery that is verified with the new one, and then {command} --finish`."
            return f"Next: {command} --finish`; a receiver has verified with the new one."


def _json(stands: Standing, verified: Mapping[str, float] | None) -> dict[str, Any]:
    return {
        "endpoint": stands.name,
        "stage": stands.stage.value,
        "secrets": [
            {"fingerprint": each, "verified": None if verified is None else int(verified.get(each, 0))}
            for each in stands.fingerprints
        ],
        "webhook_endpoint": stands.endpoint_id,
        "replaced": list(stands.replaced),
        "seen": None if verified is None or not stands.fingerprints else bool(verified.get(stands.fingerprints[0])),
    }
