"""Which of the webhook endpoints that Stripe lists is which of the configuration's. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from service.credentials.book import Creation, Credentials, EndpointCredentials
from service.ports import WebhookEndpoint
from service.stripe_account.endpoint_urls import same_url

ENDPOINT: Final = "stripe_ingest_endpoint"
"""Metadata: the name in the configuration."""
CREATION: Final = "stripe_ingest_creation"
"""Metadata: the idempotency key that it was made with."""
REPLACES: Final = "stripe_ingest_replaces"
"""Metadata: the ids of those that it takes over from, with commas between."""


def matched(
    urls: Mapping[str, str], listed: Sequence[WebhookEndpoint], credentials: Credentials, configured: Collection[str]
) -> Mapping[str, WebhookEndpoint]:
    """Which of Stripe's endpoints is whose, for the names that `urls` has; `configured` are all names there are.

    The one whose id stands beside a secret in the store, the newest first; else an enabled one whose metadata has the
    name, else an enabled one at the URL, else a disabled one in the same way. No endpoint is two names'.
    """
    by_id = {endpoint.id: endpoint for endpoint in listed}
    found: dict[str, WebhookEndpoint] = {}
    for name in urls:
        known = (by_id[each] for each in known_ids(credentials.of(name)) if each in by_id)
        if (newest := next(known, None)) is not None:
            found[name] = newest
    taken = {each for name in {*urls, *configured} for each in known_ids(credentials.of(name))}
    free = [endpoint for endpoint in listed if endpoint.id not in taken]
    for enabled in (True, False):
        for by_name in (True, False):
            for name, url in urls.items():
                of_others = {*urls, *configured} - {name}
                fitting = (
                    endpoint
                    for endpoint in free
                    if endpoint.enabled is enabled
                    and endpoint not in found.values()
                    and (
                        endpoint.metadata.get(ENDPOINT) == name
                        if by_name
                        else same_url(endpoint.url, url) and endpoint.metadata.get(ENDPOINT) not in of_others
                    )
                )
                if name not in found and (first := next(fitting, None)) is not None:
                    found[name] = first
    return found


def made_by(creation: Creation, listed: Iterable[WebhookEndpoint]) -> WebhookEndpoint | None:
    """What a creation has made, where it is there."""
    return next((each for each in listed if each.metadata.get(CREATION) == creation.idempotency_key), None)


def replaced_by(endpoint: WebhookEndpoint) -> frozenset[str]:
    """The ids of those that an endpoint takes over from."""
    return frozenset(filter(None, endpoint.metadata.get(REPLACES, "").split(",")))


def known_ids(kept: EndpointCredentials) -> list[str]:
    """The ids of the endpoints whose secrets are kept, the newest secret's first."""
    return [each.webhook_endpoint_id for each in kept.signing if each.webhook_endpoint_id is not None]
