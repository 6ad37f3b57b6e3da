"""Redriving: what is parked on the side topics, found by its headers, and taken on its way once more.

A dead letter goes back onto its topic, addressed to the one consumer group that could not apply it; that group's ledger
absorbs what it has applied since. A quarantined body goes through the whole path of the present code; the claim on its
event absorbs what was published since, and a body that is unfit still stays where it is.

So nothing here remembers what was done: a run that was interrupted is started again, and does the rest.
"""

import asyncio
import random
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias

from service.errors import ConfigurationError, PublishRefused, Unavailable
from service.events import (
    Accepted,
    ClaimKey,
    ClaimState,
    ConsumedRecord,
    Endpoint,
    Partition,
    Position,
    QuarantineReason,
    Record,
    TrustedEvent,
    Unprocessable,
)
from service.normalize import normalize
from service.ports import Publisher, RecordLog
from service.receiver.ingest import EVENT_SCOPE, Ingest, retake
from service.records import encode, quarantined_body, read_dead_letter, replayed
from service.recovery.taking import ATTEMPT_SECONDS, PATIENCE_SECONDS, Jitter, insist
from service.redaction import CannotUnseal, Sealing

IN_FLIGHT_MAX: Final = 64
SEEN_MAX: Final = 1_000_000
"""How many dead letters are known again when they come twice; beyond that one is replayed twice, which is harmless."""

NO_DEAD_LETTER: Final = "not_a_dead_letter"
"""The reason of a record on the dead-letter topic that no consumer of ours has put there."""

_MISMATCHES: Final = frozenset((QuarantineReason.MODE_MISMATCH, QuarantineReason.ACCOUNT_MISMATCH))
_SOURCE: Final = "replay"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TYPE_PREFIX: Final = "com.stripe."


@dataclass(frozen=True, slots=True)
class Parked:
    """A record of a side topic, by what its headers say.

    `place` is what it is one by: a dead letter's `<group>/<topic>/<partition>/<offset>`, else where it is itself.
    `id` is its event's, else its key; `names` are all that it can be asked for by.
    """

    record: ConsumedRecord
    place: str
    id: str
    names: frozenset[str]
    reason: str
    detail: str
    event_type: str | None
    endpoint: str | None
    consumer_group: str | None

    @property
    def parked_at(self) -> datetime:
        """When it was put there."""
        return _EPOCH + timedelta(milliseconds=self.record.timestamp_ms)


Describe: TypeAlias = Callable[[ConsumedRecord], Parked]


def dead_letter_of(record: ConsumedRecord) -> Parked:
    """A record of the dead-letter topic."""
    headers = _headers(record)
    letter = read_dead_letter(record)
    at = letter.partition if letter else record.partition
    offset = letter.offset if letter else record.offset
    place = "/".join([*([letter.consumer_group] if letter else []), _position(at, offset)])
    key = _text(record.key)
    event_id = headers.get("ce_id")
    event_type = headers.get("ce_type")
    return Parked(
        record=record,
        place=place,
        id=event_id or key,
        names=_names(record, place, _position(at, offset), event_id, key, headers.get("ce_subject")),
        reason=letter.reason if letter else NO_DEAD_LETTER,
        detail=letter.detail if letter else "",
        event_type=event_type.removeprefix(_TYPE_PREFIX) if event_type else None,
        endpoint=headers.get("endpoint"),
        consumer_group=letter.consumer_group if letter else None,
    )


def quarantined(record: ConsumedRecord) -> Parked:
    """A record of the quarantine topic."""
    headers = _headers(record)
    key = _text(record.key)
    place = _position(record.partition, record.offset)
    return Parked(
        record=record,
        place=place,
        id=key,
        names=_names(record, place, key),
        reason=headers.get("reason", ""),
        detail=headers.get("detail", ""),
        event_type=headers.get("event_type"),
        endpoint=headers.get("endpoint"),
        consumer_group=None,
    )


def _names(record: ConsumedRecord, *others: str | None) -> frozenset[str]:
    return frozenset(name for name in (_position(record.partition, record.offset), *others) if name)


