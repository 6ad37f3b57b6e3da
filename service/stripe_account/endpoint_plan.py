"""What would make an account's webhook endpoints those of the configuration: pure, from what both sides say."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, TypeAlias

from service.credentials.book import Creation, Credentials, EndpointCredentials
from service.ports import WebhookEndpoint
from service.stripe_account.endpoint_matching import (
    ENDPOINT,
    QUIET,
    Deployment,
    known_ids,
    made_by,
    matched,
    replaced_by,
    waits,
)
from service.stripe_account.endpoint_urls import same_url, shown
from service.stripe_account.endpoint_wanted import WantedEndpoint

ENDPOINTS_MAX: Final = 16
"""How many an account may have in each mode, unless Stripe has agreed on another number."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is changed on an endpoint; None leaves it."""

    url: str | None = None
    enabled_events: tuple[str, ...] | None = None
    enabled: bool | None = None
    metadata: Mapping[str, str] | None = None


class StepKind(StrEnum):
    """What a step does, for people and scripts."""

    CREATE = "create"
    REPLAY = "replay"
    UPDATE = "update"
    ENABLE = "enable"
    NOTHING = "nothing"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Create:
    """Make it."""

    kind: ClassVar[StepKind] = StepKind.CREATE
    wanted: WantedEndpoint

    @property
    def name(self) -> str:
        """The endpoint's."""
        return self.wanted.name

    @property
    def endpoint_id(self) -> str | None:
        """Its id at Stripe, which is not known before it is there."""
        return None


@dataclass(frozen=True, slots=True)
class Replay:
    """Repeat a creation that was begun and whose answer never came; `made` is what it has made, as far as is known.

    One that `waits` is left without its events: a roll has to go on first.
    """

    kind: ClassVar[StepKind] = StepKind.REPLAY
    wanted: WantedEndpoint
    creation: Creation
    made: WebhookEndpoint | None
    waits: bool = False

    @property
    def name(self) -> str:
        """The endpoint's."""
        return self.wanted.name

    @property
    def endpoint_id(self) -> str | None:
        """The id of what was made."""
        return None if self.made is None else self.made.id


@dataclass(frozen=True, slots=True)
class Update:
    """Change it."""

    wanted: WantedEndpoint
    before: WebhookEndpoint
    changes: Changes

    @property
    def kind(self) -> StepKind:
        """Whether it is only switched on."""
        return StepKind.ENABLE if self.changes == Changes(enabled=True) else StepKind.UPDATE

    @property
    def name(self) -> str:
        """The endpoint's."""
        return self.wanted.name

    @property
    def endpoint_id(self) -> str:
        """Its id at Stripe."""
        return self.before.id


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave it as it is."""

    kind: ClassVar[StepKind] = StepKind.NOTHING
    wanted: WantedEndpoint
    endpoint: WebhookEndpoint

    @property
    def name(self) -> str:
        """The endpoint's."""
        return self.wanted.name

    @property
    def endpoint_id(self) -> str:
        """Its id at Stripe."""
        return self.endpoint.id


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one that was ours."""

    kind: ClassVar[StepKind] = StepKind.DELETE
    endpoint: WebhookEndpoint

    @property
    def name(self) -> str:
        """What it was called in the configuration."""
        return self.endpoint.metadata[ENDPOINT]

    @property
    def endpoint_id(self) -> str:
        """Its id at Stripe."""
        return self.endpoint.id


Step: TypeAlias = Create | Replay | Update | Keep | Delete


class FindingKind(StrEnum):
    """What is wrong, and no step puts right."""

    SECRET_UNKNOWN = "secret_unknown"  # noqa: S105 -- a tag
    """It is there, and neither the configuration nor the store has its signing secret."""
    SECRET_NOT_TOLD = "secret_not_told"  # noqa: S105 -- a tag
    """It was made, the answer with its secret was lost, and Stripe will not repeat it any more."""
    SECRET_OVERRIDES = "secret_overrides"  # noqa: S105 -- a tag
    """It is not there, and a new one's secret would not count, since the configuration has others."""
    VERSION_DRIFT = "version_drift"
    """It renders events in another API version than the configuration names."""
    DOUBLED = "doubled"
    """A second one for the same endpoint is enabled, whose secret is not known."""
    LEFT_OVER = "left_over"
    """One of ours is enabled whose endpoint is not configured any more."""
    LIMIT = "limit"
    """There is no room for what is to be made."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong; `said` is a sentence for a person."""

    kind: FindingKind
    name: str
    endpoint_id: str | None
    said: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps for one account in one mode, in the order in which they are to be taken, and what they leave wrong."""

    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]
    used: int
    """How many webhook endpoints the account has now, whoever made them."""

    @property
    def left(self) -> int:
        """How many more Stripe allows once the steps are taken; below 0, it refuses the last of them."""
        return ENDPOINTS_MAX - self.used - _added(self.steps)

    @property
    def changes(self) -> tuple[Step, ...]:
        """The steps that change something."""
        return tuple(step for step in self.steps if step.kind is not StepKind.NOTHING)


def secret_is_known(wanted: WantedEndpoint, endpoint: WebhookEndpoint, kept: EndpointCredentials) -> bool:
    """Whether the configuration, or the store, has what may be this endpoint's secret."""
    return wanted.has_own_secrets or any(each.webhook_endpoint_id in {None, endpoint.id} for each in kept.signing)


