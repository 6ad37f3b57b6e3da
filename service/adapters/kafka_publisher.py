"""Publishing with aiokafka: a producer that is supervised and replaced when broken, and no wait without an end.

One idempotent aiokafka producer is a *generation*. Some of its failures cannot be mended from outside: after one
definite refusal by the broker it has lost count of the partition's sequence numbers, a dead sender task stays dead,
and a batch whose leader is gone is tried for ever. So it is thrown away and made anew from the bootstrap list::

    REPLACING ──started──▶ UP ──refused, poisoned, sender_died, stalled, unreachable──▶ REPLACING
        └──────failed────▶ DOWN ──started──▶ UP

While it is DOWN publishing fails at once; each attempt to start is the probe that finds the broker back.

A publish outlives generations: it goes on to the next one for as long as its own deadline allows.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from aiokafka import AIOKafkaProducer, codec
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    CorruptRecordException,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    PolicyViolationError,
    ProducerClosed,
    ProducerFenced,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownProducerId,
    UnknownTopicOrPartitionError,
    UnsupportedForMessageFormatError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import RecordMetadata

from service.adapters.kafka_ending import bounded
from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_topics import TopicState, admin_client, describe_topics
from service.errors import BrokerUnavailable, ConfigurationError, PublishOutcomeUnknown, PublishRefused, RecordTooLarge
from service.events import Position, Record

_log: Final = logging.getLogger(__name__)

Compression: TypeAlias = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Replacement: TypeAlias = Literal["refused", "poisoned", "sender_died", "stalled", "unreachable"]

BATCH_BYTES: Final = 512 * 1024
_REQUEST_BYTES: Final = 64 * 1024 * 1024
"""Above any topic's limit: sizes are judged by `fits`, against the topic's own."""
_WATCH_SECONDS: Final = 0.1
_DESCRIBE_ATTEMPTS: Final = 4
_DESCRIBE_PAUSE_SECONDS: Final = 0.1
_REPLACE_SECONDS_MIN: Final = 0.1
_REPAIR: Final = "run `stripe-ingest topics apply`"

_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_REFUSED: Final = (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)
_NOT_APPENDED: Final = (
    CorruptRecordException,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    UnknownProducerId,
)
"""The producer's fault and not the record's: certainly not in the log, and a new producer can put it there."""
_NOT_SENT: Final = (KafkaTimeoutError, ProducerClosed, UnknownTopicOrPartitionError)
"""Raised by `send` before the record is in a batch: no room in time, closing, no such topic in the metadata."""


@dataclass(frozen=True, slots=True)
class PublisherTiming:
    """The bounds of everything that a publisher does, in seconds."""

    request: float = 3.0
    """aiokafka's request time-out: connecting, metadata, a produce request."""
    stall: float = 2.5
    """How long records may wait without an answer to any before the producer is given up."""
    restart: float = 1.0
    """Between attempts to start while the broker is away."""
    check: float = 5.0
    """How often the topics' limits are looked at, which also finds a broker that went away while nothing was sent."""
    close: float = 2.0
    """How long a producer that is replaced may take to finish what it has."""


class _NotAppended(Exception):
    """The record is certainly not in the log, and another producer may put it there."""


class _Unanswered(Exception):
    """The record may be in the log, or get there later."""


@dataclass(eq=False, slots=True)
class _Generation:
    """One producer, from its start until it is given up."""

    producer: AIOKafkaProducer
    batch_bytes: int
    broken: asyncio.Future[Replacement]
    """Set once, with why it must be replaced."""
    given_up: bool = False
    unanswered_since: float | None = None
    """When the oldest record without an answer was handed over, or the last answer came, whichever is later.

    A publish that ran out of time leaves it as it is: its record is still in the producer's hands.
    """
    answered_at: float = 0.0
    _waiting: set[asyncio.Timeout] = field(default_factory=set)

    async def publish(self, record: Record, *, deadline: float) -> Position:
        """Hand the record over and wait for its answer, until the deadline or until the generation is given up.

        Raises `_NotAppended`, `_Unanswered`, and what the broker or the producer says of the record.
        """
        loop = asyncio.get_running_loop()
        timeout = asyncio.timeout_at(deadline)
        answer: asyncio.Future[RecordMetadata] | None = None
        self._waiting.add(timeout)
        try:
            async with timeout:
                answer = await self._send(record)
                if self.unanswered_since is None:
                    self.unanswered_since = loop.time()
                metadata = await answer
        except TimeoutError as error:
            raise (_NotAppended if answer is None else _Unanswered) from error
        finally:
            self._waiting.discard(timeout)
            if answer is not None and answer.done() and not answer.cancelled():
                # The answer may have lost against the deadline; asyncio logs errors that nobody has looked at.
                answer.exception()
        self._answered(loop.time())
        return Position(metadata.topic, metadata.partition, metadata.offset)

    async def _send(self, record: Record) -> "asyncio.Future[RecordMetadata]":
        """Wait for metadata and for room in the batch. Only when this returns is the record on its way."""
        try:
            return await self.producer.send(  # type: ignore[no-any-return]
                record.topic, key=record.key, value=record.value, headers=list(record.headers)
            )
        except _NOT_SENT as error:
            raise _NotAppended from error

    def _answered(self, now: float) -> None:
        self.answered_at = now
        self.unanswered_since = now if self._waiting else None

    def give_up(self) -> None:
        """Send everyone who waits on to the next generation."""
        self.given_up = True
        for timeout in tuple(self._waiting):
            # One that has just run out, while its task has not noticed yet, must not be touched any more.
            if not timeout.expired():
                timeout.reschedule(0)

    def silent_seconds(self, now: float) -> float:
        """For how long records have waited without an answer to any of them."""
        return 0.0 if self.unanswered_since is None else now - self.unanswered_since


