"""What is kept for each endpoint: its signing secrets, its API key, and a registration at Stripe that is under way."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, Self

from service.events import Secret

REPEATABLE_FOR: Final = timedelta(hours=23)
"""How long a creation can be repeated: an hour less than Stripe keeps answers, for clocks that are not right."""

_SIGNING_SECRET: Final = re.compile(r"whsec_[!-~]+")


def is_signing_secret(secret: Secret) -> bool:
    """Whether it has the form of one: `whsec_` and more, without blanks."""
    return _SIGNING_SECRET.fullmatch(secret.value) is not None


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """A `whsec_…`; `webhook_endpoint_id` is whose at Stripe (`we_…`) where that is known."""

    value: Secret
    added_at: datetime
    webhook_endpoint_id: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookEndpointParams:
    """What a webhook endpoint is created with at Stripe."""

    url: str
    enabled_events: tuple[str, ...]
    api_version: str | None
    connect: bool
    description: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Creation:
    """A registration that has begun, kept before Stripe is asked.

    Stripe tells a signing secret once, in its answer. Where that answer was lost, the same request with the same
    idempotency key gets it again, for as long as Stripe keeps it (24 hours at least).
    """

    idempotency_key: str
    begun_at: datetime
    params: WebhookEndpointParams

    def repeatable(self, now: datetime) -> bool:
        """Whether Stripe still gives the same answer, with the secret, to the same request."""
        return now - self.begun_at < REPEATABLE_FOR


@dataclass(frozen=True, slots=True)
class EndpointCredentials:
    """An endpoint's; `signing` has the newest secret first, more than one while one is being rolled."""

    signing: tuple[SigningSecret, ...] = ()
    api_key: Secret | None = None
    creation: Creation | None = None

    def with_signing(self, secret: SigningSecret) -> Self:
        """With a secret more, as the newest; one that is there already moves to the front and keeps its endpoint."""
        known = next((each for each in self.signing if each.value == secret.value), None)
        if known is not None and secret.webhook_endpoint_id is None:
            secret = replace(secret, webhook_endpoint_id=known.webhook_endpoint_id)
        others = (each for each in self.signing if each.value != secret.value)
        return replace(self, signing=(secret, *others))

    def with_newest_signing_only(self) -> Self:
        """Without the secrets that were rolled away."""
        return replace(self, signing=self.signing[:1])


@dataclass(frozen=True, slots=True)
class Credentials:
    """All endpoints' by their names in the configuration."""

    endpoints: Mapping[str, EndpointCredentials] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, endpoint: str) -> EndpointCredentials:
        """An endpoint's, empty where nothing is kept."""
        return self.endpoints.get(endpoint, EndpointCredentials())

    def having(self, endpoint: str, credentials: EndpointCredentials) -> Self:
        """With an endpoint's; an empty one is not kept."""
        others = {name: kept for name, kept in self.endpoints.items() if name != endpoint}
        if credentials != EndpointCredentials():
            others[endpoint] = credentials
        return replace(self, endpoints=MappingProxyType(others))
