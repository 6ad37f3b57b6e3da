"""The webhook endpoints of a Stripe account behind the `WebhookEndpoints` port."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from service.credentials.book import WebhookEndpointParams, is_signing_secret
from service.errors import SecretNotTold, StripeObjectMissing, StripeRequestRefused, WebhookEndpointsFull
from service.events import Secret
from service.ports import Clock, CreatedWebhookEndpoint, WebhookEndpoint
from service.stripe_account.calling import (
    RETRIES,
    Answer,
    AskAgain,
    FailureRepeated,
    PathUnknown,
    Retries,
    StripeCaller,
    decoded,
)
from service.stripe_account.observer import RetryReason, StripeObserver

PAGE_ENDPOINTS: Final = 100
"""As many as Stripe gives at once, and more than an account has."""

_PATH: Final = "/v1/webhook_endpoints"
_MOST: Final = re.compile(r"maximum of (\d{1,6})\b")


class _Endpoint(msgspec.Struct):
    id: str
    url: str
    enabled_events: tuple[str, ...]
    status: str
    created: int
    api_version: str | None = None
    description: str | None = None
    metadata: dict[str, str] | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"_Endpoint({self.id!r})"


class _Listing(msgspec.Struct):
    data: list[_Endpoint]
    has_more: bool


class _Deleted(msgspec.Struct):
    id: str
    deleted: bool


_endpoint: Final = msgspec.json.Decoder(_Endpoint)
_listing: Final = msgspec.json.Decoder(_Listing)
_deleted: Final = msgspec.json.Decoder(_Deleted)


class StripeWebhookEndpoints:
    """`WebhookEndpoints` over HTTPS. All calls share one rate."""

    def __init__(
        self,
        key: Secret,
        *,
        api_base: str,
        requests_per_second: float,
        clock: Clock,
        observer: StripeObserver,
        retries: Retries = RETRIES,
    ) -> None:
        # What is refused here quotes what the configuration says, and nobody's data.
        self._caller = StripeCaller(
            key,
            api_base=api_base,
            requests_per_second=requests_per_second,
            clock=clock,
            observer=observer,
            quotes_refusals=True,
            retries=retries,
        )

    async def all(self) -> Sequence[WebhookEndpoint]:
        """See `WebhookEndpoints.all`."""
        found: dict[str, WebhookEndpoint] = {}
        params: dict[str, Any] = {"limit": PAGE_ENDPOINTS}
        while True:
            listing = await self._caller.get(_PATH, params, _listed)
            # A list that repeats itself has no end.
            new = {each.id: _made(each) for each in listing.data if each.id not in found}
            found |= new
            if not listing.has_more or not new:
                return tuple(found.values())
            params["starting_after"] = listing.data[-1].id

    async def create(self, params: WebhookEndpointParams, *, idempotency_key: str) -> CreatedWebhookEndpoint:
        """See `WebhookEndpoints.create`.

        Stripe repeats a refusal, and a failure too, to whoever comes with the same key: after a `StripeRequestRefused`
        another one is needed. Where it was a failure, only `all` says whether one was made.
        """
        try:
            return await self._caller.post(_PATH, _creating(params), _created, idempotency_key=idempotency_key)
        except FailureRepeated as failed:
            raise StripeRequestRefused(str(failed), request_id=failed.request_id) from None
        except StripeRequestRefused as refused:
            most = _MOST.search(str(refused))
            if most is None:
                raise
            raise WebhookEndpointsFull(
                f"the account has {most[1]} webhook endpoints in this mode, as many as Stripe allows: delete one that"
                " is not needed any more",
                request_id=refused.request_id,
            ) from None

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
        params: dict[str, Any] = {}
        if url is not None:
            params["url"] = url
        if enabled_events is not None:
            params["enabled_events"] = _array(enabled_events)
        if enabled is not None:
            params["disabled"] = not enabled
        if metadata is not None:
            params["metadata"] = dict(metadata)
        return await self._caller.post(_path(endpoint_id), params, lambda answer: _made(_told(answer)))

    async def delete(self, endpoint_id: str) -> None:
        """See `WebhookEndpoints.delete`."""
        path = _path(endpoint_id)
        try:
            await self._caller.delete(path, _gone)
        except PathUnknown:
            raise
        except StripeObjectMissing:
            return

    async def close(self) -> None:
        """See `WebhookEndpoints.close`."""
        await self._caller.close()


def _path(endpoint_id: str) -> str:
    # An empty id would make the path that of the list, to which a POST makes an endpoint.
    if endpoint_id in {"", ".", ".."}:
        raise StripeObjectMissing(f"{_PATH}: {endpoint_id!r} is no webhook endpoint's id")
    return f"{_PATH}/{quote(endpoint_id, safe='')}"


def _creating(params: WebhookEndpointParams) -> dict[str, Any]:
    """The parameters, the same for the same ones: an idempotency key is refused with others."""
    given: dict[str, Any] = {
        "url": params.url,
        "enabled_events": _array(params.enabled_events),
        "connect": params.connect,
        "description": params.description,
        "metadata": dict(params.metadata),
    }
    if params.api_version is not None:
        given["api_version"] = params.api_version
    return given


def _array(values: Sequence[str]) -> list[str] | str:
    """An array without members is encoded as nothing at all, and would leave what is there."""
    return list(values) or ""


def _listed(answer: Answer) -> _Listing:
    return decoded(_listing, answer.text)


def _told(answer: Answer) -> _Endpoint:
    return decoded(_endpoint, answer.text)


def _created(answer: Answer) -> CreatedWebhookEndpoint:
    told = _told(answer)
    secret = Secret(told.secret or "")
    if not is_signing_secret(secret):
        raise SecretNotTold(f"Stripe has made the webhook endpoint {told.id} and has not told its signing secret")
    return CreatedWebhookEndpoint(_made(told), secret)


def _gone(answer: Answer) -> None:
    if not decoded(_deleted, answer.text).deleted:
        raise AskAgain(RetryReason.UNREADABLE, "the answer does not say that it is deleted")


def _made(told: _Endpoint) -> WebhookEndpoint:
    return WebhookEndpoint(
        id=told.id,
        url=told.url,
        enabled_events=told.enabled_events,
        api_version=told.api_version,
        enabled=told.status == "enabled",
        created_at=datetime.fromtimestamp(told.created, UTC),
        description=told.description,
        metadata=told.metadata or {},
    )