@dataclass(frozen=True, slots=True)
class _Up:
    generation: _Generation


@dataclass(frozen=True, slots=True)
class _Replacing:
    settled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Down:
    reason: str


class KafkaPublisher:
    """The `Publisher` port on a Kafka cluster.

    `topics` are those that must exist for the publisher to be available; `minimum_bytes` says of some of them what
    their `max.message.bytes` must be at least. `on_replaced` is told the reason of each replacement, `on_up` whether
    there is a working producer, whenever that may have changed.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        topics: Collection[str],
        minimum_bytes: Mapping[str, int] | None = None,
        security: KafkaSecurity | None = None,
        client_id: str = "stripe-ingest",
        compression: Compression = "none",
        timing: PublisherTiming | None = None,
        on_replaced: Callable[[Replacement], object] = lambda _: None,
        on_up: Callable[[bool], object] = lambda _: None,
    ) -> None:
        if compression != "none" and not getattr(codec, f"has_{compression}")():
            raise ConfigurationError(f"kafka.compression: {compression} needs the package cramjam")
        self._bootstrap_servers = bootstrap_servers
        self._topics = frozenset(topics)
        self._minimum_bytes = minimum_bytes or {}
        self._security = security or KafkaSecurity()
        self._client_id = client_id
        self._compression = None if compression == "none" else compression
        self._timing = timing or PublisherTiming()
        self._on_replaced = on_replaced
        self._on_up = on_up
        self._state: _Up | _Replacing | _Down = _Down("not started")
        self._described: Mapping[str, TopicState] = {}
        self._missing: frozenset[str] = frozenset()
        self._supervisor: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def publish(self, record: Record, *, deadline: float) -> Position:
        """See `Publisher.publish`. A topic that is missing counts as unavailable: it can still be created."""
        unanswered = False
        while True:
            try:
                return await self._attempt(record, deadline)
            except _NotAppended:
                continue
            except _Unanswered:
                unanswered = True
            except (BrokerUnavailable, PublishRefused) as error:
                if unanswered:
                    raise PublishOutcomeUnknown(
                        "kafka has not answered in time; the record may be in the log"
                    ) from error
                raise

    def fits(self, record: Record) -> bool:
        """See `Publisher.fits`. True where the topic's limit is not known."""
        state = self._described.get(record.topic)
        return state is None or state.max_message_bytes is None or record_bytes(record) <= state.max_message_bytes

    @property
    def available(self) -> bool:
        """See `Publisher.available`."""
        return self.problem is None

    @property
    def problem(self) -> str | None:
        """What keeps records from being taken, for a person; None when nothing does."""
        if isinstance(self._state, _Down):
            return self._state.reason
        if isinstance(self._state, _Replacing) and not self._described:
            return "not connected yet"
        if self._missing:
            return f"missing topics: {', '.join(sorted(self._missing))}; {_REPAIR}"
        limits = self.topic_limits
        for topic, least in sorted(self._minimum_bytes.items()):
            if limits.get(topic, least) < least:
                return f"{topic} takes {limits[topic]} bytes (max.message.bytes) and must take {least}; {_REPAIR}"
        return None

    @property
    def topic_limits(self) -> Mapping[str, int]:
        """`max.message.bytes` of the topics for which it is known."""
        known = {name: state.max_message_bytes for name, state in self._described.items()}
        return {name: limit for name, limit in known.items() if limit is not None}

    async def start(self) -> None:
        """Return when the first attempt to connect has ended, either way: the supervisor goes on trying."""
        if self._supervisor is None:
            replacing = _Replacing()
            self._state = replacing
            self._supervisor = asyncio.create_task(self._supervise(), name="kafka-publisher")
            await replacing.settled.wait()

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Take nothing any more, let what is on its way finish within `timeout_seconds`, and close."""
        if self._supervisor is None:
            return
        self._supervisor.cancel()
        await asyncio.wait({self._supervisor})
        self._supervisor = None
        last = self._state.generation if isinstance(self._state, _Up) else None
        self._enter(_Down("closed"))
        if last is not None:
            self._retire(last, within_seconds=timeout_seconds)
        if self._retiring:
            await asyncio.wait(self._retiring)

    async def _attempt(self, record: Record, deadline: float) -> Position:
        """Publish with the generation in service, and ask for another when this one turns out to be broken."""
        generation = await self._generation(record, deadline)
        try:
            return await generation.publish(record, deadline=deadline)
        except _TOO_LARGE as error:
            self._fail(generation, "refused")
            if record.topic in self.topic_limits and record_bytes(record) <= generation.batch_bytes:
                # It was in a batch with others, and the answer is about all of them: the limit was lowered since it
                # was last looked at. The next generation knows the new one, and makes its batches no larger.
                raise _NotAppended from error
            raise RecordTooLarge(f"the record is over the max.message.bytes of {record.topic}") from error
        except _REFUSED as error:
            self._fail(generation, "refused")
            raise PublishRefused(f"the broker refuses the record: {type(error).__name__}") from error
        except _NOT_APPENDED as error:
            self._fail(generation, "poisoned")
            raise _NotAppended from error
        except KafkaError as error:
            # Not foreseen: neither the record's state nor the producer's is known.
            self._fail(generation, "poisoned")
            raise _Unanswered from error

    async def _generation(self, record: Record, deadline: float) -> _Generation:
        """The generation in service, waiting for one that is being started.

        Raises `RecordTooLarge` and `BrokerUnavailable`, before anything is sent.
        """
        while True:
            if record.topic in self._missing:
                raise BrokerUnavailable(f"the topic {record.topic} is missing; {_REPAIR}")
            if not self.fits(record):
                raise RecordTooLarge(f"the record is over the max.message.bytes of {record.topic}")
            if asyncio.get_running_loop().time() >= deadline:
                raise BrokerUnavailable("no producer took the record in time")
            match self._state:
                case _Down(reason):
                    raise BrokerUnavailable(reason)
                case _Up(generation):
                    return generation
                case _Replacing(settled):
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(deadline):
                            await settled.wait()

    def _enter(self, state: _Up | _Replacing | _Down) -> None:
        before, self._state = self._state, state
        if isinstance(before, _Replacing):
            before.settled.set()
        self._on_up(isinstance(state, _Up))

    def _fail(self, generation: _Generation, reason: Replacement) -> None:
        """Take a generation out of service; the first reason counts."""
        if generation.broken.done():
            return
        generation.broken.set_result(reason)
        self._enter(_Replacing())
        if reason not in ("refused", "poisoned"):
            # One that was refused or poisoned still answers for the other partitions; from these nothing will come.
            generation.give_up()

    async def _supervise(self) -> None:
        while True:
            generation = await self._start_generation()
            if generation is None:
                await asyncio.sleep(self._timing.restart)
                continue
            self._enter(_Up(generation))
            started = asyncio.get_running_loop().time()
            self._on_replaced(await self._watch(generation))
            self._retire(generation, within_seconds=self._timing.close)
            # Where each record breaks its producer, the next ones must not become a storm of connections.
            await asyncio.sleep(max(0.0, started + _REPLACE_SECONDS_MIN - asyncio.get_running_loop().time()))

    async def _start_generation(self) -> _Generation | None:
        """A started producer, or None with the state DOWN."""
        loop = asyncio.get_running_loop()
        producer: AIOKafkaProducer | None = None
        try:
            # A frozen server costs one request's time-out before the next of the list is tried.
            async with asyncio.timeout(self._timing.request * (2 + self._bootstrap_servers.count(","))):
                await self._describe()
                producer = self._new_producer()
                await producer.start()
                await producer.client.set_topics(self._described)
        except asyncio.CancelledError:
            if producer is not None:
                await _dispose(producer, self._timing.close)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor has to live
            _log.warning("kafka.start_failed", extra={"error": type(error).__name__})
            if producer is not None:
                await _dispose(producer, self._timing.close)
            self._enter(_Down(f"kafka is away ({type(error.__cause__ or error).__name__})"))
            return None
        return _Generation(producer, self._batch_bytes, loop.create_future())

    def _new_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self._bootstrap_servers,
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            compression_type=self._compression,
            linger_ms=0,
            max_batch_size=self._batch_bytes,
            max_request_size=_REQUEST_BYTES,
            request_timeout_ms=int(self._timing.request * 1000),
            retry_backoff_ms=100,
            metadata_max_age_ms=60_000,
            **self._security.client_arguments(),
        )

    @property
    def _batch_bytes(self) -> int:
        """No batch of several records may be over a topic's limit: the broker's refusal would be about all of them."""
        return min([BATCH_BYTES, *self.topic_limits.values()])

    async def _watch(self, generation: _Generation) -> Replacement:
        """Return why the generation has to be replaced, once it has to be."""
        loop = asyncio.get_running_loop()
        sender: asyncio.Task[None] = generation.producer._sender.sender_task  # noqa: SLF001 - P8: nothing else tells
        next_check = loop.time() + self._timing.check
        ends: list[asyncio.Future[Any]] = [generation.broken, sender]
        check: asyncio.Task[None] | None = None
        try:
            while not generation.broken.done():
                await asyncio.wait(ends, timeout=_WATCH_SECONDS)
                if sender.done():
                    self._fail(generation, "sender_died")
                elif generation.silent_seconds(loop.time()) > self._timing.stall:
                    self._fail(generation, "stalled")
                elif check is not None and check.done():
                    next_check = loop.time() + (self._timing.restart if self.problem else self._timing.check)
                    check = None
                elif check is None and loop.time() >= next_check:
                    check = asyncio.create_task(self._check(generation))
        finally:
            if check is not None:
                check.cancel()
        return generation.broken.result()

    async def _check(self, generation: _Generation) -> None:
        """Look at the topics; where that fails and nothing was acknowledged meanwhile, the broker is away."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(self._timing.request * (1 + self._bootstrap_servers.count(","))):
                await self._describe()
        except (BrokerUnavailable, TimeoutError):
            # By the interval, not by the milliseconds of one refused connection: a node of several may be away.
            if generation.answered_at < started - self._timing.check:
                self._fail(generation, "unreachable")

    async def _describe(self) -> None:
        """Learn which topics there are and what they take.

        The admin client asks a random node each time: one that is away is no verdict on the others. Callers bound
        the time that all attempts may take.
        """
        for attempt in range(1, _DESCRIBE_ATTEMPTS + 1):
            try:
                return await self._describe_once()
            except BrokerUnavailable:
                if attempt == _DESCRIBE_ATTEMPTS:
                    raise
                await asyncio.sleep(_DESCRIBE_PAUSE_SECONDS)
        return None

    async def _describe_once(self) -> None:
        async with admin_client(
            self._bootstrap_servers, security=self._security, request_timeout_seconds=self._timing.request
        ) as admin:
            described = await describe_topics(admin, self._topics)
        self._described = described
        self._missing = self._topics - described.keys()

    def _retire(self, generation: _Generation, *, within_seconds: float) -> None:
        """Close a generation in the background; who still waits when the time is up goes on to the next one."""
        task = asyncio.create_task(_finish(generation, within_seconds))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _finish(generation: _Generation, seconds: float) -> None:
    if not generation.given_up:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await generation.producer.flush()
        generation.give_up()
    await _dispose(generation.producer, seconds)


async def _dispose(producer: AIOKafkaProducer, seconds: float) -> None:
    """Close a producer by force, each step in `seconds`: its own `stop` waits for batches that nobody will answer."""
    sender, accumulator = producer._sender, producer._message_accumulator  # noqa: SLF001 - see above
    await bounded(sender.close, seconds)
    await bounded(producer.client.close, seconds)
    # What is left would keep `stop` waiting; every publish has gone on to the next generation already.
    accumulator.fail_all(ProducerClosed())
    for batches in accumulator._batches.values():  # noqa: SLF001 - see above
        for batch in batches:
            # asyncio logs errors that nobody has looked at.
            batch._drain_waiter.exception()  # noqa: SLF001 - see above
    await bounded(producer.stop, seconds)


def record_bytes(record: Record) -> int:
    """The size of a batch with this record alone, uncompressed, in bytes; at most 20 more than the broker counts."""
    return int(DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, list(record.headers)))
