"""Composition of what looks after the webhook endpoints at Stripe."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from service.clock import SystemClock
from service.config import Config, EndpointConfig, with_stored
from service.credentials.book import Credentials
from service.errors import ConfigurationError
from service.events import Secret
from service.ports import CredentialStore, WebhookEndpoints
from service.stripe_account.api_keys import KeyMode, stripe_keys
from service.stripe_account.observer import StripeCounts
from service.stripe_account.webhook_endpoints import StripeWebhookEndpoints

METRICS_SECONDS_MAX: Final = 5.0
METRICS_BYTES_MAX: Final = 16 * 1024 * 1024
ACTIVE: Final = "stripe_ingest_active_secrets"
VERIFIED: Final = "stripe_ingest_verified_total"

NO_STORE: Final = (
    "secrets.store: is needed: the file that keeps the signing secrets, which Stripe shows once; such as"
    " /var/lib/stripe-ingest/secrets.json"
)


class NoStore:
    """`CredentialStore` where none is configured: there is nothing in it, and nothing can be kept."""

    def read(self) -> Credentials:
        """Nothing."""
        return Credentials()

    def write(self, credentials: Credentials) -> None:  # noqa: ARG002 -- the port's
        """Raise `ConfigurationError`."""
        raise ConfigurationError(NO_STORE)

    def held(self) -> AbstractContextManager[None]:
        """There is nobody to be held off."""
        return nullcontext()


def store_of(given: Config) -> CredentialStore:
    """The configured store, else one that keeps nothing."""
    return given.secrets.file() or NoStore()


@dataclass(frozen=True, slots=True)
class Account:
    """An account at Stripe in one mode, as one API key sees it, and the configured endpoints that are of it."""

    key: Secret
    mode: KeyMode
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The endpoints that something is asked of."""

    accounts: tuple[Account, ...]
    without_key: tuple[str, ...]
    """Those whose account cannot be looked at."""


def chosen(given: Config, credentials: Credentials, names: Collection[str] = ()) -> Chosen:
    """These endpoints by their API keys; all of them where none is named.

    Raises `ConfigurationError` for a name that there is not, and where none of them, or one that is named, has no key.
    """
    known = [endpoint.name for endpoint in given.webhook_endpoints()]
    for name in names:
        configured(given, name)
    wanted = frozenset(names or known)
    accounts = tuple(
        replace(account, names=of_it)
        for account in accounts_of(given, credentials)
        if (of_it := tuple(name for name in account.names if name in wanted))
    )
    with_key = {name for account in accounts for name in account.names}
    without_key = tuple(name for name in known if name in wanted - with_key)
    if without_key and (names or not accounts):
        raise ConfigurationError(
            f"endpoints ({', '.join(without_key)}).api_key: is needed (or api_key_file): Stripe's webhook endpoints are"
            " read and changed with it"
        )
    return Chosen(accounts, without_key)


def accounts_of(given: Config, credentials: Credentials) -> Sequence[Account]:
    """All accounts of the configured endpoints, by their API keys; a key may be in the store."""
    return [
        Account(keyed.key, keyed.mode, tuple(endpoint.name for endpoint in keyed.endpoints))
        for keyed in stripe_keys(with_stored(given, credentials))
    ]


def configured(given: Config, name: str) -> EndpointConfig:
    """The endpoint of this name. Raises `ConfigurationError` where there is none."""
    for endpoint in given.endpoints:
        if endpoint.name == name:
            return endpoint
    there = ", ".join(sorted(endpoint.name for endpoint in given.endpoints))
    raise ConfigurationError(f"there is no endpoint {name!r}; there " + (f"are {there}" if there else "is none"))


def webhook_endpoints(config: Config, key: Secret) -> WebhookEndpoints:
    """Those that an API key sees."""
    return StripeWebhookEndpoints(
        key,
        api_base=config.stripe.api_base,
        requests_per_second=config.stripe.requests_per_second,
        clock=SystemClock(),
        observer=StripeCounts(),
    )


@asynccontextmanager
async def clients(
    config: Config, accounts: Sequence[Account]
) -> AsyncIterator[Sequence[tuple[Account, WebhookEndpoints]]]:
    """A client for each account, until the end of the block."""
    async with AsyncExitStack() as stack:
        opened: list[tuple[Account, WebhookEndpoints]] = []
        for account in accounts:
            endpoints = webhook_endpoints(config, account.key)
            stack.push_async_callback(endpoints.close)
            opened.append((account, endpoints))
        yield opened


def metrics_urls(config: Config) -> Sequence[str]:
    """Where the configured receivers on this machine tell their metrics; nowhere without an admin.port."""
    if config.admin.port == 0:
        return ()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.admin.host, config.admin.host)  # noqa: S104 -- where to ask
    shown = f"[{host}]" if ":" in host else host
    return [f"http://{shown}:{config.admin.port + worker}/metrics" for worker in range(config.receiver.workers)]


@dataclass(frozen=True, slots=True)
class ReceiverSecrets:
    """What a receiver says of an endpoint's secrets, by their fingerprints."""

    active: frozenset[str]
    """Those that it verifies with now."""
    verified: Mapping[str, float]
    """How many deliveries it has verified with each, since it was started."""


async def receiver_secrets(urls: Sequence[str], endpoint: str) -> Mapping[str, ReceiverSecrets | None]:
    """What the receivers at these metrics URLs say of an endpoint's secrets, by URL; None where none answers."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=METRICS_SECONDS_MAX)) as session,
        asyncio.TaskGroup() as group,
    ):
        asked = {url: group.create_task(_receiver_secrets(session, url, endpoint)) for url in urls}
    return {url: told.result() for url, told in asked.items()}


async def _receiver_secrets(session: aiohttp.ClientSession, url: str, endpoint: str) -> ReceiverSecrets | None:
    try:
        families = list(text_string_to_metric_families(await _metrics(session, url)))
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    its = [each for family in families for each in family.samples if each.labels.get("endpoint") == endpoint]
    return ReceiverSecrets(
        frozenset(each.labels.get("secret", "") for each in its if each.name == ACTIVE and each.value),
        {each.labels.get("secret", ""): each.value for each in its if each.name == VERIFIED},
    )


async def _metrics(session: aiohttp.ClientSession, url: str) -> str:
    body = bytearray()
    async with session.get(url) as response:
        response.raise_for_status()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > METRICS_BYTES_MAX:
                raise ValueError(url)
    return body.decode()
