"""What the configuration's API keys must be allowed at Stripe, and what for: judged before Stripe is asked."""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from service.config import Config, EndpointConfig
from service.errors import ConfigurationError
from service.events import Endpoint, Secret
from service.ports import StripeList
from service.recovery.snapshots import LISTS
from service.routing import object_of
from service.stripe_account.api_keys import KeyedEndpoints, KeyMode, event_keys, mode_of, stripe_keys
from service.stripe_account.scopes import RESOURCES, SCOPES, labelled

ALL_EVENTS: Final = "*"
EVENTS_KEY: Final = "reconcile.api_key"

NO_GAPS_FOUND: Final = "promise 5 is off: gaps are not found, until"
ANOTHER_KEY: Final = f"{NO_GAPS_FOUND} {EVENTS_KEY}_file names a key that may read events"
THIS_KEY: Final = f"{NO_GAPS_FOUND} it may read events"
ITS_OWN_KEY: Final = f"{NO_GAPS_FOUND} its api_key_file names a key that may read events"

_LISTED_AS: Final[Mapping[StripeList, str]] = {
    "products": "product",
    "prices": "plan",
    "customers": "customer",
    "subscriptions": "subscription",
    "payment_intents": "payment_intent",
    "charges": "charge",
    "refunds": "refund",
    "invoices": "invoice",
    "disputes": "dispute",
    "checkout_sessions": "checkout_session",
    "invoice_payments": "invoice",
}
"""Each of Stripe's lists → what the permission to read it is called after."""

_WITHOUT_ROWS: Final[Collection[StripeList]] = frozenset({"customers"})
"""Lists of objects that no table is made of: no tie between their events is ever settled."""

_MISNOMERS: Final[Mapping[str, str]] = {
    "billing_portal": "customer_portal",
    "checkout": "checkout_session",
    "event_destination": "webhook",
    "portal": "customer_portal",
    "price": "plan",
    "webhook_endpoint": "webhook",
}
"""What permissions are taken to be called after → what they are."""

_NO_KEYS: Final[Mapping[str, str]] = {
    "pk_": "is a publishable key (pk_…), which is for browsers and may read nothing",
    "sk_org_": "is an organization's key (sk_org_…), which is of no one account, as every endpoint is",
    "whsec_": "is a signing secret (whsec_…), which verifies deliveries and opens nothing at Stripe",
}
_WANTED_KEY: Final = "a restricted key of the endpoint's own account (rk_…) is needed, or its secret key (sk_…)"


@dataclass(frozen=True, slots=True)
class Use:
    """What a permission is for. `without` says what there is without it; that is wrong where it is `required`."""

    purpose: str
    without: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """A permission that a key needs."""

    scope: str
    uses: tuple[Use, ...]

    @property
    def required(self) -> bool:
        """Whether it is wrong that the key does not have it."""
        return any(use.required for use in self.uses)


@dataclass(frozen=True, slots=True)
class KeyNeeds:
    """A key, the setting that gives it, and what it needs: the scopes in the order of their table. None is unused."""

    key: Secret
    mode: KeyMode
    setting: str
    endpoints: tuple[str, ...]
    needs: tuple[Need, ...]

    @property
    def restricted(self) -> bool:
        """Whether it may do only some things: a secret key may do everything."""
        return self.key.value.startswith("rk_")


@dataclass(frozen=True, slots=True)
class KeyMissing:
    """An endpoint has no key, and what that means; it is wrong where it is `required`."""

    endpoint: str
    said: str
    required: bool


@dataclass(frozen=True, slots=True)
class Needs:
    """What a configuration needs of its keys, and of keys that it does not have."""

    keys: tuple[KeyNeeds, ...]
    missing: tuple[KeyMissing, ...]


ScopedUse: TypeAlias = tuple[str, Use]
"""A scope, and what it is for."""