def _headers(record: ConsumedRecord) -> Mapping[str, str]:
    return {name: _text(value) for name, value in record.headers}


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _position(partition: Partition, offset: int) -> str:
    return f"{partition.topic}/{partition.number}/{offset}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which parked records are meant; what is empty or None leaves the choice open.

    In `event_types` a `*` stands for anything. `since` belongs to the span, `until` does not.
    """

    ids: frozenset[str] = frozenset()
    event_types: tuple[str, ...] = ()
    endpoints: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    consumer_groups: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None

    def takes(self, parked: Parked) -> bool:
        """Whether the record is among them, its number apart."""
        return (
            (not self.ids or not self.ids.isdisjoint(parked.names))
            and (not self.event_types or any(_matches(pattern, parked.event_type) for pattern in self.event_types))
            and (not self.endpoints or parked.endpoint in self.endpoints)
            and (not self.reasons or parked.reason in self.reasons)
            and (not self.consumer_groups or parked.consumer_group in self.consumer_groups)
            and (self.since is None or parked.parked_at >= self.since)
            and (self.until is None or parked.parked_at < self.until)
        )


def _matches(pattern: str, event_type: str | None) -> bool:
    # Not fnmatch: there are event types with brackets in them.
    return event_type is not None and re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), event_type) is not None


@dataclass(frozen=True, slots=True)
class Search:
    """A selection of a side topic's records as they were at one moment: what is parked later is not among them.

    Without that, replaying what cannot be applied yet would go on for ever.
    """

    log: RecordLog
    ranges: Mapping[Partition, range]
    describe: Describe
    selection: Selection

    async def found(self) -> AsyncIterator[Parked]:
        """Them, each once, however often it was parked; from the beginning each time."""
        count, seen = 0, _Seen()
        async for record in self.log.read(self.ranges):
            parked = self.describe(record)
            if not self.selection.takes(parked) or seen.again(parked.place):
                continue
            yield parked
            count += 1
            if count == self.selection.limit:
                return


async def search(log: RecordLog, topic: str, describe: Describe, selection: Selection) -> Search:
    """Look where a topic's records are that may be among the selection.

    Raises `ConfigurationError` where there is no such topic, so that nobody takes it for an empty one.
    """
    ranges = dict(await log.ranges(topic))
    if not ranges:
        raise ConfigurationError(
            f"kafka.topic_prefix: there is no topic {topic} to be seen; `stripe-ingest topics apply` makes it"
        )
    if selection.ids and (places := _places(selection.ids, ranges)) is not None:
        ranges = places
    elif selection.since is not None:
        first = await log.offsets_at(ranges.keys(), selection.since)
        ranges = {
            partition: range(max(offsets.start, first[partition]), offsets.stop)
            for partition, offsets in ranges.items()
            if partition in first
        }
    return Search(log, ranges, describe, selection)


def _places(ids: Collection[str], ranges: Mapping[Partition, range]) -> dict[Partition, range] | None:
    """What has to be read where every id is a position on the topic itself, else None."""
    wanted: dict[Partition, range] = {}
    for name in ids:
        topic, _, rest = name.partition("/")
        number, _, offset = rest.partition("/")
        if not (number.isdecimal() and offset.isdecimal() and Partition(topic, int(number)) in ranges):
            return None
        partition, at = Partition(topic, int(number)), int(offset)
        before = wanted.get(partition, range(at, at + 1))
        wanted[partition] = range(min(before.start, at), max(before.stop, at + 1))
    return {partition: _overlap(offsets, ranges[partition]) for partition, offsets in wanted.items()}


def _overlap(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


class _Seen:
    """Names, as many as there is room for: the oldest are forgotten."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, None] = OrderedDict()

    def again(self, name: str) -> bool:
        """Whether it was here before; from now on it was."""
        if name in self._names:
            return True
        self._names[name] = None
        if len(self._names) > SEEN_MAX:
            self._names.popitem(last=False)
        return False


