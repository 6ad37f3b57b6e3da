"""The configured endpoints that have an API key, each beside the one that it is at Stripe. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from service.config import Config, EndpointConfig
from service.credentials.book import Credentials, EndpointCredentials
from service.normalize.event_types import THIN_TYPES
from service.ports import WebhookEndpoint
from service.stripe_account.api_keys import KeyMode
from service.stripe_account.endpoint_matching import REPLACES, known_ids, made_by, matched, replaced_by
from service.stripe_account.endpoint_renderings import ALL_EVENTS
from service.stripe_account.endpoint_wanted import WantedEndpoint, deployment_of, url_of

_THIN: Final = frozenset(THIN_TYPES)


@dataclass(frozen=True, slots=True)
class Listing:
    """The webhook endpoints of one account in one mode, as the key of some of the configuration's reads them."""

    account: str
    mode: KeyMode
    names: tuple[str, ...]
    """The configured endpoints that have this key."""
    endpoints: tuple[WebhookEndpoint, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A configured endpoint, and the one that it is at Stripe."""

    configured: EndpointConfig
    wanted: WantedEndpoint
    kept: EndpointCredentials
    listing: Listing
    found: WebhookEndpoint | None
    url_is_known: bool
    """Whether the configuration says its URL."""
    made_here: frozenset[str]
    """The ids of all of the listing that this deployment has made."""

    @property
    def name(self) -> str:
        """The configuration's."""
        return self.configured.name

    @property
    def url(self) -> str | None:
        """Where to look whether a receiver answers: at what the configuration says, else at what Stripe has."""
        return self.wanted.url or None

    @property
    def is_rolling(self) -> bool:
        """Whether its secret is being rolled: it has several, or another endpoint is taking its place."""
        creation = self.kept.creation
        return len(self.configured.secrets) > 1 or (creation is not None and REPLACES in creation.params.metadata)

    @property
    def own_ids(self) -> frozenset[str]:
        """The ids of all that are this endpoint at Stripe: itself, those of its roll, and one that is being made."""
        ids = {*known_ids(self.kept)}
        if self.found is not None:
            ids |= {self.found.id, *replaced_by(self.found.metadata)}
        begun = None if self.kept.creation is None else made_by(self.kept.creation, self.listing.endpoints)
        return frozenset(ids if begun is None else {*ids, begun.id})


def subjects(config: Config, credentials: Credentials, listings: Iterable[Listing]) -> Sequence[Subject]:
    """The configuration's endpoints beside Stripe's; `config` has what the store adds to it."""
    made: list[Subject] = []
    deployment = deployment_of(config)
    for listing in listings:
        pairs = [
            (endpoint, _wanted(config, endpoint, credentials.of(endpoint.name), listing))
            for endpoint in config.endpoints
            if endpoint.name in listing.names
        ]
        urls = {endpoint.name: wanted.url for endpoint, wanted in pairs}
        found = matched(urls, listing.endpoints, credentials, deployment)
        made_here = deployment.own(listing.endpoints, credentials)
        made += (
            Subject(
                configured=endpoint,
                wanted=wanted,
                kept=credentials.of(endpoint.name),
                listing=listing,
                found=found.get(endpoint.name),
                url_is_known=url_of(config, endpoint) is not None,
                made_here=made_here,
            )
            for endpoint, wanted in pairs
        )
    return made


def _wanted(config: Config, endpoint: EndpointConfig, kept: EndpointCredentials, listing: Listing) -> WantedEndpoint:
    """As the configuration has it. A URL that it does not say is that of the endpoint at Stripe with the same path."""
    stored = tuple(each.value for each in kept.signing)
    return WantedEndpoint(
        name=endpoint.name,
        url=url_of(config, endpoint) or _url_by_path(endpoint, listing) or "",
        events=tuple(dict.fromkeys(each for each in endpoint.events if each not in _THIN)) or (ALL_EVENTS,),
        api_version=endpoint.api_version,
        connect=endpoint.connect,
        has_own_secrets=bool(endpoint.secrets) and endpoint.secrets != stored,
    )


def _url_by_path(endpoint: EndpointConfig, listing: Listing) -> str | None:
    path = endpoint.endpoint().path
    with_path = [each for each in listing.endpoints if _path(each.url) == path]
    return next((each.url for each in sorted(with_path, key=lambda each: not each.enabled)), None)


def _path(url: str) -> str | None:
    try:
        return urlsplit(url).path
    except ValueError:
        return None
