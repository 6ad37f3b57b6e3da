"""What Stripe lists and nobody has received: found, and taken to Kafka on the way of every delivery.

A window of Stripe's own list of events is walked, from its newest to its oldest, a page at a time. Of each page the
dedupe store is asked what was published. What it does not know was never delivered, or never got through, and is taken
now. So is what somebody has a claim on: whose process was killed has left it, and a walk does not come by again. Where
the walk was interrupted it goes on; what is newer by then is a window of its own.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol, Self

import msgspec

from service.errors import StripeObjectMissing
from service.events import Accepted, ClaimKey, ClaimState, Endpoint, Quarantined, TrustedEvent
from service.ports import Clock, JobStore, StripeObject
from service.receiver.ingest import EVENT_SCOPE, Ingest, Taken
from service.recovery.jobs import Job, job
from service.recovery.sources import Source
from service.recovery.taking import PATIENCE_SECONDS, insist, take_all

LISTED_DAYS: Final = 30
"""Stripe lists no event that is older."""

ALL_EVENTS: Final = "*"


@dataclass(frozen=True, slots=True)
class Missing:
    """An event that nobody has received. `pending`: Stripe has not given up delivering it."""

    event_id: str
    event_type: str
    endpoint: str
    created_at: datetime
    pending: bool


@dataclass(frozen=True, slots=True)
class PageReport:
    """What one page came to, in events."""

    reached: datetime
    """All that is newer, inside of the window, has been looked at."""
    listed: int
    known: int
    in_flight: int
    """Somebody had a claim on them when they were looked at, and has published them since, unless this is a preview."""
    not_ours: int
    """Of a type or mode that no configured endpoint takes."""
    unprocessable: int
    """In quarantine already."""
    missing: Sequence[Missing]


@dataclass(slots=True)
class Report:
    """What a run came to."""

    begin: datetime
    end: datetime
    listed: int = 0
    known: int = 0
    in_flight: int = 0
    not_ours: int = 0
    unprocessable: int = 0
    pending: int = 0
    """Of the missing ones, those that Stripe would have tried to deliver again."""
    missing: Counter[str] = field(default_factory=Counter)
    """By event type."""

    def add(self, page: PageReport) -> None:
        """Count a page."""
        self.listed += page.listed
        self.known += page.known
        self.in_flight += page.in_flight
        self.not_ours += page.not_ours
        self.unprocessable += page.unprocessable
        self.pending += sum(each.pending for each in page.missing)
        self.missing.update(each.event_type for each in page.missing)


class Watcher(Protocol):
    """Whoever wants to know how it goes: a progress bar, a log, metrics."""

    def page(self, page: PageReport) -> None:
        """A page is done with."""
        ...


class Span(msgspec.Struct, frozen=True):
    """A part of the list that is still to be walked: `begin` included, `end` not; `after` is where it was left."""

    begin: datetime
    end: datetime
    after: str | None = None


class Window(msgspec.Struct, frozen=True):
    """A time of Stripe's list, `begin` included, `end` not, of which all that is not in `rest` has been walked."""

    begin: datetime
    end: datetime
    rest: tuple[Span, ...]

    @classmethod
    def whole(cls, begin: datetime, end: datetime) -> Self:
        """One that nobody has begun."""
        return cls(begin, end, (Span(begin, end),) if begin < end else ())

    def grown(self, begin: datetime, end: datetime) -> "Window":
        """One that reaches from here to there as well. What is left of this one comes first.

        Or a run that is interrupted again and again would only ever walk what is new.
        """
        rest = list(self.rest)
        if self.end < end:
            place = next((i for i, span in enumerate(rest) if span.end == self.end and span.after is None), None)
            if place is None:
                rest.append(Span(self.end, end))
            else:
                rest[place] = Span(rest[place].begin, end)
        if begin < self.begin:
            rest.append(Span(begin, self.begin))
        return Window(min(begin, self.begin), max(end, self.end), tuple(rest))


class Progress(msgspec.Struct, frozen=True):
    """What a run that was interrupted has left, and until when everything was walked by all runs."""

    left: Window | None = None
    until: datetime | None = None

    def walked(self, end: datetime) -> datetime:
        """Until when all is walked by a run until `end`: no further than the one that was interrupted.

        Stripe may have listed events late in what that one has walked: the next run is to look at its end again.
        """
        return end if self.left is None else min(end, self.left.end)


