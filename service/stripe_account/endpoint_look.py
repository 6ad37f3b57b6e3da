"""A look at the webhook endpoints: what Stripe lists, what was not delivered, and who answers at their URLs."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from service.config import Config
from service.credentials.book import Credentials
from service.errors import StripeApiError, StripePermissionMissing, StripeUnavailable
from service.events import Endpoint
from service.normalize.envelope import DEFAULT_ACCOUNT
from service.ports import (
    EVENT_TYPES_MAX,
    Clock,
    ProbeAnswer,
    StripeObject,
    StripeReader,
    UrlProbe,
    WebhookEndpoint,
    WebhookEndpoints,
)
from service.stripe_account.api_keys import KeyMode
from service.stripe_account.endpoint_problems import Status
from service.stripe_account.endpoint_renderings import ALL_EVENTS
from service.stripe_account.endpoint_status import Seen, UndeliveredEvent, UndeliveredEvents, Unread, status
from service.stripe_account.endpoint_subjects import Listing, Subject, subjects

LOOKBACK: Final = timedelta(hours=24)
PAGES_MAX: Final = 10
"""Of undelivered events; what is beyond is not counted."""
PROBES_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class SeenAccount:
    """An account in one mode as a key sees it, and the configured endpoints that have this key."""

    mode: KeyMode
    names: tuple[str, ...]
    endpoints: WebhookEndpoints


@dataclass(frozen=True, slots=True)
class ReadEvents:
    """The events of an account in one mode as a key reads them, and the configured endpoints that they are for."""

    mode: KeyMode
    names: tuple[str, ...]
    reader: StripeReader


@dataclass(frozen=True, slots=True)
class Failure:
    """A part of a look that came to nothing."""

    account: str
    mode: KeyMode
    names: tuple[str, ...]
    error: StripeApiError


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen. Of the endpoints of an account whose list could not be read nothing is known."""

    status: Status
    failures: tuple[Failure, ...]
    certificates: Mapping[str, datetime]
    """By the endpoint's name: when the certificate expires that its URL was answered with."""


@dataclass(frozen=True, slots=True)
class Looking:
    """What a look needs: the configuration, with what its store adds to it, and the world."""

    config: Config
    credentials: Credentials
    accounts: Sequence[SeenAccount]
    events: Sequence[ReadEvents]
    probe: UrlProbe
    clock: Clock

    async def look(self) -> Looked:
        """Look once. Stripe's failures are told, each for the account that it is of."""
        failures: list[Failure] = []
        listings = [each for account in self.accounts if (each := await self._listing(account, failures)) is not None]
        beside = subjects(self.config, self.credentials, listings)
        answers = await self._answers(beside)
        events = await self._undelivered(beside, failures)
        seen = Seen(answers, events, self.clock.now())
        return Looked(status(self.config, beside, listings, seen), tuple(failures), _certificates(beside, answers))

    async def _listing(self, account: SeenAccount, failures: list[Failure]) -> Listing | None:
        name = _account(self.config, account.names)
        try:
            found: Sequence[WebhookEndpoint] = await account.endpoints.all()
        except StripeApiError as error:
            failures.append(Failure(name, account.mode, account.names, error))
            return None
        return Listing(name, account.mode, account.names, tuple(found))

    async def _answers(self, beside: Sequence[Subject]) -> Mapping[str, ProbeAnswer]:
        """By URL; each is asked once."""
        turn = asyncio.Semaphore(PROBES_AT_ONCE)

        async def asked(url: str) -> ProbeAnswer:
            async with turn:
                return await self.probe.ask(url)

        urls = list(dict.fromkeys(subject.url for subject in beside if subject.url is not None))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asked(url)) for url in urls]
        return dict(zip(urls, (task.result() for task in tasks), strict=True))

    async def _undelivered(
        self, beside: Sequence[Subject], failures: list[Failure]
    ) -> Mapping[str, UndeliveredEvents | Unread]:
        """By the endpoint's name."""
        found: dict[str, UndeliveredEvents | Unread] = {
            subject.name: Unread("of connected accounts' events Stripe does not say whether they were delivered")
            for subject in beside
            if subject.configured.connect
        }
        for source in self.events:
            own = [
                subject
                for subject in beside
                if subject.name in source.names
                and subject.listing.mode == source.mode
                and not subject.configured.connect
                and subject.found is not None
            ]
            if own:
                events = await self._read(source, own, failures)
                found |= {subject.name: events for subject in own}
        return found

    async def _read(
        self, source: ReadEvents, own: Sequence[Subject], failures: list[Failure]
    ) -> UndeliveredEvents | Unread:
        try:
            return await undelivered_events(source.reader, self.clock.now(), self._grace, _types(own))
        except StripePermissionMissing as missing:
            scope = missing.scope or "event_read"
            return Unread(
                f"the key may not read events ({scope}): whether they are delivered is not known; give it that"
                " permission, or another key as reconcile.api_key_file"
            )
        except StripeApiError as error:
            names = tuple(subject.name for subject in own)
            failures.append(Failure(own[0].listing.account, source.mode, names, error))
            return Unread(f"Stripe's events could not be read: {error}")

    @property
    def _grace(self) -> timedelta:
        return timedelta(seconds=self.config.reconcile.grace_seconds)


async def undelivered_events(
    reader: StripeReader, now: datetime, grace: timedelta, types: Sequence[str]
) -> UndeliveredEvents:
    """What Stripe has not delivered, of these types (none: of all), older than the grace. Raises `StripeApiError`."""
    begin, end = now - LOOKBACK, now - grace
    events: list[UndeliveredEvent] = []
    after: str | None = None
    for _ in range(PAGES_MAX):
        if begin >= end:
            break
        page = await reader.events(created_from=begin, created_to=end, types=types, delivery_success=False, after=after)
        events += map(_event, page.objects)
        after = page.next_after
        if after is None:
            break
    return UndeliveredEvents(tuple(events), more=after is not None)


class _Event(msgspec.Struct):
    type: str


_decoder: Final = msgspec.json.Decoder(_Event)


def _event(told: StripeObject) -> UndeliveredEvent:
    try:
        event_type = _decoder.decode(told.body).type
    except msgspec.MsgspecError:
        event_type = None
    if event_type is None or told.created is None:
        raise StripeUnavailable(f"GET /v1/events: {told.id} is told as no event is")
    return UndeliveredEvent(event_type, told.created)


def _certificates(beside: Sequence[Subject], answers: Mapping[str, ProbeAnswer]) -> Mapping[str, datetime]:
    shown = ((subject.name, answers.get(subject.url or "")) for subject in beside)
    return {name: answer.certificate_ends for name, answer in shown if answer and answer.certificate_ends}


def _types(own: Sequence[Subject]) -> Sequence[str]:
    """What to ask Stripe for; nothing for all types."""
    types = sorted({each for subject in own if subject.found is not None for each in subject.found.enabled_events})
    return () if ALL_EVENTS in types or len(types) > EVENT_TYPES_MAX else types


def _account(config: Config, names: Sequence[str]) -> str:
    endpoints: list[Endpoint] = [each.endpoint() for each in config.endpoints if each.name in names]
    return next((each.account for each in endpoints if each.account and not each.connect), None) or next(
        (each.account for each in endpoints if each.account), DEFAULT_ACCOUNT
    )
