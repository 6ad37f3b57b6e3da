"""What the configuration wants of webhook endpoints at Stripe, judged before Stripe is asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from service.config import Config, EndpointConfig
from service.credentials.book import WebhookEndpointParams
from service.errors import ConfigurationError
from service.normalize.event_types import SNAPSHOT_TYPES, THIN_TYPES
from service.routing import advice
from service.stripe_account.endpoint_matching import ENDPOINT, Deployment
from service.stripe_account.endpoint_urls import shown, why_unreachable
from service.stripe_account.endpoint_versions import why_no_api_version

ALL_EVENTS: Final = "*"

_LISTED: Final = frozenset((*SNAPSHOT_TYPES, ALL_EVENTS))
_THIN: Final = frozenset(THIN_TYPES)


@dataclass(frozen=True, slots=True)
class WantedEndpoint:
    """A configured endpoint as it should be at Stripe; `events` is never empty."""

    name: str
    url: str
    events: tuple[str, ...]
    api_version: str | None
    """What the configuration names; where it names none, a new endpoint is made with the newest known."""
    connect: bool
    has_own_secrets: bool
    """Whether the configuration itself has its secrets, so that the store's do not count."""

    def params(
        self, *, api_version: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> WebhookEndpointParams:
        """What it is created with; `api_version` is for where the configuration names none."""
        return WebhookEndpointParams(
            url=self.url,
            enabled_events=self.events,
            api_version=self.api_version or api_version,
            connect=self.connect,
            description=f"stripe-ingest: {self.name}",
            metadata={ENDPOINT: self.name, **(metadata or {})},
        )


def wanted_endpoints(
    given: Config, modes: Mapping[str, str], *, unlisted: bool = False
) -> Mapping[str, WantedEndpoint]:
    """What the configuration says of these endpoints, by name; `modes` is `live` or `test` by name, the keys'.

    `given` is the configuration without what the store adds. Raises `ConfigurationError` for URLs that Stripe cannot
    reach and, unless `unlisted`, for event types and API versions that it does not have, for all of them at once.
    """
    problems: list[str] = []
    wanted: dict[str, WantedEndpoint] = {}
    for endpoint in given.endpoints:
        if endpoint.name not in modes:
            continue
        url = url_of(given, endpoint)
        problems += _problems(endpoint, url, livemode=modes[endpoint.name] == "live", unlisted=unlisted)
        wanted[endpoint.name] = WantedEndpoint(
            name=endpoint.name,
            url=url or "",
            events=tuple(dict.fromkeys(endpoint.events)) or (ALL_EVENTS,),
            api_version=endpoint.api_version,
            connect=endpoint.connect,
            has_own_secrets=bool(endpoint.secrets),
        )
    if problems:
        raise ConfigurationError("; ".join(problems))
    return wanted


def deployment_of(given: Config) -> Deployment:
    """By which its own webhook endpoints are known."""
    urls = frozenset(url for endpoint in given.endpoints if (url := url_of(given, endpoint)) is not None)
    return Deployment(frozenset(endpoint.name for endpoint in given.endpoints), urls, given.receiver.public_url)


def url_of(given: Config, endpoint: EndpointConfig) -> str | None:
    """Where Stripe is to reach an endpoint, by its own setting or the receiver's; None where neither says it."""
    if endpoint.url is not None:
        return endpoint.url
    if given.receiver.public_url is None:
        return None
    return given.receiver.public_url.rstrip("/") + endpoint.endpoint().path


def _problems(endpoint: EndpointConfig, url: str | None, *, livemode: bool, unlisted: bool) -> Iterator[str]:
    setting = f"endpoints ({endpoint.name})"
    if url is None:
        yield f"receiver.public_url: is needed, or {setting}.url: where Stripe reaches the endpoint"
    elif (why := why_unreachable(url, livemode=livemode)) is not None:
        yield f"{f'{setting}.url' if endpoint.url else 'receiver.public_url'}: {shown(url)} {why}"
    if endpoint.api_version is not None and not unlisted:
        why_not = why_no_api_version(endpoint.api_version)
        if why_not is not None:
            yield f"{setting}.api_version: {endpoint.api_version} {why_not}"
    for event_type in endpoint.events:
        if event_type in _THIN:
            yield f"{setting}.events: {event_type} is a thin event, which only an event destination takes"
        elif event_type not in _LISTED and not unlisted:
            yield f"{setting}.events: {event_type} {advice(event_type)} --unlisted asks for it all the same"