def needs_of(config: Config) -> Needs:
    """What each of the configuration's keys needs, in the order of the endpoints, the key for events last.

    Raises `ConfigurationError` for a key that is none or of the wrong kind or mode, and for a permission that is not
    known, all of a kind at once.
    """
    _check_forms(config)
    _check_permissions(config)
    own_keys, events_keys = stripe_keys(config), event_keys(config)
    found: dict[Secret, list[ScopedUse]] = {}
    endpoints: dict[Secret, list[str]] = {}
    for keyed in (*own_keys, *events_keys):
        names = endpoints.setdefault(keyed.key, [])
        names += [endpoint.name for endpoint in keyed.endpoints if endpoint.name not in names]
    for keyed in own_keys:
        found.setdefault(keyed.key, []).extend(_own_uses(config, keyed))
    for keyed in events_keys:
        found.setdefault(keyed.key, []).extend(_events_uses(config, keyed))
    if config.reconcile.api_key is not None:
        found.setdefault(config.reconcile.api_key, [])
    return Needs(
        keys=tuple(
            KeyNeeds(key, mode_of(key), _setting_of(config, key), tuple(endpoints.get(key, ())), _merged(uses))
            for key, uses in found.items()
        ),
        missing=tuple(_missing(config, events_keys)),
    )


def _own_uses(config: Config, keyed: KeyedEndpoints) -> Iterator[ScopedUse]:
    """What an endpoint's own key is for."""
    declared = [
        (endpoint.name, scope)
        for endpoint in _configured(config, keyed.endpoints)
        for scope in dict.fromkeys(endpoint.permissions)
    ]
    for scope in dict.fromkeys(scope for _, scope in declared):
        setting = f"{_endpoints(name for name, asked in declared if asked == scope)}.permissions"
        yield scope, Use(setting, f"{setting} asks for it", required=True)
    yield "webhook_read", Use("`endpoints plan`, `status`", "`endpoints plan` and `endpoints status` are off")
    if config.stripe.watch_interval_seconds:
        yield "webhook_read", Use("watching the endpoints", "receivers do not watch the endpoints at Stripe")
    yield (
        "webhook_write",
        Use(
            "`endpoints apply`, `roll`, `disable`, `enable`",
            "`endpoints apply`, `roll`, `disable` and `enable` are off",
        ),
    )
    for name in _lists_of(_own(keyed)):
        without = f"`backfill {name}` is off"
        if name not in _WITHOUT_ROWS:
            without += ", and ties between events of one second stay undecided"
        yield f"{_LISTED_AS[name]}_read", Use(f"`backfill {name}`", without)


def _events_uses(config: Config, keyed: KeyedEndpoints) -> Iterator[ScopedUse]:
    """What the key is for that an account's events are read with."""
    if not _own(keyed):
        return  # what happens in connected accounts is on no list of their platform
    scheduled = config.reconcile.interval_seconds > 0
    off = ANOTHER_KEY if _takes_events_key(config, keyed.mode) else THIS_KEY
    yield "event_read", Use("`reconcile`, finding gaps", off, required=scheduled)
    yield (
        "event_read",
        Use("undelivered events in `endpoints status`", "`endpoints status` does not see what is undelivered"),
    )


def _takes_events_key(config: Config, mode: str) -> bool:
    """Whether one key, as `reconcile.api_key`, could read all events of the mode: it reads one account."""
    endpoints = (each for each in config.endpoints if mode == "any" or each.endpoint().mode in {mode, "any"})
    accounts = {each.account or "default" for each in endpoints}
    return config.reconcile.api_key is None and len(accounts) <= 1


def _missing(config: Config, events_keys: Sequence[KeyedEndpoints]) -> Iterator[KeyMissing]:
    """What the endpoints lack that have no key."""
    covered = {endpoint.name for keyed in events_keys for endpoint in keyed.endpoints}
    for endpoint in config.endpoints:
        if endpoint.api_key is None and endpoint.permissions:
            asked = ", ".join(map(labelled, dict.fromkeys(endpoint.permissions)))
            said = f"{_setting(endpoint)}: is needed: {_endpoints([endpoint.name])}.permissions asks for {asked}"
            yield KeyMissing(endpoint.name, said, required=True)
        if endpoint.name not in covered and not endpoint.connect:
            off = ANOTHER_KEY if _takes_events_key(config, endpoint.endpoint().mode) else ITS_OWN_KEY
            said = f"{_endpoints([endpoint.name])}: no key reads its events: {off}"
            yield KeyMissing(endpoint.name, said, required=config.reconcile.interval_seconds > 0)


