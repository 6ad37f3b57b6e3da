"""The webhook endpoints of a Stripe account in this process: the twin of `WebhookEndpoints`, with faults to order.

A `MemoryWebhookEndpoints` is what the account has in one mode; clients are made with keys that may do some things.
Nothing here waits.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from service.credentials.book import WebhookEndpointParams
from service.errors import (
    SecretNotTold,
    StripeKeyRefused,
    StripeObjectMissing,
    StripePermissionMissing,
    StripeRequestRefused,
    WebhookEndpointsFull,
)
from service.events import Secret
from service.ports import Clock, CreatedWebhookEndpoint, WebhookEndpoint

ENDPOINTS_MAX: Final = 16
KEYS_KEPT: Final = timedelta(hours=24)

_READ: Final = "webhook_read"
_WRITE: Final = "webhook_write"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Told:
    """What was answered to an idempotency key."""

    params: WebhookEndpointParams
    created: CreatedWebhookEndpoint
    at: datetime


@dataclass(slots=True)
class _Fault:
    """What goes wrong with one call, once `after` calls have gone by; with `done` its work is done all the same."""

    error: BaseException
    after: int
    done: bool


class MemoryWebhookEndpoints:
    """What one account has in one mode; there are at most `most`."""

    def __init__(self, clock: Clock, *, most: int = ENDPOINTS_MAX) -> None:
        self.tells_secrets = True
        """Whether an answer to `create` has the secret."""
        self.calls = 0
        """How often a client has asked, refused or not."""
        self._clock = clock
        self._most = most
        self._endpoints: dict[str, WebhookEndpoint] = {}
        self._secrets: dict[str, Secret] = {}
        self._told: dict[str, _Told] = {}
        self._faults: list[_Fault] = []
        self._made = 0

    @property
    def endpoints(self) -> Sequence[WebhookEndpoint]:
        """All that there are, the newest first."""
        return tuple(reversed(self._endpoints.values()))

    def secret_of(self, endpoint_id: str) -> Secret:
        """What deliveries to an endpoint are signed with."""
        return self._secrets[endpoint_id]

    def register(
        self,
        url: str,
        enabled_events: Sequence[str] = ("*",),
        *,
        api_version: str | None = None,
        enabled: bool = True,
        metadata: Mapping[str, str] | None = None,
    ) -> CreatedWebhookEndpoint:
        """Make one in the dashboard: at any URL, whatever the limit."""
        self._made += 1
        made = WebhookEndpoint(
            id=f"we_{self._made}",
            url=url,
            enabled_events=tuple(enabled_events),
            api_version=api_version,
            enabled=enabled,
            created_at=self._clock.now(),
            description=None,
            metadata=dict(metadata or {}),
        )
        self._endpoints[made.id] = made
        self._secrets[made.id] = Secret(f"whsec_of_{made.id}")
        return CreatedWebhookEndpoint(made, self._secrets[made.id])

    def remove(self, endpoint_id: str) -> None:
        """Delete one in the dashboard."""
        del self._endpoints[endpoint_id], self._secrets[endpoint_id]

    def fail(self, *errors: BaseException, after: int = 0, done: bool = False) -> None:
        """Calls raise these, one each, once `after` have gone by: instead of being answered, or of their answers.

        With `done` the work is done and only the answer is lost. A `BaseException` ends whoever called.
        """
        self._faults += [_Fault(error, after + place, done) for place, error in enumerate(errors)]

    def heal(self) -> None:
        """Nothing is to go wrong any more."""
        self._faults.clear()

    def client(self, permissions: Collection[str] | None = None) -> "MemoryWebhookEndpointsClient":
        """A client with a key of these permissions (`webhook_read`, `webhook_write`), or of all."""
        return MemoryWebhookEndpointsClient(self, None if permissions is None else frozenset(permissions))

    def client_with_wrong_key(self) -> "MemoryWebhookEndpointsClient":
        """A client whose key nobody knows."""
        return MemoryWebhookEndpointsClient(self, frozenset(), known=False)

    def called(self, work: Callable[[], T], scope: str, permissions: frozenset[str] | None, *, known: bool) -> T:
        """A call's answer, or what it meets."""
        self.calls += 1
        fault = self._next_fault()
        if fault is not None and not fault.done:
            raise fault.error
        if not known:
            raise StripeKeyRefused("Stripe refuses the API key: it is mistyped, rolled or deleted")
        # To write is to read.
        if permissions is not None and permissions.isdisjoint({scope, _WRITE}):
            raise StripePermissionMissing(f"the API key lacks the permission {scope}", scope=scope)
        answer = work()
        if fault is not None:
            raise fault.error
        return answer

    def create(self, params: WebhookEndpointParams, idempotency_key: str) -> CreatedWebhookEndpoint:
        """See `WebhookEndpoints.create`."""
        now = self._clock.now()
        told = self._told.get(idempotency_key)
        if told is not None and now - told.at < KEYS_KEPT:
            if told.params != params:
                raise StripeRequestRefused("Keys for idempotent requests can only be used with the same parameters")
            return told.created
        _check_url(params.url)
        _check_events(params.enabled_events)
        if len(self._endpoints) >= self._most:
            raise WebhookEndpointsFull(f"You have reached the maximum of {self._most} test webhook endpoints.")
        made = self.register(
            params.url, params.enabled_events, api_version=params.api_version, metadata=params.metadata
        )
        endpoint = replace(made.endpoint, description=params.description or None)
        self._endpoints[endpoint.id] = endpoint
        created = CreatedWebhookEndpoint(endpoint, made.secret)
        self._told[idempotency_key] = _Told(params, created, now)
        return created

    def update(
        self,
        endpoint_id: str,
        url: str | None,
        enabled_events: Sequence[str] | None,
        enabled: bool | None,
        metadata: Mapping[str, str] | None,
    ) -> WebhookEndpoint:
        """See `WebhookEndpoints.update`."""
        endpoint = self._endpoints.get(endpoint_id)
        if endpoint is None:
            raise StripeObjectMissing("Stripe has no such webhook endpoint")
        if url is not None:
            _check_url(url)
            endpoint = replace(endpoint, url=url)
        if enabled_events is not None:
            _check_events(enabled_events)
            endpoint = replace(endpoint, enabled_events=tuple(enabled_events))
        if enabled is not None:
            endpoint = replace(endpoint, enabled=enabled)
        if metadata is not None:
            kept = {name: value for name, value in {**endpoint.metadata, **metadata}.items() if value}
            endpoint = replace(endpoint, metadata=kept)
        self._endpoints[endpoint_id] = endpoint
        return endpoint

    def delete(self, endpoint_id: str) -> None:
        """See `WebhookEndpoints.delete`."""
        if endpoint_id in self._endpoints:
            self.remove(endpoint_id)

    def _next_fault(self) -> _Fault | None:
        due = next((fault for fault in self._faults if fault.after == 0), None)
        if due is not None:
            self._faults.remove(due)
        for fault in self._faults:
            fault.after -= 1
        return due


