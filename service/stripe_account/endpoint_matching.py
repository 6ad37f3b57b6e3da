"""Which of the webhook endpoints that Stripe lists is which of the configuration's. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.credentials.book import Creation, Credentials, EndpointCredentials
from service.ports import WebhookEndpoint
from service.stripe_account.endpoint_urls import is_below, same_url

ENDPOINT: Final = "stripe_ingest_endpoint"
"""Metadata: the name in the configuration."""
CREATION: Final = "stripe_ingest_creation"
"""Metadata: the idempotency key that it was made with."""
REPLACES: Final = "stripe_ingest_replaces"
"""Metadata: the ids of those that it takes over from, with commas between."""
QUIET: Final = "stripe_ingest_quiet"
"""Metadata: next to nothing is delivered to it, until receivers verify with its secret."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What tells the webhook endpoints of this deployment from those of another one in the same account."""

    names: frozenset[str]
    """Of all configured endpoints, those of other accounts too."""
    urls: frozenset[str]
    """Theirs, as far as they are known."""
    public_url: str | None

    def own(self, listed: Sequence[WebhookEndpoint], credentials: Credentials) -> frozenset[str]:
        """The ids of those that were made here: by their metadata, and by their secret in the store or their URL.

        The metadata alone does not say it: another deployment may have the same names, of the same preset.
        """
        known = {each for kept in credentials.endpoints.values() for each in known_ids(kept)}
        known |= {each for endpoint in listed if endpoint.id in known for each in replaced_by(endpoint.metadata)}
        return frozenset(
            endpoint.id
            for endpoint in listed
            if endpoint.metadata.get(ENDPOINT) and (endpoint.id in known or self._is_here(endpoint.url))
        )

    def _is_here(self, url: str) -> bool:
        below = self.public_url is not None and is_below(url, self.public_url)
        return below or any(same_url(url, each) for each in self.urls)


def matched(
    urls: Mapping[str, str], listed: Sequence[WebhookEndpoint], credentials: Credentials, deployment: Deployment
) -> Mapping[str, WebhookEndpoint]:
    """Which of Stripe's endpoints is whose, for the names that `urls` has.

    The one whose id stands beside a secret in the store, the newest first, and last one that gets next to nothing yet;
    else an enabled one of this deployment whose metadata has the name, else an enabled one at the URL, else a disabled
    one in the same way. No endpoint is two names'.
    """
    by_id = {endpoint.id: endpoint for endpoint in listed}
    names = {*urls, *deployment.names}
    own = deployment.own(listed, credentials)
    found: dict[str, WebhookEndpoint] = {}
    for name in urls:
        known = [by_id[each] for each in known_ids(credentials.of(name)) if each in by_id]
        if known:
            found[name] = min(known, key=lambda endpoint: QUIET in endpoint.metadata)
    taken = {each for name in names for each in known_ids(credentials.of(name))}
    free = [endpoint for endpoint in listed if endpoint.id not in taken]

    def by_name(endpoint: WebhookEndpoint, name: str) -> bool:
        return endpoint.metadata.get(ENDPOINT) == name and endpoint.id in own

    def by_url(endpoint: WebhookEndpoint, name: str) -> bool:
        return same_url(endpoint.url, urls[name]) and endpoint.metadata.get(ENDPOINT) not in names - {name}

    for enabled in (True, False):
        for fits in (by_name, by_url):
            for name in urls:
                fitting = (
                    endpoint
                    for endpoint in free
                    if endpoint.enabled is enabled and endpoint not in found.values() and fits(endpoint, name)
                )
                if name not in found and (first := next(fitting, None)) is not None:
                    found[name] = first
    return found


def made_by(creation: Creation, listed: Iterable[WebhookEndpoint]) -> WebhookEndpoint | None:
    """What a creation has made, where it is there."""
    return next((each for each in listed if each.metadata.get(CREATION) == creation.idempotency_key), None)


def replaced_by(metadata: Mapping[str, str]) -> frozenset[str]:
    """The ids of those that the endpoint with this metadata takes over from."""
    return frozenset(filter(None, metadata.get(REPLACES, "").split(",")))


def waits(metadata: Mapping[str, str], listed: Iterable[WebhookEndpoint]) -> bool:
    """Whether the endpoint with this metadata is to get next to nothing: others still deliver what it will take."""
    old = replaced_by(metadata)
    return QUIET in metadata and any(each.enabled and each.id in old for each in listed)


def known_ids(kept: EndpointCredentials) -> list[str]:
    """The ids of the endpoints whose secrets are kept, the newest secret's first."""
    return [each.webhook_endpoint_id for each in kept.signing if each.webhook_endpoint_id is not None]
