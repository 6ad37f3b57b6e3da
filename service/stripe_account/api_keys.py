"""API keys: what their form says, and which of the configured endpoints each one reads for."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from service.config import Config, EndpointConfig
from service.errors import ConfigurationError
from service.events import Endpoint, Secret

KeyMode: TypeAlias = Literal["live", "test"]
"""What a key reads; unlike an endpoint it is never both."""

_KEY: Final = re.compile(r"(?:sk|rk)_(live|test)_[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class KeyedEndpoints:
    """An API key and the endpoints whose events and objects are read with it."""

    key: Secret
    mode: KeyMode
    endpoints: tuple[Endpoint, ...]


def mode_of(key: Secret, setting: str = "the API key") -> KeyMode:
    """The mode of a secret or restricted key. Raises `ConfigurationError`, which names `setting`, for anything else."""
    match = _KEY.fullmatch(key.value)
    if match is None:
        raise ConfigurationError(
            f"{setting}: must be a secret or restricted key: sk_live_…, sk_test_…, rk_live_… or rk_test_…"
        )
    return "live" if match[1] == "live" else "test"


def stripe_keys(config: Config) -> Sequence[KeyedEndpoints]:
    """The endpoints by their own `api_key`, in the configuration's order; those without one are left out.

    Raises `ConfigurationError` for what is no key, for a key of the other mode than its endpoint, and for one key of
    endpoints of several accounts: it reads one, whose objects would be published as the other's.
    """
    keys = _grouped((endpoint.api_key, endpoint) for endpoint in config.endpoints if endpoint.api_key is not None)
    for keyed in keys:
        accounts = sorted(
            {endpoint.account for endpoint in keyed.endpoints if endpoint.account and not endpoint.connect}
        )
        if len(accounts) > 1:
            names = ", ".join(endpoint.name for endpoint in keyed.endpoints)
            raise ConfigurationError(
                f"endpoints ({names}).api_key: is one key, which reads one account; they are of {', '.join(accounts)}"
            )
    return keys


def event_keys(config: Config) -> Sequence[KeyedEndpoints]:
    """The endpoints by the key that their events are read with: `reconcile.api_key` where it is set, else their own.

    `reconcile.api_key` stands in for every key of its mode, since the list of an account's events is one whichever key
    reads it. It reads one account: where the endpoints of its mode belong to several it is a `ConfigurationError`, for
    one account's events would be published as another's. Raises the same for what `stripe_keys` refuses.
    """
    own_keys = stripe_keys(config)
    events_key = config.reconcile.api_key
    if events_key is None:
        return own_keys
    mode = mode_of(events_key, "reconcile.api_key")
    accounts = {endpoint.account or "default" for endpoint in config.endpoints if _takes(endpoint, mode)}
    if len(accounts) > 1:
        raise ConfigurationError(
            f"reconcile.api_key: reads one account; its mode's endpoints are of several: {', '.join(sorted(accounts))};"
            " give each endpoint an api_key that may read events"
        )
    return _grouped(_with_events_key(config.endpoints, events_key, mode))


def _with_events_key(
    endpoints: Iterable[EndpointConfig], events_key: Secret, mode: KeyMode
) -> Iterator[tuple[Secret, EndpointConfig]]:
    for endpoint in endpoints:
        if _takes(endpoint, mode):
            yield events_key, endpoint
        if endpoint.api_key is not None and mode_of(endpoint.api_key, _setting(endpoint)) != mode:
            yield endpoint.api_key, endpoint


def _grouped(pairs: Iterable[tuple[Secret, EndpointConfig]]) -> Sequence[KeyedEndpoints]:
    groups: dict[Secret, list[Endpoint]] = {}
    for key, endpoint in pairs:
        mode = mode_of(key, _setting(endpoint))
        if not _takes(endpoint, mode):
            raise ConfigurationError(
                f"{_setting(endpoint)}: is a {mode} key, and the endpoint's mode is {endpoint.mode}"
            )
        groups.setdefault(key, []).append(endpoint.endpoint())
    return [KeyedEndpoints(key, mode_of(key), tuple(endpoints)) for key, endpoints in groups.items()]


def _takes(endpoint: EndpointConfig, mode: KeyMode) -> bool:
    return endpoint.endpoint().mode in {mode, "any"}


def _setting(endpoint: EndpointConfig) -> str:
    return f"endpoints ({endpoint.name}).api_key"
