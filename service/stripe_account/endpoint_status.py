"""What is wrong with the webhook endpoints: by the configuration, by Stripe, by who answers at their URLs. Pure."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import msgspec

from service.config import Config
from service.errors import AddressNotAllowed, EndpointUnknown, Overloaded, ShuttingDown, SignatureMissing
from service.normalize.event_types import THIN_TYPES
from service.ports import ProbeAnswer, WebhookEndpoint
from service.stripe_account.endpoint_matching import ENDPOINT, made_by, replaced_by, waits
from service.stripe_account.endpoint_plan import secret_is_known
from service.stripe_account.endpoint_problems import (
    AccountStatus,
    EndpointNote,
    EndpointProblem,
    EndpointStatus,
    Note,
    Problem,
    Status,
    Undelivered,
)
from service.stripe_account.endpoint_renderings import ALL_EVENTS, Rendering, mixed_versions, taken_by_both, takes
from service.stripe_account.endpoint_subjects import Listing, Subject
from service.stripe_account.endpoint_urls import same_url, shown, why_unreachable

CREATION_TAKES: Final = timedelta(minutes=5)
"""How long somebody may be in the middle of registering an endpoint."""

NAMES_SHOWN_MAX: Final = 5
LOCATION_CHARACTERS_MAX: Final = 200

_THIN: Final = frozenset(THIN_TYPES)
_BUSY: Final = frozenset({Overloaded.tag, ShuttingDown.tag})


@dataclass(frozen=True, slots=True)
class UndeliveredEvent:
    """An event that Stripe has not been able to deliver to every endpoint that it is for."""

    event_type: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class UndeliveredEvents:
    """What an account's list has of them, the newest first; `more` where it was not read to its end."""

    events: tuple[UndeliveredEvent, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Unread:
    """Why that list is not known."""

    why: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What else was seen, and when: who answers, by URL, and what was not delivered, by the endpoint's name."""

    answers: Mapping[str, ProbeAnswer]
    events: Mapping[str, UndeliveredEvents | Unread]
    now: datetime


def status(config: Config, looked_at: Sequence[Subject], listings: Sequence[Listing], seen: Seen) -> Status:
    """What is wrong and what is worth knowing."""
    ours = frozenset(each for subject in looked_at for each in subject.own_ids)
    mixed = _mixed(looked_at, listings)
    accounts = []
    for listing in listings:
        own = [subject for subject in looked_at if subject.listing is listing]
        made = [_endpoint_status(subject, mixed.get(subject.name, ()), ours, seen) for subject in own]
        notes = tuple(_account_notes(config, listing, own, ours))
        accounts.append(AccountStatus(listing.account, listing.mode, len(listing.endpoints), tuple(made), notes))
    without = tuple(endpoint.name for endpoint in config.endpoints if endpoint.api_key is None)
    return Status(tuple(accounts), without)


def _endpoint_status(
    subject: Subject, mixed: Sequence[Problem | Note], ours: frozenset[str], seen: Seen
) -> EndpointStatus:
    events = seen.events.get(subject.name, Unread("nobody has read them"))
    found = subject.found
    undelivered = _undelivered(subject, events)
    said: list[Problem | Note] = [*_about_creation(subject, seen.now)]
    if found is None:
        said += _about_missing(subject)
    else:
        said += _about_found(subject, found, ours)
        said += mixed
    said += _about_answer(subject, seen.answers.get(subject.url or ""))
    said += _about_undelivered(events, undelivered) if found is not None else ()
    url = subject.url if found is None else found.url
    return EndpointStatus(
        name=subject.name,
        mode=subject.listing.mode,
        endpoint_id=None if found is None else found.id,
        url=None if url is None else shown(url),
        enabled=None if found is None else found.enabled,
        api_version=None if found is None else found.api_version,
        undelivered=undelivered,
        problems=tuple(each for each in said if isinstance(each, Problem)),
        notes=tuple(each for each in said if isinstance(each, Note)),
    )


def _about_creation(subject: Subject, now: datetime) -> Iterator[Problem]:
    creation = subject.kept.creation
    if creation is None or now - creation.begun_at < CREATION_TAKES:
        return
    if creation.repeatable(now):
        way_out = f"`endpoints apply {subject.name}` goes on, and gets its secret, for a day from then"
    elif made_by(creation, subject.listing.endpoints) is None:
        return  # there is nothing to end
    elif any(each.added_at >= creation.begun_at for each in subject.kept.signing):
        return  # somebody has looked its secret up since
    else:
        way_out = (
            f"its secret is not told any more: `secrets set {subject.name} signing-secret` takes the one of the"
            f" dashboard, `endpoints roll {subject.name} --replace` makes another"
        )
    yield Problem(
        EndpointProblem.CREATION_UNFINISHED,
        f"registering it was begun at {_moment(creation.begun_at)} and has not come to its end: {way_out}",
    )


def _about_missing(subject: Subject) -> Iterator[Problem | Note]:
    thin_only = bool(subject.configured.events) and _THIN.issuperset(subject.configured.events)
    if thin_only:
        yield _thin(subject)
    elif not subject.url_is_known:
        path = subject.configured.endpoint().path
        yield Note(
            EndpointNote.URL_UNKNOWN,
            f"neither receiver.public_url nor its url is configured, and nothing at Stripe has the path {path}",
        )
    else:
        url = subject.wanted.url
        why = why_unreachable(url, livemode=subject.listing.mode == "live")
        if why is not None:
            way_out = f"and cannot have it: the URL {why}"
        elif subject.wanted.has_own_secrets:
            way_out = f"`endpoints apply {subject.name}` registers it, once endpoints ({subject.name}).secrets are out"
        else:
            way_out = f"`endpoints apply {subject.name}` registers it"
        yield Problem(EndpointProblem.MISSING, f"Stripe has no webhook endpoint for {shown(url)}: {way_out}")


def _about_found(subject: Subject, found: WebhookEndpoint, ours: frozenset[str]) -> Iterator[Problem | Note]:
    name, wanted = subject.name, subject.wanted
    if not found.enabled:
        yield Problem(
            EndpointProblem.DISABLED,
            f"it is switched off at Stripe, which delivers nothing: `endpoints enable {name}`, then `reconcile` for"
            " what happened meanwhile",
        )
    if not secret_is_known(wanted, found, subject.kept):
        yield Problem(
            EndpointProblem.SECRET_UNKNOWN,
            f"nobody here has the signing secret of {found.id}: `secrets set {name} signing-secret` takes the one of"
            f" the dashboard, `endpoints roll {name} --replace` makes another",
        )
    yield from _about_others(subject, found, ours)
    if not subject.url_is_known:
        yield Note(
            EndpointNote.URL_UNKNOWN,
            f"neither receiver.public_url nor its url is configured: {shown(found.url)} is taken for it, by its path",
        )
    elif not same_url(found.url, wanted.url):
        yield Problem(
            EndpointProblem.URL_DIFFERS,
            f"Stripe delivers to {shown(found.url)}, the configuration says {shown(wanted.url)}:"
            f" `endpoints apply {name}` changes it at Stripe",
        )
    yield from _about_events(subject, found)
    if wanted.api_version is not None and found.api_version != wanted.api_version:
        yield Problem(
            EndpointProblem.API_VERSION_DIFFERS,
            f"events are rendered in {found.api_version or 'the API version of the account'}, the configuration names"
            f" {wanted.api_version}; Stripe never changes it: `endpoints roll {name} --replace` makes another",
        )
    elif found.api_version is None:
        yield Note(EndpointNote.NOT_PINNED, "its API version is the account's: an upgrade there changes its events")


def _about_others(subject: Subject, found: WebhookEndpoint, ours: frozenset[str]) -> Iterator[Problem | Note]:
    old = replaced_by(found.metadata)
    replaced = [each for each in subject.listing.endpoints if each.id in old and each.enabled]
    if subject.is_rolling or replaced:
        says = (
            f"endpoints ({subject.name}).secrets has the old one too, until that is taken out"
            if subject.wanted.has_own_secrets
            else f"`endpoints roll {subject.name}` says where that stands"
        )
        yield Note(EndpointNote.ROLL_UNDER_WAY, f"its signing secret is being rolled: {says}")
    # A secret that is not known to be anybody's may be that of one at the same URL.
    others = [
        each.id
        for each in subject.listing.endpoints
        if each.enabled
        and each.id not in ours
        and (
            (each.metadata.get(ENDPOINT) == subject.name and each.id in subject.made_here)
            or (not subject.is_rolling and same_url(each.url, found.url))
        )
    ]
    if others:
        yield Problem(
            EndpointProblem.DOUBLED,
            f"Stripe has {_some(others)} beside {found.id}, with the same URL or name, whose secret is not known here:"
            " what it signs is refused; disable or delete it in the dashboard",
        )


def _about_events(subject: Subject, found: WebhookEndpoint) -> Iterator[Problem | Note]:
    wanted, has = subject.wanted.events, found.enabled_events
    if waits(found.metadata, subject.listing.endpoints):
        return  # they come once the roll goes on
    missing = [each for each in wanted if each not in has and (each == ALL_EVENTS or ALL_EVENTS not in has)]
    if missing:
        what = "most event types (the configuration wants all)" if missing == [ALL_EVENTS] else _some(missing)
        yield Problem(
            EndpointProblem.EVENTS_MISSING,
            f"Stripe does not deliver {what}: `endpoints apply {subject.name}` adds them",
        )
    extra = [each for each in has if each not in wanted] if ALL_EVENTS not in wanted else []
    if extra:
        what = "every event type" if ALL_EVENTS in extra else _some(extra)
        yield Note(
            EndpointNote.EXTRA_EVENTS,
            f"Stripe delivers {what} beside what the configuration names:"
            f" `endpoints apply {subject.name}` takes them away",
        )
    if _THIN.intersection(subject.configured.events):
        yield _thin(subject)


def _thin(subject: Subject) -> Note:
    thin = [each for each in subject.configured.events if each in _THIN]
    return Note(
        EndpointNote.THIN_EVENTS, f"{_some(thin)}: thin events come from an event destination, which is not looked at"
    )


def _mixed(looked_at: Iterable[Subject], listings: Sequence[Listing]) -> Mapping[str, Sequence[Problem | Note]]:
    """By name, where an account's events come in several API versions."""
    account_of = _accounts(listings)
    renderings = [
        Rendering(
            name=subject.name,
            account=account_of[subject.name],
            modes=frozenset({subject.listing.mode}),
            connect=subject.configured.connect,
            events=subject.found.enabled_events,
            api_version=subject.found.api_version,
        )
        for subject in looked_at
        if subject.found is not None and subject.found.enabled and subject.found.enabled_events
    ]
    said: dict[str, list[Problem | Note]] = {}
    for pair in mixed_versions(renderings):
        for name in (pair.one.name, pair.other.name):
            said.setdefault(name, []).append(Problem(EndpointProblem.MIXED_VERSIONS, str(pair)))
    for one in renderings:
        pinned = [
            f"{other.name} ({other.api_version})"
            for other in renderings
            if one.api_version is None and other.api_version is not None and taken_by_both(one, other)
        ]
        if pinned:
            also = f"the same events come to {_some(pinned)}: whether in its account's API version Stripe does not say"
            said.setdefault(one.name, []).append(Note(EndpointNote.NOT_PINNED, also))
    return said


def _accounts(listings: Sequence[Listing]) -> Mapping[str, str]:
    """Name → its account, by the first endpoint of it that both keys list, where it has two."""
    account_of: dict[str, str] = {}
    for place, listing in enumerate(listings):
        ids = {each.id for each in listing.endpoints}
        same = (each for each in listings[:place] if ids.intersection(one.id for one in each.endpoints))
        first = next((each.names[0] for each in same if each.names), None)
        label = account_of[first] if first is not None else str(place)
        account_of |= dict.fromkeys(listing.names, label)
    return account_of


def _about_answer(subject: Subject, answer: ProbeAnswer | None) -> Iterator[Problem | Note]:
    if answer is None or subject.url is None:
        return
    url = shown(subject.url)
    if answer.status is None:
        yield Note(EndpointNote.UNREACHABLE_FROM_HERE, f"no answer from {url} ({answer.why}): Stripe may get one")
        return
    tag = error_tag(answer.body)
    if answer.status // 100 == 3:
        yield Problem(
            EndpointProblem.REDIRECTS,
            f"{url} answers {answer.status}{_redirected(answer.location)}: Stripe follows no redirect; register the URL"
            " that it ends at",
        )
    elif (answer.status, tag) == (SignatureMissing.status, SignatureMissing.tag):
        return
    elif (answer.status, tag) == (EndpointUnknown.status, EndpointUnknown.tag):
        yield Problem(
            EndpointProblem.NOT_SERVED,
            f"the receiver that answers at {url} has no such endpoint: its configuration is another one, or an old one",
        )
    elif (answer.status, tag) == (AddressNotAllowed.status, AddressNotAllowed.tag):
        yield Note(EndpointNote.NOT_ASKED, f"the receiver at {url} answers only who is in its receiver.allow_ips")
    elif answer.status == 503 and tag in _BUSY:
        yield Note(EndpointNote.NOT_ASKED, f"the receiver at {url} takes nothing at the moment ({tag})")
    else:
        yield Problem(
            EndpointProblem.FOREIGN_ANSWER,
            f"{url} answers {answer.status}, as no receiver does to what is not signed: something else is there, or"
            " before it",
        )


class _Said(msgspec.Struct):
    error: str


_said: Final = msgspec.json.Decoder(_Said)
_TAG: Final = re.compile(r"[a-z][a-z_]{0,40}")


def error_tag(body: bytes) -> str | None:
    """What a receiver's refusal says; None where the body is none of a receiver's."""
    try:
        tag = _said.decode(body).error
    except (msgspec.MsgspecError, RecursionError):
        return None
    return tag if _TAG.fullmatch(tag) else None


def _redirected(location: str | None) -> str:
    """To where, without what may be a token there."""
    try:
        parts = urlsplit(location or "")
    except ValueError:
        return ""
    to = shown(parts._replace(query="", fragment="").geturl())
    return f" to {to}" if to and to.isprintable() and len(to) <= LOCATION_CHARACTERS_MAX else ""


def _undelivered(subject: Subject, events: UndeliveredEvents | Unread) -> Undelivered | None:
    """Of an account's undelivered events those that are for the endpoint, since it, or what it replaces, is there."""
    if isinstance(events, Unread) or subject.found is None:
        return None
    own = subject.own_ids
    since = min(each.created_at for each in subject.listing.endpoints if each.id in own)
    times = [
        each.created_at
        for each in events.events
        if each.created_at >= since and takes(subject.found.enabled_events, each.event_type)
    ]
    return Undelivered(len(times), min(times, default=None), events.more)


def _about_undelivered(events: UndeliveredEvents | Unread, undelivered: Undelivered | None) -> Iterator[Problem | Note]:
    if isinstance(events, Unread):
        yield Note(EndpointNote.EVENTS_UNREAD, events.why)
    elif undelivered is not None and undelivered.oldest is not None:
        more = "more than " if undelivered.more else ""
        plural = "event was" if undelivered.count == 1 and not more else "events were"
        yield Problem(
            EndpointProblem.UNDELIVERED,
            f"{more}{undelivered.count:,} {plural} not taken by every endpoint of the account that gets"
            f" {'it' if plural == 'event was' else 'them'}, the oldest from {_moment(undelivered.oldest)}: `reconcile`"
            " brings what did not arrive here",
        )


def _account_notes(config: Config, listing: Listing, own: Sequence[Subject], ours: frozenset[str]) -> Iterator[Note]:
    configured = {endpoint.name for endpoint in config.endpoints}
    mentioned = {subject.found.url for subject in own if subject.found is not None}
    others = [each for each in listing.endpoints if each.id not in ours]
    made_here = frozenset(each for subject in own for each in subject.made_here)
    left_over = [each for each in others if each.id in made_here and each.metadata[ENDPOINT] not in configured]
    if left_over:
        names = _some([f"{each.id} ({each.metadata[ENDPOINT]})" for each in left_over])
        yield Note(
            EndpointNote.LEFT_OVER, f"{names}: made for what is not configured any more; `endpoints apply --prune`"
        )
    strangers = [
        each.id for each in others if each.id not in made_here and not any(same_url(each.url, url) for url in mentioned)
    ]
    if strangers:
        yield Note(
            EndpointNote.STRANGERS,
            f"{_some(strangers)}: webhook endpoints of somebody else, or of another deployment; they are left alone",
        )


def _some(names: Collection[str]) -> str:
    """The first few of them, and how many more there are."""
    listed = [each if each.isprintable() else repr(each) for each in names]
    more = len(listed) - NAMES_SHOWN_MAX
    return ", ".join(listed[:NAMES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
