"""`secrets`: what is kept for each endpoint, and where it comes from. Nothing shows a secret, or takes one in argv."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.commands.options import with_given_config
from service.commands.secret_input import asked_for
from service.config import Config, EndpointConfig
from service.credentials.book import (
    Credentials,
    EndpointCredentials,
    SigningSecret,
    is_signing_secret,
)
from service.credentials.file import CredentialsFile, new_key, sync_folder
from service.errors import ConfigurationError
from service.events import Secret
from service.signature import FINGERPRINT_DIGITS, fingerprint
from service.stripe_account.api_keys import stripe_keys

Kind: TypeAlias = Literal["signing-secret", "api-key"]
KINDS: Final = ("signing-secret", "api-key")
EVERYTHING: Final = "everything"
_DAY: Final = len("2026-11-21")
_WIDE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Held:
    """A secret of an endpoint, by its fingerprint; `overridden` where the configuration has its own of this kind."""

    endpoint: str
    kind: Kind
    fingerprint: str
    source: Literal["configuration", "store"]
    added_at: str | None
    webhook_endpoint_id: str | None
    overridden: bool
    configured: bool
    """Whether the configuration has this endpoint."""

    def where(self) -> str:
        """Where it comes from, and why it is not used where it is not."""
        if not self.configured:
            return f"{self.source} (no such endpoint)"
        return f"{self.source} (overridden)" if self.overridden else self.source


@click.group("secrets")
def secrets_group() -> None:
    """Keep the endpoints' signing secrets and API keys in a file (secrets.store), encrypted where there is a key.

    What the configuration says itself overrides what is kept. Secrets are shown by fingerprints only: the first 12 hex
    digits of their SHA-256, as in logs and metrics.
    """


@secrets_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@with_given_config
def secrets_list(given: Config, as_json: bool) -> None:
    """List the signing secrets and API keys of all endpoints, and where they come from; never what they are."""
    store = given.secrets.file()
    credentials = Credentials() if store is None else store.read()
    found = list(held_by(given, credentials))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found]))
    elif found:
        table = Table("endpoint", "kind", "fingerprint", "from", "added", "at Stripe", box=None, header_style="bold")
        for each in found:
            added, at_stripe = (each.added_at or "-")[:_DAY], each.webhook_endpoint_id or "-"
            row = (each.endpoint, each.kind, each.fingerprint, each.where(), added, at_stripe)
            table.add_row(*map(Text, row))
        # Names and ids are there to be copied: a terminal that is too narrow breaks lines, never cells.
        Console(width=_WIDE).print(table)
    else:
        click.echo("There is none.")
    for name, kept in credentials.endpoints.items():
        if kept.creation is not None:
            begun = _moment(kept.creation.begun_at)
            click.echo(f"{name}: its registration at Stripe was begun {begun}: `endpoints apply` ends it", err=True)


def _one_of(*allowed: str) -> Callable[[click.Context, click.Parameter, str], str]:
    """A choice that does not show what it was given, as click's own does: it may be the secret."""

    def checked(_: click.Context, __: click.Parameter, value: str) -> str:
        if value not in allowed:
            raise click.BadParameter(f"must be {' or '.join(allowed)}")
        return value

    return checked


@secrets_group.command("set", context_settings={"allow_extra_args": True})
@click.argument("endpoint", metavar="ENDPOINT")
@click.argument("kind", metavar="|".join(KINDS), callback=_one_of(*KINDS))
@click.option("--replace", "alone", is_flag=True, help="Instead of those that are kept, rather than beside them.")
@click.option(
    "--webhook-endpoint", "webhook_endpoint_id", metavar="ID", help="Whose signing secret it is at Stripe (we_…)."
)
@with_given_config
def secrets_set(given: Config, endpoint: str, kind: Kind, alone: bool, webhook_endpoint_id: str | None) -> None:
    """Keep a signing secret or an API key, read from standard input, or asked for on a terminal.

    A signing secret goes before those that are kept, all of which verify until `secrets remove` or `endpoints roll
    --finish`; an API key takes the place of the one before.
    """
    if click.get_current_context().args:
        # Which it does not show again.
        raise click.UsageError("a secret is read from standard input, never from the command line, which others see")
    if kind == "api-key" and (alone or webhook_endpoint_id is not None):
        raise click.UsageError("--replace and --webhook-endpoint are for a signing-secret")
    if webhook_endpoint_id is not None and not re.fullmatch(r"we_[A-Za-z0-9_]+", webhook_endpoint_id):
        raise click.UsageError("--webhook-endpoint: must be we_…, as Stripe names a webhook endpoint")
    store, configured = _store(given), _configured(given, endpoint)
    value = _checked(given, configured, kind, asked_for(f"{kind} of {endpoint}"))
    with store.held():
        credentials = store.read()
        kept = credentials.of(endpoint)
        if kind == "api-key":
            changed = replace(kept, api_key=value)
        else:
            changed = _with_signing(kept, value, webhook_endpoint_id, alone=alone)
        if changed != kept:
            store.write(credentials.having(endpoint, changed))
    said = "is kept now" if changed != kept else "is kept already"
    click.echo(f"{endpoint}: the {kind} {fingerprint(value)} {said}{_others(changed, kind)}.")
    if kept.creation is not None and changed.creation is None:
        click.echo(f"{endpoint}: the registration begun {_moment(kept.creation.begun_at)} is taken as ended with it.")
    if _overrides(configured, kind):
        click.echo(f"warning: {endpoint}: the configuration has its own, which overrides what is kept", err=True)