def _lists_of(endpoints: Sequence[Endpoint]) -> Iterator[StripeList]:
    """Stripe's lists of the objects that these endpoints' events are about."""
    everything = any(not endpoint.events or ALL_EVENTS in endpoint.events for endpoint in endpoints)
    types = {object_of(event_type) for endpoint in endpoints for event_type in endpoint.events}
    taken = {LISTS[each] for each in types if each in LISTS}
    return (name for name in _LISTED_AS if everything or name in taken)


def _merged(uses: Sequence[ScopedUse]) -> tuple[Need, ...]:
    needs: dict[str, Need] = {}
    for scope, use in uses:
        known = needs.get(scope, Need(scope, ()))
        needs[scope] = replace(known, uses=(*known.uses, use))
    return tuple(needs[scope] for scope in SCOPES if scope in needs)


def _own(keyed: KeyedEndpoints) -> Sequence[Endpoint]:
    return [endpoint for endpoint in keyed.endpoints if not endpoint.connect]


def _configured(config: Config, endpoints: Sequence[Endpoint]) -> Sequence[EndpointConfig]:
    names = {endpoint.name for endpoint in endpoints}
    return [endpoint for endpoint in config.endpoints if endpoint.name in names]


def _setting_of(config: Config, key: Secret) -> str:
    names = [endpoint.name for endpoint in config.endpoints if endpoint.api_key == key]
    settings = [f"{_endpoints(names)}.api_key"] if names else []
    if config.reconcile.api_key == key:
        settings.append(EVENTS_KEY)
    return " and ".join(settings)


def _setting(endpoint: EndpointConfig) -> str:
    return f"{_endpoints([endpoint.name])}.api_key"


def _endpoints(names: Iterator[str] | Sequence[str]) -> str:
    return f"endpoints ({', '.join(names)})"


def _check_forms(config: Config) -> None:
    given = [(_setting(endpoint), endpoint.api_key) for endpoint in config.endpoints]
    given.append((EVENTS_KEY, config.reconcile.api_key))
    _refuse(_form_problem, [(setting, key.value) for setting, key in given if key is not None])


def _form_problem(key: str) -> str | None:
    return next((f"{said}; {_WANTED_KEY}" for begin, said in _NO_KEYS.items() if key.startswith(begin)), None)


def _check_permissions(config: Config) -> None:
    _refuse(
        _permission_problem,
        [(f"{_endpoints([each.name])}.permissions", scope) for each in config.endpoints for scope in each.permissions],
    )


def _refuse(problem_of: Callable[[str], str | None], given: Sequence[tuple[str, str]]) -> None:
    problems = [f"{setting}: {problem}" for setting, value in given if (problem := problem_of(value)) is not None]
    if problems:
        raise ConfigurationError("; ".join(problems))


def _permission_problem(scope: str) -> str | None:
    if scope in SCOPES:
        return None
    meant = _meant(scope)
    advice = (
        f"is it {' or '.join(meant)}?" if meant else f"there are {', '.join(RESOURCES)}, each with _read and _write"
    )
    return f"{scope} is no permission that this version can check; {advice}"


def _meant(scope: str) -> Sequence[str]:
    """The permissions that may have been meant, the likeliest first."""
    plain = scope.strip().lower().removeprefix("rak_").replace(" ", "_").replace("-", "_").replace(".", "_")
    resource, _, access = plain.rpartition("_")
    if access not in {"read", "write"}:
        resource, access = plain, ""
    resource = _MISNOMERS.get(resource.removesuffix("s"), resource)
    close = difflib.get_close_matches(resource, RESOURCES, n=2, cutoff=0.75)
    exact = [resource] if resource in RESOURCES else close
    return [f"{each}_{end}" for each in exact for end in ([access] if access else ["read", "write"])]