class Outcome(StrEnum):
    """What became of a parked record."""

    REPLAYED = "replayed"
    DUPLICATE = "duplicate"
    """Its event is on its topic already."""
    WOULD_REPLAY = "would_replay"
    UNFIT = "unfit"
    """Today's code cannot normalize it either; it stays where it is."""
    ENDPOINT_UNKNOWN = "endpoint_unknown"
    """The configuration has no such endpoint any more."""
    ENDPOINT_NEEDED = "endpoint_needed"
    """It was refused for its mode or its account: another endpoint must be named."""
    SEALED = "sealed"
    """The key that opens it is not configured."""
    NOT_ADDRESSED = "not_addressed"
    """No consumer group of ours that could not apply it."""
    REFUSED = "refused"
    """The broker refuses it for good."""
    UNAVAILABLE = "unavailable"
    """The broker or the dedupe store is away."""


WELL: Final = frozenset((Outcome.REPLAYED, Outcome.DUPLICATE, Outcome.WOULD_REPLAY))


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of a parked record; `detail` says why, or where it would go, and never shows a value."""

    parked: Parked
    outcome: Outcome
    detail: str = ""
    position: Position | None = None


Step: TypeAlias = Callable[[Parked], Awaitable[Redriven]]
"""What is done with one record. Raises what publishing raises."""


async def redrive(
    parked: AsyncIterator[Parked],
    step: Step,
    tell: Callable[[Redriven], object],
    stop: asyncio.Event,
    *,
    jitter: Jitter = random.uniform,
) -> None:
    """Do the step with each, some at a time, and tell what became of it, as soon as that is known.

    Once `stop` is set, or the broker or the dedupe store has been away for longer than a job has patience, no more are
    looked for; what is in flight is waited for, and told. The same where the looking fails, before that is raised.
    """
    flying: set[asyncio.Task[None]] = set()

    async def settle(each: Parked) -> None:
        redriven = await _done(step, each, stop, jitter)
        tell(redriven)
        if redriven.outcome is Outcome.UNAVAILABLE:
            stop.set()

    async def begin_all() -> None:
        async for each in parked:
            while len(flying) >= IN_FLIGHT_MAX:
                landed, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                flying.difference_update(landed)
                for task in landed:
                    task.result()  # raises what nobody foresaw
            if stop.is_set():
                return
            flying.add(asyncio.create_task(settle(each)))

    # A stop does not wait for the next record: it may be far away in the log, or a broker say nothing.
    beginning, stopping = asyncio.create_task(begin_all()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((beginning, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        beginning.cancel()
        stopping.cancel()
        ended = await asyncio.gather(beginning, *flying, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
            raise outcome


async def _done(step: Step, parked: Parked, stop: asyncio.Event, jitter: Jitter) -> Redriven:
    give_up_at = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    try:
        return await insist(lambda: step(parked), give_up_at=give_up_at, jitter=jitter, stop=stop)
    except PublishRefused as refused:
        return Redriven(parked, Outcome.REFUSED, str(refused))
    except Unavailable as unavailable:
        return Redriven(parked, Outcome.UNAVAILABLE, str(unavailable))


def _attempt_deadline() -> float:
    return asyncio.get_running_loop().time() + ATTEMPT_SECONDS


Readers: TypeAlias = Mapping[str, Collection[str]]
"""Consumer group → the topics it reads."""


@dataclass(frozen=True, slots=True)
class PlanDeadLetters:
    """Says to which group a dead letter would go."""

    readers: Readers

    async def __call__(self, parked: Parked) -> Redriven:
        """See `Step`."""
        match _addressed(parked, self.readers):
            case Redriven() as refused:
                return refused
            case record:
                return Redriven(parked, Outcome.WOULD_REPLAY, f"to {parked.consumer_group} on {record.topic}")


@dataclass(frozen=True, slots=True)
class ReplayDeadLetters:
    """Puts dead letters back onto their topics, each for the group that it came from."""

    readers: Readers
    publisher: Publisher

    async def __call__(self, parked: Parked) -> Redriven:
        """See `Step`."""
        match _addressed(parked, self.readers):
            case Redriven() as refused:
                return refused
            case record:
                position = await self.publisher.publish(record, deadline=_attempt_deadline())
                return Redriven(parked, Outcome.REPLAYED, f"to {parked.consumer_group}", position)


def _addressed(parked: Parked, readers: Readers) -> Record | Redriven:
    letter = read_dead_letter(parked.record)
    if letter is None:
        return Redriven(parked, Outcome.NOT_ADDRESSED, "its headers do not say which consumer group it is from")
    if letter.partition.topic not in readers.get(letter.consumer_group, ()):
        detail = f"there is no consumer group {letter.consumer_group} that reads {letter.partition.topic}"
        return Redriven(parked, Outcome.NOT_ADDRESSED, detail)
    return replayed(letter)


@dataclass(frozen=True, slots=True)
class Bodies:
    """Opens quarantined bodies, as those of the endpoint that takes them now.

    That is the one that took them; `endpoint_as` takes those whose endpoint is gone, or has refused them for their mode
    or account.
    """

    endpoints: Mapping[str, Endpoint]
    endpoint_as: Endpoint | None
    sealing: Sealing | None

    def opened(self, parked: Parked) -> TrustedEvent | Redriven:
        """The body, or why it cannot be had."""
        endpoint = self._endpoint(parked)
        if isinstance(endpoint, Redriven):
            return endpoint
        try:
            body = quarantined_body(parked.record, self.sealing)
        except CannotUnseal as sealed:
            return Redriven(parked, Outcome.SEALED, str(sealed))
        return TrustedEvent(endpoint, body, _received_at(parked))

    def _endpoint(self, parked: Parked) -> Endpoint | Redriven:
        own = self.endpoints.get(parked.endpoint or "")
        refused_there = parked.reason in _MISMATCHES
        endpoint = self.endpoint_as if own is None or refused_there else own
        if endpoint is not None:
            return endpoint
        if refused_there:
            return Redriven(parked, Outcome.ENDPOINT_NEEDED, f"{parked.endpoint} has refused it: {parked.reason}")
        return Redriven(parked, Outcome.ENDPOINT_UNKNOWN, f"there is no endpoint {parked.endpoint!r} any more")


def _received_at(parked: Parked) -> datetime:
    """When the body came: its event is as old as that."""
    try:
        moment = datetime.fromisoformat(_headers(parked.record).get("received_at", ""))
    except ValueError:
        return parked.parked_at
    return moment if moment.tzinfo is not None else parked.parked_at


@dataclass(frozen=True, slots=True)
class PlanBodies:
    """Says what today's code would make of a quarantined body; publishes and claims nothing."""

    bodies: Bodies
    ingest: Ingest

    async def __call__(self, parked: Parked) -> Redriven:
        """See `Step`."""
        body = self.bodies.opened(parked)
        if isinstance(body, Redriven):
            return body
        event = normalize(body, self.ingest.redaction)
        if isinstance(event, Unprocessable):
            return _unfit(parked, event)
        record = encode(
            event,
            topics=self.ingest.topics,
            ingest_source=_SOURCE,
            include_raw=self.ingest.include_raw,
            traceparent="",
        )
        if not self.ingest.publisher.fits(record):
            return Redriven(parked, Outcome.UNFIT, f"{QuarantineReason.RECORD_TOO_LARGE.value}: {record.topic}")
        key = ClaimKey(EVENT_SCOPE, event.event_id)
        if (await self.ingest.deduplicator.look([key]))[key] is ClaimState.DONE:
            return Redriven(parked, Outcome.DUPLICATE, f"on {record.topic}")
        return Redriven(parked, Outcome.WOULD_REPLAY, f"to {record.topic}")


@dataclass(frozen=True, slots=True)
class ReplayBodies:
    """Takes quarantined bodies to Kafka as if they had just come."""

    bodies: Bodies
    ingest: Ingest

    async def __call__(self, parked: Parked) -> Redriven:
        """See `Step`."""
        body = self.bodies.opened(parked)
        if isinstance(body, Redriven):
            return body
        taken = await retake(body, _SOURCE, self.ingest, deadline=_attempt_deadline())
        if isinstance(taken, Unprocessable):
            return _unfit(parked, taken)
        match taken.outcome:
            case Accepted(position=position):
                return Redriven(parked, Outcome.REPLAYED, f"to {position.topic}", position)
            case _:
                return Redriven(parked, Outcome.DUPLICATE)


def _unfit(parked: Parked, unprocessable: Unprocessable) -> Redriven:
    return Redriven(parked, Outcome.UNFIT, f"{unprocessable.reason.value}: {unprocessable.detail}")