@secrets_group.command("remove", context_settings={"allow_extra_args": True})
@click.argument("endpoint", metavar="ENDPOINT")
@click.argument("kind", metavar="|".join((*KINDS, EVERYTHING)), callback=_one_of(*KINDS, EVERYTHING))
@click.option("--fingerprint", "named", metavar="HEX", help="Which of several signing secrets; see `secrets list`.")
@click.option("--yes", is_flag=True, help="Also where the endpoint is left without a signing secret.")
@with_given_config
def secrets_remove(given: Config, endpoint: str, kind: str, named: str | None, yes: bool) -> None:
    """Keep a signing secret or an API key no more, or `everything` of an endpoint.

    An endpoint that is left without a signing secret refuses every delivery: that is not done without --yes.
    """
    if click.get_current_context().args:
        # Which it does not show again.
        raise click.UsageError(
            "a secret is named by --fingerprint, never by itself on the command line, which others see"
        )
    if named is not None and kind != "signing-secret":
        raise click.UsageError("--fingerprint is for a signing-secret")
    store = _store(given)
    with store.held():
        credentials = store.read()
        names = {each.name for each in given.endpoints} | set(credentials.endpoints)
        if endpoint not in names:
            raise ConfigurationError(_no_such(endpoint, names))
        kept = credentials.of(endpoint)
        if kind == "signing-secret":
            changed = replace(kept, signing=_without(kept.signing, endpoint, named))
        else:
            changed = replace(kept, api_key=None) if kind == "api-key" else EndpointCredentials()
        if changed == kept:
            what = "nothing" if kind == EVERYTHING else f"no {kind}"
            raise ConfigurationError(f"there is {what} of {endpoint} in {store.path}")
        configured = next((each for each in given.endpoints if each.name == endpoint), None)
        if configured is not None and kept.signing and not changed.signing and not configured.secrets and not yes:
            raise click.UsageError(f"{endpoint} would be left without a signing secret; say --yes where that is meant")
        store.write(credentials.having(endpoint, changed))
    removed = kind if kind == EVERYTHING else f"the {kind}"
    click.echo(f"{endpoint}: {removed} is kept no more{_others(changed, kind)}.")


@secrets_group.command("key")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), help="Into a new file, 0600.")
def secrets_key(output: Path | None) -> None:
    """Make a key for secrets.key: print it, or write it into a file, never over one that is there.

    In secrets.key_file the first key encrypts and all of them decrypt: to change it, put a new one before it, start
    what reads the store again, run `secrets encrypt`, and take the old one away.
    """
    key = new_key()
    if output is None:
        click.echo(key)
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{output}: is there already; it is left as it is") from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(descriptor)
        # What is encrypted with it may outlive a power cut: so must it.
        sync_folder(output.absolute().parent)
    except OSError as error:
        output.unlink(missing_ok=True)
        raise ConfigurationError(f"{output}: cannot be written: {error.strerror}") from None
    click.echo(f"wrote {output}: the key {fingerprint(Secret(key))}")


@secrets_group.command("encrypt")
@with_given_config
def secrets_encrypt(given: Config) -> None:
    """Write the store anew with the first key of secrets.key: one that was not encrypted, or with an older key."""
    store = _store(given)
    if store.key is None:
        raise ConfigurationError(
            "secrets.key: is needed: `stripe-ingest secrets key --output FILE` makes one for secrets.key_file"
        )
    with store.held():
        credentials = store.read_to_encrypt()
        if not store.path.exists():
            click.echo(f"There is no {store.path} yet: what will be kept will be encrypted.")
            return
        store.write(credentials)
    click.echo(f"{store.path} is encrypted with the key {store.key_fingerprint}.")


