"""`endpoints roll`: a signing secret rolled without a refused delivery, step by step."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import click
import orjson

from service.bootstrap import endpoints as bootstrap_endpoints
from service.bootstrap.endpoints import (
    NO_STORE,
    Account,
    NoStore,
    ReceiverSecrets,
    accounts_of,
    chosen,
    configured,
    metrics_urls,
    store_of,
)
from service.clock import SystemClock
from service.commands.endpoint_status import EXIT_TEMPORARY, EXIT_WRONG
from service.commands.options import going_on_later, run_async, with_given_config
from service.commands.secret_input import asked_for
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
    prepare,
    standing,
    take_over,
    with_rolled,
)
from service.stripe_account.endpoint_urls import shown
from service.stripe_account.endpoint_wanted import deployment_of, wanted_endpoints

STANDARD_INPUT: Final = "-"

KNOWN_SECONDS_MAX: Final = 60.0
"""How long --replace waits for receivers to take the new secret; they look at their store every second."""
KNOWN_PAUSE_SECONDS: Final = 0.5
UNSEEN_SECONDS: Final = 5.0
"""How long it waits where nobody is asked."""
UNDER_WAY_SECONDS: Final = 5.0
"""After an endpoint was switched off: what Stripe has signed with its secret by then may still be on its way."""


class NotYet(Exception):
    """Receivers have not taken the new secret in time; the message says which."""


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
@click.option(
    "--unseen", is_flag=True, help="Ask no receiver: --replace waits some seconds, --finish lets go all the same."
)
@click.option(
    "--metrics-url",
    "urls",
    multiple=True,
    metavar="URL",
    help="A receiver's; several may be given. By default those of [admin] on this machine.",
)
@click.option("--unlisted", is_flag=True, help="With --replace, as for `apply`.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="For scripts: an object of endpoint, stage, secrets, webhook_endpoint_id, replaced and seen.",
)
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
    --rolled-secret - ; or have --replace make a second endpoint at the same URL, which gets its events once every
    receiver (--metrics-url) is seen to know its secret. Deliveries are verified with both secrets until --finish, which
    is refused until a receiver has been seen to verify one with the new secret. Each step can be repeated, and
    interrupted at any moment.
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
            task.add(_new_secret(name))
        elif replacing:
            with store.held(), going_on_later():
                run_async(lambda: _replace(task, unlisted=unlisted, unseen=unseen))
        elif finishing:
            with store.held():
                before = run_async(lambda: _finish(task, unseen=unseen))
            if before.replaced and not as_json:
                click.echo(_switched_off(before))
        stands, verified = run_async(lambda: _look(task))
    except RollRefused as refused:
        click.echo(f"stripe-ingest: {refused}", err=True)
        raise click.exceptions.Exit(EXIT_WRONG) from None
    except NotYet as waited:
        click.echo(f"stripe-ingest: {waited}", err=True)
        raise click.exceptions.Exit(EXIT_TEMPORARY) from None
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


async def _replace(task: _Task, *, unlisted: bool, unseen: bool) -> None:
    account = task.account(await asyncio.to_thread(task.store.read))
    wanted = wanted_endpoints(task.given, {task.name: account.mode}, unlisted=unlisted)[task.name]
    async with bootstrap_endpoints.clients(task.given, [account]) as ((_, endpoints),):
        before = standing(task.name, (await asyncio.to_thread(task.store.read)).of(task.name), await endpoints.all())
        if before.stage is not RollStage.REPLACED and not unseen:
            # Before anything is made: nobody is to wait for receivers that cannot be asked.
            _check_answering(task, await bootstrap_endpoints.receiver_secrets(task.urls, task.name))
        stands = await prepare(wanted, Registration(endpoints, task.store, SystemClock()), deployment_of(task.given))
        if stands.stage is RollStage.PREPARED and stands.endpoint_id is not None:
            await _until_known(task, stands, unseen=unseen)
            await take_over(wanted, stands.endpoint_id, endpoints)


async def _until_known(task: _Task, stands: Standing, *, unseen: bool) -> None:
    """Return once all receivers verify with the new secret; where none is asked, after some seconds."""
    secret, is_prepared = stands.fingerprints[0], f"{stands.name}: {stands.endpoint_id} is made and gets no events yet"
    if unseen:
        click.echo(f"{is_prepared}: {UNSEEN_SECONDS:g} s for receivers to take its secret ({secret})", err=True)
        await asyncio.sleep(UNSEEN_SECONDS)
        return
    loop = asyncio.get_running_loop()
    deadline = loop.time() + KNOWN_SECONDS_MAX
    said = False
    while lacking := _lacking(await bootstrap_endpoints.receiver_secrets(task.urls, task.name), secret):
        if loop.time() >= deadline:
            raise NotYet(
                f"{is_prepared}: its secret ({secret}) has not come to the receiver at {_urls(lacking)} within"
                f" {KNOWN_SECONDS_MAX:g} s. Is that one's secrets.store this one?"
                f" `endpoints roll {stands.name} --replace` goes on, with --unseen without asking"
            )
        if not said:
            click.echo(
                f"{is_prepared}: waiting for the receiver at {_urls(lacking)} to take its secret ({secret}),"
                f" {KNOWN_SECONDS_MAX:g} s at most",
                err=True,
            )
            said = True
        await asyncio.sleep(KNOWN_PAUSE_SECONDS)


async def _finish(task: _Task, *, unseen: bool) -> Standing:
    """End the roll; gives where it stood before."""
    async with AsyncExitStack() as stack:
        stands, endpoints = await _standing(task, stack)
        if stands.stage is RollStage.NONE:
            return stands
        if stands.stage is RollStage.REPLACED and endpoints is None:
            task.account(Credentials())  # which says that it has no key
        if stands.stage in {RollStage.ROLLED, RollStage.REPLACED} and not unseen:
            _check_seen(task, stands, await bootstrap_endpoints.receiver_secrets(task.urls, task.name))
        await finish(stands, task.store, endpoints, settled=_settled)
        return stands


async def _settled() -> None:
    click.echo(f"The old endpoint is switched off: {UNDER_WAY_SECONDS:g} s for what is still on its way.", err=True)
    await asyncio.sleep(UNDER_WAY_SECONDS)


def _check_answering(task: _Task, seen: Mapping[str, ReceiverSecrets | None]) -> None:
    silent = [url for url, told in seen.items() if told is None]
    if silent or not seen:
        where = f"at {_urls(silent)}" if silent else "(admin.port is 0)"
        raise RollRefused(
            f"{task.name}: no receiver tells its metrics {where}: give --metrics-url, or --unseen to go on without"
            " asking"
        )


def _check_seen(task: _Task, stands: Standing, seen: Mapping[str, ReceiverSecrets | None]) -> None:
    _check_answering(task, seen)
    secret = stands.fingerprints[0]
    if lacking := _lacking(seen, secret):
        raise RollRefused(
            f"{task.name}: the receiver at {_urls(lacking)} does not verify with the new secret ({secret}): is its"
            " secrets.store this one?"
        )
    if not (_verified(seen) or {}).get(secret):
        raise RollRefused(
            f"{task.name}: no delivery has been verified with the new secret ({secret}) yet: wait for one, or say"
            " --unseen"
        )


def _lacking(seen: Mapping[str, ReceiverSecrets | None], secret: str) -> Sequence[str]:
    """Where a receiver does not verify with a secret, or does not say."""
    return [url for url, told in seen.items() if told is None or secret not in told.active]


def _urls(urls: Sequence[str]) -> str:
    return ", ".join(map(shown, urls))


def _verified(seen: Mapping[str, ReceiverSecrets | None]) -> Mapping[str, float] | None:
    """How many deliveries were verified with each secret, by all that answer; None where nobody does."""
    answers = [told.verified for told in seen.values() if told is not None]
    secrets = {secret for verified in answers for secret in verified}
    return {secret: sum(each.get(secret, 0) for each in answers) for secret in secrets} if answers else None


async def _look(task: _Task) -> tuple[Standing, Mapping[str, float] | None]:
    async with AsyncExitStack() as stack:
        stands, _ = await _standing(task, stack)
    if stands.stage not in {RollStage.ROLLED, RollStage.REPLACED}:
        return stands, None
    return stands, _verified(await bootstrap_endpoints.receiver_secrets(task.urls, task.name))


async def _standing(task: _Task, stack: AsyncExitStack) -> tuple[Standing, WebhookEndpoints | None]:
    """Where it stands; and its account's endpoints, where it has a key."""
    credentials = await asyncio.to_thread(task.store.read)
    found = [account for account in accounts_of(task.given, credentials) if task.name in account.names]
    if not found:
        return standing(task.name, credentials.of(task.name), None), None
    ((_, endpoints),) = await stack.enter_async_context(bootstrap_endpoints.clients(task.given, found))
    return standing(task.name, credentials.of(task.name), await endpoints.all()), endpoints


def _new_secret(name: str) -> Secret:
    """The new secret, piped in or typed in. Raises `ConfigurationError` for none, and for what is none."""
    what = f"new signing secret of {name}"
    secret = Secret(asked_for(what))
    if not is_signing_secret(secret):
        raise ConfigurationError(f"the {what}: one is expected on standard input, beginning with whsec_")
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
        case RollStage.PREPARED:
            return f"{name}: {stands.endpoint_id} is to take over, and gets no events until receivers know its secret."
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
        case RollStage.PREPARED:
            return f"Next: {command} --replace` once more, which goes on once they do."
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
        "webhook_endpoint_id": stands.endpoint_id,
        "replaced": list(stands.replaced),
        "seen": None if verified is None or not stands.fingerprints else bool(verified.get(stands.fingerprints[0])),
    }
