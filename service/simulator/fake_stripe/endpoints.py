"""Webhook endpoints as Stripe's API keeps them: what it takes, what it refuses, and the secret that it tells once."""

import ipaddress
from typing import Any, Final
from urllib.parse import urlsplit

from service.events import Secret
from service.normalize.event_types import API_VERSIONS, SNAPSHOT_TYPES
from service.simulator.fake_stripe.forms import boolean, strings, text
from service.simulator.fake_stripe.refusals import Refusal, invalid, missing_param, no_such, unknown_param
from service.simulator.fake_stripe.shelf import Page, Shelf
from service.simulator.objects import Ids, Object

ENDPOINTS_MAX: Final = 16
"""How many an account may have in each mode, unless Stripe has agreed on another number."""
METADATA_MAX: Final = 50
METADATA_NAME_MAX: Final = 40
METADATA_VALUE_MAX: Final = 500
ALL_EVENTS: Final = "*"
KIND: Final = "webhook_endpoint"

_CREATE_PARAMS: Final = frozenset({
    "api_version", "connect", "description", "enabled_events", "expand", "metadata", "url",
})  # fmt: skip
_UPDATE_PARAMS: Final = frozenset({"description", "disabled", "enabled_events", "expand", "metadata", "url"})
_KNOWN: Final = frozenset((*SNAPSHOT_TYPES, ALL_EVENTS))
_NOT_PUBLIC: Final = (
    "Invalid URL: URL must be publicly accessible. Consider using a tool like the Stripe CLI to test webhooks locally:"
    " https://github.com/stripe/stripe-cli."
)
_LOCAL_SUFFIXES: Final = (".localhost", ".local", ".internal", ".test", ".invalid")


class Endpoints:
    """The webhook endpoints of an account in one mode; there are at most `most`."""

    def __init__(self, ids: Ids, *, livemode: bool, most: int = ENDPOINTS_MAX) -> None:
        self._ids = ids
        self._livemode = livemode
        self._most = most
        self._shelf = Shelf(KIND)
        self._secrets: dict[str, tuple[Secret, ...]] = {}

    def create(self, params: dict[str, Any], now: int) -> Object:
        """Register one; only this answer has the `secret`. Raises `Refusal`."""
        if unknown := params.keys() - _CREATE_PARAMS:
            raise unknown_param(min(unknown))
        url, enabled_events = text(params, "url"), strings(params, "enabled_events")
        if url is None:
            raise missing_param("url")
        if enabled_events is None:
            raise missing_param("enabled_events")
        self._check_url(url)
        return self.register(
            url,
            enabled_events,
            now=now,
            api_version=text(params, "api_version"),
            connect=boolean(params, "connect") or False,
            description=text(params, "description"),
            metadata=_metadata({}, params),
        )

    def register(
        self,
        url: str,
        enabled_events: list[str],
        *,
        now: int,
        api_version: str | None = None,
        connect: bool = False,
        description: str | None = None,
        metadata: Object | None = None,
    ) -> Object:
        """Register one at any URL, a local one too, which the API would refuse."""
        _check_events(enabled_events)
        if api_version is not None and api_version not in API_VERSIONS:
            raise invalid("api_version", f"Invalid Stripe API version: {api_version[:40]}")
        if len(self._shelf) >= self._most:
            mode = "live" if self._livemode else "test"
            raise Refusal(400, f"You have reached the maximum of {self._most} {mode} webhook endpoints.", begun=True)
        endpoint: Object = {
            "id": self._ids.new("we"),
            "object": KIND,
            "api_version": api_version,
            "application": None,
            "created": now,
            "description": description or None,
            "enabled_events": enabled_events,
            "livemode": self._livemode,
            "metadata": metadata or {},
            "status": "enabled",
            "url": url,
        }
        # The API does not show it, but whose events an endpoint takes is part of what it is.
        self._shelf.put({**endpoint, _CONNECT: connect})
        return {**endpoint, "secret": self.roll(endpoint["id"])}

    def retrieve(self, endpoint_id: str) -> Object:
        """The endpoint as it is now. Raises `Refusal`."""
        return _shown(self._get(endpoint_id))

    def update(self, endpoint_id: str, params: dict[str, Any]) -> Object:
        """Change what may be changed. Raises `Refusal`."""
        before = self._get(endpoint_id)
        if unknown := params.keys() - _UPDATE_PARAMS:
            raise unknown_param(min(unknown))
        after = {**before, "metadata": _metadata(before["metadata"], params)}
        if (url := text(params, "url")) is not None:
            self._check_url(url)
            after["url"] = url
        if (enabled_events := strings(params, "enabled_events")) is not None:
            _check_events(enabled_events)
            after["enabled_events"] = enabled_events
        if (disabled := boolean(params, "disabled")) is not None:
            after["status"] = "disabled" if disabled else "enabled"
        if (description := text(params, "description")) is not None:
            after["description"] = description or None
        self._shelf.put(after)
        return _shown(after)

    def delete(self, endpoint_id: str) -> Object:
        """Remove one. Raises `Refusal`."""
        self._get(endpoint_id)
        self._shelf.delete(endpoint_id)
        del self._secrets[endpoint_id]
        return {"id": endpoint_id, "object": KIND, "deleted": True}

    def page(self, page: Page) -> tuple[list[Object], bool]:
        """A page of them, newest first. Raises `Refusal`."""
        found, more = self._shelf.page(page, lambda _: True)
        return [_shown(endpoint) for endpoint in found], more

    def roll(self, endpoint_id: str) -> str:
        """Give an endpoint a new secret beside those it has, as the dashboard does; deliveries are signed with all."""
        secret = self._ids.new("whsec")
        self._secrets[endpoint_id] = (Secret(secret), *self._secrets.get(endpoint_id, ()))
        return secret

    def expire_old_secrets(self, endpoint_id: str) -> None:
        """Leave an endpoint only its newest secret."""
        self._secrets[endpoint_id] = self._secrets[endpoint_id][:1]

    def secrets(self, endpoint_id: str) -> tuple[Secret, ...]:
        """What deliveries to an endpoint are signed with."""
        return self._secrets[endpoint_id]

    def exists(self, endpoint_id: str) -> bool:
        """Whether it is registered, enabled or not."""
        return endpoint_id in self._secrets

    def taking(self, event_type: str, *, connect: bool) -> list[str]:
        """The ids of the enabled endpoints that take events of this type, of connected accounts or of their own."""
        return [
            endpoint_id
            for endpoint_id in self._secrets
            if (endpoint := self._get(endpoint_id))["status"] == "enabled"
            and endpoint[_CONNECT] is connect
            and {event_type, ALL_EVENTS} & set(endpoint["enabled_events"])
        ]

    def _get(self, endpoint_id: str) -> Object:
        endpoint = self._shelf.get(endpoint_id)
        if endpoint is None or "deleted" in endpoint:
            raise no_such("webhook endpoint", endpoint_id)
        return endpoint

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            raise invalid("url", "Invalid URL: Not a valid URL", code="url_invalid") from None
        if parts.scheme not in {"http", "https"}:
            raise invalid(
                "url", "Invalid URL: An explicit scheme (such as https) must be provided.", code="url_invalid"
            )
        if self._livemode and parts.scheme != "https":
            raise invalid("url", f'Invalid URL: {url}. URLs in livemode must begin with "https://"', code="url_invalid")
        if not _is_public(host):
            raise invalid("url", _NOT_PUBLIC, code="url_invalid")