class _Listed(msgspec.Struct):
    """As much of an event as decides whose it is."""

    type: str = ""
    livemode: bool | None = None
    pending_webhooks: int | None = 0


_listed: Final = msgspec.json.Decoder(_Listed)


def endpoint_of(event_type: str, livemode: bool | None, endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The first endpoint that takes an event; None where none does. One without a list of types takes all."""
    mode = "any" if livemode is None else "live" if livemode else "test"
    for endpoint in endpoints:
        fits = "any" in {mode, endpoint.mode} or mode == endpoint.mode
        if fits and (not endpoint.events or not {ALL_EVENTS, event_type}.isdisjoint(endpoint.events)):
            return endpoint
    return None


class Reconciler:
    """Reconciles one source. `grace` is how old an event must be before it can be missing."""

    def __init__(self, source: Source, ingest: Ingest, jobs: JobStore, clock: Clock, *, grace: timedelta) -> None:
        self._source = source
        self._ingest = ingest
        self._jobs = jobs
        self._clock = clock
        self._grace = grace
        self._endpoints = source.own_endpoints

    def window(self, lookback: timedelta) -> tuple[datetime, datetime]:
        """From so long ago, or as far back as Stripe lists, until what is old enough to have been delivered."""
        now = self._clock.now().replace(microsecond=0)
        return now - min(lookback, timedelta(days=LISTED_DAYS)), _old_enough(self._clock, self._grace)

    async def preview(self, lookback: timedelta, watcher: Watcher) -> Report:
        """Say what is missing in the window, and take nothing. What waits in quarantine counts as missing here."""
        begin, end = self.window(lookback)
        report = Report(begin, end)
        window = Window.whole(begin, end)
        while window.rest:
            found, window = await self._page(window)
            page = found.looked_at()
            report.add(page)
            watcher.page(page)
        return report

    async def run(self, lookback: timedelta, watcher: Watcher) -> Report:
        """Take what is missing in the window, and in what an interrupted run has left. Raises `JobHeld`."""
        async with _job(self._source, self._jobs) as mine:
            begin, end = self.window(lookback)
            until = mine.progress.until
            # Without a gap to what was walked before, or the next catching up would have to leave that gap out.
            after = max(until, mine.progress.walked(end)) if until is not None and begin <= until else until
            return await self._walk(mine, Report(begin, end), after, watcher)

    async def catch_up(
        self, lookback: timedelta, overlap: timedelta, watcher: Watcher, *, every: timedelta = timedelta(0)
    ) -> Report | None:
        """Take what is missing since the last run; the first one looks back so far. Raises `JobHeld`.

        It begins `overlap` before the end of the last one: Stripe may list an event late. None, and nothing is done,
        where somebody has caught up within the time `every`.
        """
        async with _job(self._source, self._jobs) as mine:
            begin, end = self.window(lookback)
            until = mine.progress.until
            if until is not None:
                if end - until < every:
                    return None
                oldest, _ = self.window(timedelta(days=LISTED_DAYS))
                begin = max(oldest, min(end, until) - overlap)
            walked = mine.progress.walked(end)
            return await self._walk(mine, Report(begin, end), max(walked, until or walked), watcher)

    async def _walk(self, mine: Job[Progress], report: Report, until: datetime | None, watcher: Watcher) -> Report:
        """Walk the report's window; `until` is until when everything is walked by all runs, once this one is done."""
        left = mine.progress.left
        window = Window.whole(report.begin, report.end) if left is None else left.grown(report.begin, report.end)
        while window.rest:
            found, window = await self._page(window)
            page = found.taken(await take_all([each.body for each in found.unknown], "reconcile", self._ingest))
            # Only what is acknowledged is behind us: after a crash before this the page is looked at once more.
            await mine.save(Progress(window, mine.progress.until))
            report.add(page)
            watcher.page(page)
        await mine.save(Progress(None, until))
        return report

    async def _page(self, window: Window) -> "tuple[_Found, Window]":
        """The next page of what is left of a window, and the window without it."""
        span, *others = window.rest
        try:
            page = await self._source.reader.events(created_from=span.begin, created_to=span.end, after=span.after)
        except StripeObjectMissing:
            if span.after is None:
                raise
            # The event that the page before ended with is too old to be listed by now, or the key reads another account
            # than it did. What there is of the span is looked at from its newest on.
            return _Found(span.end), msgspec.structs.replace(window, rest=(Span(span.begin, span.end), *others))
        if page.next_after is not None:
            others.insert(0, Span(span.begin, span.end, page.next_after))
        return await self._sorted(page.objects, span), msgspec.structs.replace(window, rest=tuple(others))

    async def _sorted(self, objects: Sequence[StripeObject], span: Span) -> "_Found":
        reached = min((each.created for each in objects if each.created is not None), default=span.begin)
        found = _Found(reached, listed=len(objects))
        ours: dict[ClaimKey, _Unknown] = {}
        for each in objects:
            listed = _read(each.body)
            endpoint = endpoint_of(listed.type, listed.livemode, self._endpoints)
            if endpoint is None:
                found.not_ours += 1
                continue
            pending = bool(listed.pending_webhooks)
            missing = Missing(each.id, listed.type, endpoint.name, each.created or reached, pending)
            body = TrustedEvent(endpoint, each.body, self._clock.now())
            ours[ClaimKey(EVENT_SCOPE, each.id)] = _Unknown(missing, body)
        give_up_at = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        states = await insist(lambda: self._ingest.deduplicator.look(list(ours)), give_up_at=give_up_at)
        for key, unknown in ours.items():
            match states[key]:
                case ClaimState.DONE:
                    found.known += 1
                case ClaimState.IN_FLIGHT:
                    found.unknown.append(replace(unknown, claimed=True))
                case ClaimState.NEW:
                    found.unknown.append(unknown)
        return found


async def is_due(source: Source, jobs: JobStore, clock: Clock, *, grace: timedelta, every: timedelta) -> bool:
    """Whether `catch_up` would do anything: for who would have to open much for it. Raises `JobHeld`."""
    async with _job(source, jobs) as mine:
        until = mine.progress.until
        return until is None or _old_enough(clock, grace) - until >= every


def _job(source: Source, jobs: JobStore) -> AbstractAsyncContextManager[Job[Progress]]:
    return job(f"reconcile:{source.name}", jobs, Progress())


def _old_enough(clock: Clock, grace: timedelta) -> datetime:
    """Until when an event is made that Stripe has had the time to deliver."""
    return clock.now().replace(microsecond=0) - grace


@dataclass(frozen=True, slots=True)
class _Unknown:
    """An event that the dedupe store does not know as published."""

    missing: Missing
    body: TrustedEvent
    claimed: bool = False
    """Somebody is about to publish it, or was, and has been killed."""


@dataclass(slots=True)
class _Found:
    """A page, sorted by what the dedupe store says."""

    reached: datetime
    listed: int = 0
    known: int = 0
    not_ours: int = 0
    unknown: list[_Unknown] = field(default_factory=list)

    def looked_at(self) -> PageReport:
        """The report where nothing is taken."""
        missing = [each.missing for each in self.unknown if not each.claimed]
        return self._report(missing, in_flight=len(self.unknown) - len(missing))

    def taken(self, taken: Sequence[Taken]) -> PageReport:
        """The report after the unknown ones were taken: some turn out to be delivered, or in quarantine, before."""
        missing: list[Missing] = []
        in_flight = unprocessable = 0
        for each, its in zip(self.unknown, taken, strict=True):
            match its.outcome:
                case Accepted():
                    missing.append(each.missing)
                case Quarantined(position=None):
                    unprocessable += 1
                case Quarantined():
                    missing.append(each.missing)
                case _:  # a duplicate: it was delivered while we looked
                    in_flight += each.claimed
        return self._report(missing, in_flight=in_flight, unprocessable=unprocessable)

    def _report(self, missing: Sequence[Missing], *, in_flight: int, unprocessable: int = 0) -> PageReport:
        """With these of the unknown ones missing, so many in hand or in quarantine, and the rest known by now."""
        known = self.known + len(self.unknown) - len(missing) - in_flight - unprocessable
        return PageReport(self.reached, self.listed, known, in_flight, self.not_ours, unprocessable, missing)


def _read(body: bytes) -> _Listed:
    try:
        return _listed.decode(body)
    except msgspec.DecodeError:
        # Not an event as we know them: whatever it is, `normalize` says so, and it is kept.
        return _Listed()