def held_by(given: Config, credentials: Credentials) -> Iterator[Held]:
    """Every secret of every endpoint: of the configuration's in its order, then of those that only the store has."""
    names = [endpoint.name for endpoint in given.endpoints]
    for endpoint in given.endpoints:
        for secret in endpoint.secrets:
            yield _given(endpoint, "signing-secret", secret)
        if endpoint.api_key is not None:
            yield _given(endpoint, "api-key", endpoint.api_key)
        yield from _kept(endpoint.name, credentials.of(endpoint.name), endpoint)
    for name, kept in credentials.endpoints.items():
        if name not in names:
            yield from _kept(name, kept, None)


def _given(endpoint: EndpointConfig, kind: Kind, secret: Secret) -> Held:
    return Held(
        endpoint.name, kind, fingerprint(secret), "configuration", None, None, overridden=False, configured=True
    )


def _kept(name: str, kept: EndpointCredentials, endpoint: EndpointConfig | None) -> Iterator[Held]:
    def held(kind: Kind, secret: Secret, added_at: str | None, webhook_endpoint_id: str | None) -> Held:
        return Held(
            name,
            kind,
            fingerprint(secret),
            "store",
            added_at,
            webhook_endpoint_id,
            overridden=endpoint is not None and _overrides(endpoint, kind),
            configured=endpoint is not None,
        )

    for each in kept.signing:
        yield held("signing-secret", each.value, _moment(each.added_at), each.webhook_endpoint_id)
    if kept.api_key is not None:
        yield held("api-key", kept.api_key, None, None)


def _overrides(endpoint: EndpointConfig, kind: Kind) -> bool:
    return bool(endpoint.secrets) if kind == "signing-secret" else endpoint.api_key is not None


def _store(given: Config) -> CredentialsFile:
    store = given.secrets.file()
    if store is None:
        raise ConfigurationError(
            "secrets.store: is needed: the file to keep secrets in, such as /var/lib/stripe-ingest/secrets.json"
        )
    return store


def _configured(given: Config, name: str) -> EndpointConfig:
    for endpoint in given.endpoints:
        if endpoint.name == name:
            return endpoint
    raise ConfigurationError(_no_such(name, {each.name for each in given.endpoints}))


def _no_such(name: str, names: set[str]) -> str:
    if re.match(r"(?:whsec|sk|rk|pk)_", name):
        return (
            "ENDPOINT: is a secret; it is read from standard input, never from the command line, which others can see"
        )
    return f"there is no endpoint {name!r}; there " + (f"are {', '.join(sorted(names))}" if names else "is none")


def _checked(given: Config, endpoint: EndpointConfig, kind: Kind, text: str) -> Secret:
    secret = Secret(text)
    if kind == "signing-secret":
        if not is_signing_secret(secret):
            raise ConfigurationError(f"the signing-secret of {endpoint.name}: must begin with whsec_")
        return secret
    # Alone: the key of another endpoint that cannot be used is not in the way of this one's.
    alone = msgspec.structs.replace(given, endpoints=(msgspec.structs.replace(endpoint, api_key=secret),))
    stripe_keys(alone)
    return secret


def _with_signing(
    kept: EndpointCredentials, secret: Secret, webhook_endpoint_id: str | None, *, alone: bool
) -> EndpointCredentials:
    now = datetime.now(UTC).replace(microsecond=0)
    known = next((each for each in kept.signing if each.value == secret), None)
    changed = kept.with_signing(SigningSecret(secret, known.added_at if known else now, webhook_endpoint_id))
    if alone:
        changed = changed.with_newest_signing_only()
    if kept.creation is not None and not kept.creation.repeatable(now):
        # Nobody but the person who looks it up can get its secret any more.
        changed = replace(changed, creation=None)
    return changed


def _without(signing: Sequence[SigningSecret], endpoint: str, named: str | None) -> tuple[SigningSecret, ...]:
    prints = [fingerprint(each.value) for each in signing]
    if named is None and len(signing) > 1:
        raise click.UsageError(f"{endpoint} has several signing secrets: --fingerprint {' or '.join(prints)}")
    if named is not None and named not in prints:
        shown = named if re.fullmatch(rf"[0-9a-f]{{1,{FINGERPRINT_DIGITS}}}", named) else "of this name"
        there = f"there are {', '.join(prints)}" if prints else "there is none"
        raise ConfigurationError(f"{endpoint} has no signing secret {shown} in the store; {there}")
    return tuple(each for each, its in zip(signing, prints, strict=True) if named is not None and its != named)


def _others(changed: EndpointCredentials, kind: str) -> str:
    if kind != "signing-secret":
        return ""
    return f"; the store has {', '.join(fingerprint(each.value) for each in changed.signing) or 'none'} (newest first)"


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