def changes_of(wanted: WantedEndpoint, endpoint: WebhookEndpoint, *, waiting: bool = False) -> Changes:
    """What makes it as it is wanted; one that is `waiting` is left without its events.

    Metadata is ours to change only where it is ours already.
    """
    metadata: dict[str, str] = {}
    if ENDPOINT in endpoint.metadata and endpoint.metadata[ENDPOINT] != wanted.name:
        metadata[ENDPOINT] = wanted.name
    if QUIET in endpoint.metadata and not waiting:
        metadata[QUIET] = ""
    same_events = set(endpoint.enabled_events) == set(wanted.events)
    return Changes(
        url=None if same_url(endpoint.url, wanted.url) else wanted.url,
        enabled_events=None if same_events or waiting else wanted.events,
        enabled=None if endpoint.enabled else True,
        metadata=metadata or None,
    )


def plan(
    wanted: Mapping[str, WantedEndpoint],
    listed: Sequence[WebhookEndpoint],
    credentials: Credentials,
    *,
    deployment: Deployment,
    now: datetime,
    prune: bool = False,
) -> Plan:
    """The steps from what Stripe lists, for one account and mode, to what is wanted there.

    Only with `prune` is anything deleted: this deployment's own whose name is not configured any more, or that another
    one has replaced.
    """
    found = matched({name: each.url for name, each in wanted.items()}, listed, credentials, deployment)
    own = deployment.own(listed, credentials)
    steps: list[Step] = []
    findings: list[Finding] = []
    replaced: list[WebhookEndpoint] = []
    for name, each in wanted.items():
        kept = credentials.of(name)
        step, wrong = _step(each, found.get(name), listed, kept, now)
        steps += [] if step is None else [step]
        others = _others(each, found, listed, kept)
        findings += [*wrong, *_doubled(each, found.get(name), [one for one in others if one.enabled], own, kept)]
        replaced += [one for one in others if one.metadata.get(ENDPOINT) == name and one.id in own and not one.enabled]
    # One that was renamed is not gone.
    gone = [
        one
        for one in listed
        if one.id in own and one.metadata[ENDPOINT] not in deployment.names and one not in found.values()
    ]
    if prune:
        steps = _pruning(steps, list(map(Delete, [*gone, *replaced])), used=len(listed))
    else:
        findings += [_left_over(one) for one in gone if one.enabled]
    made = Plan(tuple(steps), tuple(findings), used=len(listed))
    # Stripe may have agreed on more: that there are more is no reason to worry.
    full = made.left < 0 and _added(made.steps) > 0
    return replace(made, findings=(*made.findings, _limit(made))) if full else made


def _step(
    wanted: WantedEndpoint,
    endpoint: WebhookEndpoint | None,
    listed: Sequence[WebhookEndpoint],
    kept: EndpointCredentials,
    now: datetime,
) -> tuple[Step | None, list[Finding]]:
    findings: list[Finding] = []
    if kept.creation is not None:
        made = made_by(kept.creation, listed)
        if kept.creation.repeatable(now):
            return Replay(wanted, kept.creation, made, waits(kept.creation.params.metadata, listed)), []
        if made is not None and not _told_since(kept, kept.creation):
            findings.append(_not_told(wanted, made))
    if endpoint is None:
        if wanted.has_own_secrets:
            return None, [*findings, _overrides(wanted)]
        return Create(wanted), findings
    if wanted.api_version is not None and endpoint.api_version != wanted.api_version:
        findings.append(_drift(wanted, endpoint))
    if not secret_is_known(wanted, endpoint, kept):
        # Whoever made it may be another deployment: nothing is changed that we could not take the events of.
        told_of = any(each.kind is FindingKind.SECRET_NOT_TOLD for each in findings)
        return Keep(wanted, endpoint), findings if told_of else [*findings, _unknown(wanted, endpoint)]
    changes = changes_of(wanted, endpoint, waiting=waits(endpoint.metadata, listed))
    return Keep(wanted, endpoint) if changes == Changes() else Update(wanted, endpoint, changes), findings