class MemoryWebhookEndpointsClient:
    """`WebhookEndpoints` of a `MemoryWebhookEndpoints`."""

    def __init__(
        self, account: MemoryWebhookEndpoints, permissions: frozenset[str] | None, *, known: bool = True
    ) -> None:
        self._account = account
        self._permissions = permissions
        self._known = known

    async def all(self) -> Sequence[WebhookEndpoint]:
        """See `WebhookEndpoints.all`."""
        return self._called(_READ, lambda: self._account.endpoints)

    async def create(self, params: WebhookEndpointParams, *, idempotency_key: str) -> CreatedWebhookEndpoint:
        """See `WebhookEndpoints.create`."""
        created = self._called(_WRITE, lambda: self._account.create(params, idempotency_key))
        if not self._account.tells_secrets:
            raise SecretNotTold(f"Stripe has made {created.endpoint.id} and not told its secret")
        return created

    async def update(
        self,
        endpoint_id: str,
        *,
        url: str | None = None,
        enabled_events: Sequence[str] | None = None,
        enabled: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> WebhookEndpoint:
        """See `WebhookEndpoints.update`."""
        return self._called(_WRITE, lambda: self._account.update(endpoint_id, url, enabled_events, enabled, metadata))

    async def delete(self, endpoint_id: str) -> None:
        """See `WebhookEndpoints.delete`."""
        self._called(_WRITE, lambda: self._account.delete(endpoint_id))

    async def close(self) -> None:
        """There is nothing to give back."""

    def _called(self, scope: str, work: Callable[[], T]) -> T:
        return self._account.called(work, scope, self._permissions, known=self._known)


def _check_url(url: str) -> None:
    if not url.startswith(("https://", "http://")):
        raise StripeRequestRefused("Invalid URL: An explicit scheme (such as https) must be provided.")
    if "://localhost" in url:
        raise StripeRequestRefused("Invalid URL: URL must be publicly accessible.")


def _check_events(names: Sequence[str]) -> None:
    if not names:
        raise StripeRequestRefused("Invalid array: enabled_events must have at least one event.")
    # Stripe knows them all; here the form is enough.
    if unknown := [name for name in names if name != "*" and "." not in name]:
        raise StripeRequestRefused(f"Invalid enabled_events: {unknown[0]}")