_CONNECT: Final = "connect"


def _shown(endpoint: Object) -> Object:
    return {name: value for name, value in endpoint.items() if name != _CONNECT}


def _check_events(enabled_events: list[str]) -> None:
    if not enabled_events:
        raise invalid("enabled_events", "Invalid array: enabled_events must have at least one event.")
    for place, event_type in enumerate(enabled_events):
        if event_type not in _KNOWN:
            raise invalid(
                f"enabled_events[{place}]",
                f"Invalid enabled_events[{place}]: must be one of {', '.join((ALL_EVENTS, *SNAPSHOT_TYPES[:3]))}, …",
            )


def _metadata(before: Object, params: dict[str, Any]) -> Object:
    """Metadata with what the parameters set and, by empty values, unset."""
    given = params.get("metadata", before)
    if given == "":
        return {}
    if not isinstance(given, dict):
        raise invalid("metadata", "Invalid object")
    for name, value in given.items():
        if not isinstance(value, str):
            raise invalid(f"metadata[{name}]", "Metadata values must be strings.")
        _check_length("keys", name, METADATA_NAME_MAX)
        _check_length("values", value, METADATA_VALUE_MAX)
    after = {name: value for name, value in {**before, **given}.items() if value != ""}
    if len(after) > METADATA_MAX:
        raise invalid("metadata", f"You can only have up to {METADATA_MAX} metadata keys.")
    return after


def _check_length(what: str, said: str, most: int) -> None:
    if len(said) > most:
        one = what.removesuffix("s")
        raise invalid(
            "metadata",
            f"Metadata {what} can have up to {most} characters, but you passed in a {one} that is {len(said)}"
            f" characters. Invalid {one}: {said}",
        )


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(_LOCAL_SUFFIXES)