def _told_since(kept: EndpointCredentials, creation: Creation) -> bool:
    return any(each.added_at >= creation.begun_at for each in kept.signing)


def _added(steps: Iterable[Step]) -> int:
    made = sum(isinstance(step, Create) or (isinstance(step, Replay) and step.made is None) for step in steps)
    return made - sum(isinstance(step, Delete) for step in steps)


def _pruning(steps: list[Step], deletions: list[Step], *, used: int) -> list[Step]:
    """What is to go goes last, so that no event falls between; first, where nothing else would make room."""
    return [*deletions, *steps] if used + _added(steps) > ENDPOINTS_MAX else [*steps, *deletions]


def _others(
    wanted: WantedEndpoint,
    found: Mapping[str, WebhookEndpoint],
    listed: Sequence[WebhookEndpoint],
    kept: EndpointCredentials,
) -> Sequence[WebhookEndpoint]:
    """Those with the endpoint's name or URL that are neither it, nor another one's, nor in its roll, nor being made."""
    begun = None if kept.creation is None else made_by(kept.creation, listed)
    others = [each for each in listed if each not in (begun, *found.values()) and each.id not in known_ids(kept)]
    return [each for each in others if each.metadata.get(ENDPOINT) == wanted.name or same_url(each.url, wanted.url)]


def _doubled(
    wanted: WantedEndpoint,
    endpoint: WebhookEndpoint | None,
    enabled: Iterable[WebhookEndpoint],
    own: Collection[str],
    kept: EndpointCredentials,
) -> Iterator[Finding]:
    rolled_away = frozenset() if endpoint is None else replaced_by(endpoint.metadata)
    # Of several secrets that are not known to be anybody's, one may be a stranger's at the same URL.
    any_secret = wanted.has_own_secrets or len(kept.signing) > 1
    for each in enabled:
        if each.id not in rolled_away and (each.id in own or (not any_secret and same_url(each.url, wanted.url))):
            said = (
                f"{each.id} at Stripe has the name or the URL of {wanted.name} too, and its signing secret is not known"
                " here: what it delivers is refused; disable or delete it in the dashboard"
            )
            yield Finding(FindingKind.DOUBLED, wanted.name, each.id, said)


def _unknown(wanted: WantedEndpoint, endpoint: WebhookEndpoint) -> Finding:
    said = (
        f"{endpoint.id} at Stripe ({shown(endpoint.url)}) is {wanted.name}'s, and nobody here has its signing secret:"
        f" look it up in the dashboard and give it to `secrets set {wanted.name} signing-secret`, or make another one"
        f" by `endpoints roll {wanted.name} --replace`"
    )
    return Finding(FindingKind.SECRET_UNKNOWN, wanted.name, endpoint.id, said)


def _not_told(wanted: WantedEndpoint, made: WebhookEndpoint) -> Finding:
    said = (
        f"{made.id} was made, the answer with its signing secret was lost, and Stripe repeats it for a day only: look"
        f" it up in the dashboard and give it to `secrets set {wanted.name} signing-secret`, or make another one by"
        f" `endpoints roll {wanted.name} --replace`"
    )
    return Finding(FindingKind.SECRET_NOT_TOLD, wanted.name, made.id, said)


def _overrides(wanted: WantedEndpoint) -> Finding:
    said = (
        f"{wanted.name} is not at Stripe, and the configuration has secrets for it, which would hide the new one's:"
        f" take endpoints ({wanted.name}).secrets out"
    )
    return Finding(FindingKind.SECRET_OVERRIDES, wanted.name, None, said)


def _drift(wanted: WantedEndpoint, endpoint: WebhookEndpoint) -> Finding:
    said = (
        f"{endpoint.id} renders events in {endpoint.api_version or 'the API version of its account'}, the configuration"
        f" names {wanted.api_version}: Stripe never changes it; `endpoints roll {wanted.name} --replace` makes another"
    )
    return Finding(FindingKind.VERSION_DRIFT, wanted.name, endpoint.id, said)


def _left_over(endpoint: WebhookEndpoint) -> Finding:
    name = endpoint.metadata[ENDPOINT]
    said = f"{endpoint.id} ({shown(endpoint.url)}) was made for {name}, which is not configured: --prune deletes it"
    return Finding(FindingKind.LEFT_OVER, name, endpoint.id, said)


def _limit(made: Plan) -> Finding:
    said = f"Stripe allows {ENDPOINTS_MAX} webhook endpoints in each mode, and {ENDPOINTS_MAX - made.left} are wanted"
    return Finding(FindingKind.LIMIT, "", None, said)
