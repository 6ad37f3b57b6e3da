"""The ports as a process sees them across a network that is against it: twins around the twins, with faults.

A request that has been sent belongs to the world: it takes effect, or does not, whatever becomes of its sender. So a
process can die at each of its awaits, before, while and after what it asked for happens.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.adapters.memory_kafka import MemoryKafka, MemoryRecordSource, record_bytes
from service.adapters.memory_store import MemoryDatabase, MemoryProjectionStore
from service.errors import (
    BrokerUnavailable,
    DedupeUnavailable,
    IngestError,
    PublishOutcomeUnknown,
    PublishRefused,
    RecordTooLarge,
    StoreUnavailable,
)
from service.events import ClaimKey, ClaimState, ConsumedRecord, Offsets, Partition, Position, Record
from service.ports import Applied, Batch
from service.projections.linking import Observed
from service.projections.model import ObjectKey
from tests.simulation.faults import SQLSTATES, Chaos, Fault
from tests.simulation.history import History, Publishing, identity_of
from tests.simulation.loop import VirtualLoop, owner

T = TypeVar("T")

QUIET_FETCH_SECONDS: Final = 6 * 3_600.0
"""How long a fetch waits where nothing has happened for long, and no test is to pay for the turns of an idle loop."""
BUSY_SECONDS: Final = 90.0
LATE_SECONDS: Final = (15.0, 120.0)
"""How late something may be done that its asker has given up: about the time of a lease, and later."""


class Fate(Enum):
    """Where in a call its process is struck."""

    BEFORE = "before it was sent"
    SENT = "before it was done"
    DONE = "before it was answered"
    ANSWERED = "after it was answered"


@dataclass(slots=True)
class Site:
    """What all of a history's parts share."""

    loop: VirtualLoop
    chaos: Chaos
    history: History
    context: Context
    """The world's: what is called in it belongs to no process."""
    disturbed_at: float = 0.0

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Have the world do something."""
        self.loop.call_later(seconds, callback, context=self.context)

    def disturb(self) -> None:
        """Something has happened."""
        self.disturbed_at = self.loop.time()

    @property
    def busy(self) -> bool:
        """Whether something has happened of late."""
        return self.loop.time() < self.disturbed_at + BUSY_SECONDS


@dataclass(slots=True)
class Fuse:
    """Strikes a process at one of its calls to the outside: the `calls`th from now, at the stage `fate`."""

    strike: Callable[[], None]
    calls: int | None = None
    fate: Fate = Fate.BEFORE

    def light(self, calls: int, fate: Fate, strike: Callable[[], None]) -> None:
        """Have it strike in so many calls."""
        self.calls, self.fate, self.strike = calls, fate, strike

    def burn(self) -> Fate | None:
        """One more call; how it ends for the process, if this is the one."""
        if self.calls is None:
            return None
        self.calls -= 1
        if self.calls > 0:
            return None
        self.calls = None
        return self.fate


@dataclass(slots=True)
class Server:
    """Whether somebody answers; where it is paused, what comes is done when it goes on."""

    down: bool = False
    _waiting: list[Callable[[], None]] = field(default_factory=list)

    def when_up(self, callback: Callable[[], None]) -> None:
        """Have it done now, or when the server is back."""
        if self.down:
            self._waiting.append(callback)
        else:
            callback()

    def up(self) -> None:
        """Be back."""
        self.down = False
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


@dataclass(frozen=True, slots=True)
class _Faults:
    slow: Fault
    refused: Fault
    lost: Fault
    answer_lost: Fault
    late: Fault


_DEDUPE: Final = _Faults(
    Fault.DEDUPE_SLOW, Fault.DEDUPE_REFUSED, Fault.DEDUPE_LOST, Fault.DEDUPE_ANSWER_LOST, Fault.DEDUPE_LATE
)
_STORE: Final = _Faults(
    Fault.STORE_SLOW, Fault.STORE_REFUSED, Fault.STORE_LOST, Fault.STORE_COMMIT_UNKNOWN, Fault.STORE_LATE
)
_SOURCE: Final = _Faults(
    Fault.SOURCE_SLOW, Fault.SOURCE_REFUSED, Fault.SOURCE_REFUSED, Fault.SOURCE_REFUSED, Fault.SOURCE_SLOW
)


class Wire:
    """A process's connection to one server. `patience_seconds` is when its driver gives up by itself."""

    def __init__(
        self,
        site: Site,
        server: Server,
        fuse: Fuse,
        faults: _Faults,
        error: Callable[[], Exception],
        *,
        patience_seconds: float,
    ) -> None:
        self._site = site
        self._server = server
        self._fuse = fuse
        self._faults = faults
        self._error = error
        self._patience_seconds = patience_seconds

    async def call(self, what: str, effect: Callable[[], T]) -> T:
        """One round trip: `effect` is what the server does, at once."""
        fate = await _begin(self._fuse)
        site, chaos, faults = self._site, self._site.chaos, self._faults
        answer: asyncio.Future[T] = site.loop.create_future()
        answers = True

        def fail() -> None:
            if not answer.done():
                answer.set_exception(self._error())
                answer.exception()

        def do() -> None:
            if self._server.down:
                site.later(chaos.latency(), fail)
                return
            if fate is Fate.SENT:
                self._fuse.strike()
            try:
                result = effect()
            except IngestError as failure:  # the server's answer; a bug of the twin's is left for the loop to hear of
                site.later(chaos.latency(), lambda failed=failure: _refuse(answer, failed))  # type: ignore[misc]
                return
            if fate is Fate.DONE:
                self._fuse.strike()
            if answers:
                site.later(chaos.latency(), lambda: _settle(answer, result))

        if self._server.down:
            site.later(chaos.chance.choice((chaos.latency(), self._patience_seconds)), fail)
        elif chaos.strikes(faults.refused):
            site.later(chaos.latency(), fail)
        elif chaos.strikes(faults.lost):
            site.later(chaos.chance.uniform(0, self._patience_seconds), fail)
        elif chaos.strikes(faults.answer_lost):
            answers = False
            site.later(chaos.latency(), do)
            site.later(chaos.chance.uniform(0.1, self._patience_seconds), fail)
        elif chaos.strikes(faults.late):
            site.history.tell("network", f"{what} is late")
            site.later(
                chaos.chance.uniform(0, 5) if chaos.chance.random() < 0.3 else chaos.chance.uniform(*LATE_SECONDS), do
            )
            site.later(self._patience_seconds, fail)
        elif chaos.strikes(faults.slow):
            site.later(chaos.chance.uniform(0, 3), do)
        else:
            site.later(chaos.latency(), do)
        result = await answer
        if fate is Fate.ANSWERED:
            self._fuse.strike()
        return result


async def _begin(fuse: Fuse) -> Fate | None:
    """The begin of every call: what is dead calls nobody any more, and what stands still does so later."""
    tasks = owner()
    if tasks is not None and not tasks.alive:
        raise asyncio.CancelledError
    fate = fuse.burn()
    if fate is Fate.BEFORE:
        fuse.strike()
        await asyncio.sleep(0)
    return fate


def _settle(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _refuse(answer: asyncio.Future[T], failure: Exception) -> None:
    if not answer.done():
        answer.set_exception(failure)
        answer.exception()


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has no await in it."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise AssertionError("a twin is not atomic")


class SimulatedPublisher:
    """The `Publisher` port of one process."""

    def __init__(self, site: Site, kafka: MemoryKafka, broker: Server, fuse: Fuse, name: str) -> None:
        self.problem: str | None = None
        self._site = site
        self._kafka = kafka
        self._broker = broker
        self._fuse = fuse
        self._name = name

    async def publish(self, record: Record, *, deadline: float) -> Position:
        """See `Publisher.publish`."""
        fate = await _begin(self._fuse)
        site = self._site
        await self._admit(record, deadline)
        headers = dict(record.headers)
        publishing = Publishing(
            identity_of(record),
            endpoint=headers["endpoint"].decode() if "endpoint" in headers else "",
            mark=headers.get("dedupe", b"").decode(),
            by=self._name,
            begun=site.loop.time(),
        )
        site.history.publishings.append(publishing)
        answer: asyncio.Future[Position] = site.loop.create_future()
        remaining = deadline - site.loop.time()
        appends, answered = self._plan(remaining)

        def append() -> None:
            if fate is Fate.SENT:
                self._fuse.strike()
            position = self._kafka.append(record)
            site.disturb()
            publishing.appended.append((site.loop.time(), position))
            site.history.tell(
                self._name,
                f"record of {publishing.identity[1]} at {position.topic}[{position.partition}]{position.offset}",
            )
            if fate is Fate.DONE:
                self._fuse.strike()
            if answered:
                site.later(site.chaos.latency(), lambda: _settle(answer, position))

        for seconds in appends:
            site.later(seconds, lambda: self._broker.when_up(append))
        if not answered:
            site.later(site.chaos.chance.uniform(0, remaining), lambda: _refuse(answer, _unknown()))
        await asyncio.wait([answer], timeout=remaining)
        if not answer.done():
            raise _unknown()
        position = answer.result()
        publishing.outcome = "acknowledged"
        if fate is Fate.ANSWERED:
            self._fuse.strike()
        return position

    async def _admit(self, record: Record, deadline: float) -> None:
        """What is said to a record before it is sent, or instead of taking it."""
        chaos = self._site.chaos
        if self._broker.down:
            raise BrokerUnavailable("the broker is away")
        if self._site.loop.time() >= deadline:
            raise BrokerUnavailable("no producer took the record in time")
        if not self.fits(record):
            raise RecordTooLarge(f"the record is over the max.message.bytes of {record.topic}")
        if chaos.strikes(Fault.PUBLISH_REFUSED):
            await asyncio.sleep(chaos.latency())
            raise PublishRefused("the broker refuses the record")

    def _plan(self, remaining: float) -> tuple[Sequence[float], bool]:
        """In how many seconds the record is appended, how often, and whether the ack comes back."""
        chaos = self._site.chaos
        if chaos.strikes(Fault.PUBLISH_LOST):
            return (), False
        if chaos.strikes(Fault.PUBLISH_ACK_LOST):
            return (chaos.latency(),), False
        if chaos.strikes(Fault.PUBLISH_LATE):
            return (remaining + chaos.chance.uniform(-5, 20),), True
        if chaos.strikes(Fault.PUBLISH_TWICE):
            return (chaos.latency(), chaos.chance.uniform(0, 5)), True
        if chaos.strikes(Fault.PUBLISH_SLOW):
            return (chaos.chance.uniform(0, remaining + 1),), True
        return (chaos.latency(),), True

    def fits(self, record: Record) -> bool:
        """See `Publisher.fits`."""
        limit = self._kafka.limit(record.topic)
        return limit is None or record_bytes(record) <= limit

    @property
    def available(self) -> bool:
        """See `Publisher.available`."""
        return not self._broker.down


def _unknown() -> PublishOutcomeUnknown:
    return PublishOutcomeUnknown("no answer in time; the record may be in the log")


class ForgetfulDedupeStore(MemoryDedupeStore):
    """A shared dedupe store that can lose what it was told last."""

    def photograph(self) -> Callable[[], None]:
        """What it knows now; call the result to have it know no more than that."""
        leases, done = dict(self._leases), dict(self._done_until)

        def restore() -> None:
            self._leases.clear()
            self._leases.update(leases)
            self._done_until.clear()
            self._done_until.update(done)

        return restore

    def holder(self, key: ClaimKey) -> str | None:
        """Who has a lease on the key."""
        lease = self._leases.get(key)
        return None if lease is None else lease.owner

    def flush(self) -> None:
        """Know nothing any more."""
        self._leases.clear()
        self._done_until.clear()


class DedupeClient:
    """The `DedupeStore` port of one process."""

    def __init__(self, site: Site, store: ForgetfulDedupeStore, server: Server, fuse: Fuse) -> None:
        self._site = site
        self._store = store
        self._wire = Wire(
            site,
            server,
            fuse,
            _DEDUPE,
            lambda: DedupeUnavailable("the dedupe store is away"),
            patience_seconds=5.0,
        )

    async def claim(self, keys: Collection[ClaimKey], *, owner: str) -> Mapping[ClaimKey, ClaimState]:
        """See `DedupeStore.claim`."""
        return await self._wire.call("claim", lambda: run_now(self._store.claim(keys, owner=owner)))

    async def look(self, keys: Collection[ClaimKey]) -> Mapping[ClaimKey, ClaimState]:
        """See `DedupeStore.look`."""
        return await self._wire.call("look", lambda: run_now(self._store.look(keys)))

    async def confirm(self, keys: Collection[ClaimKey]) -> None:
        """See `DedupeStore.confirm`."""

        def effect() -> None:
            run_now(self._store.confirm(keys))
            self._site.history.confirms += [(key, self._site.loop.time()) for key in keys]

        await self._wire.call("confirm", effect)

    async def release(self, keys: Collection[ClaimKey], *, owner: str) -> None:
        """See `DedupeStore.release`."""

        def effect() -> None:
            of_others = [key for key in keys if self._store.holder(key) not in (None, owner)]
            run_now(self._store.release(keys, owner=owner))
            history = self._site.history
            history.stolen += [
                f"the lease on {key.id} was another's" for key in of_others if not self._store.holder(key)
            ]

        site = self._site
        if site.chaos.strikes(Fault.RELEASE_LATE):
            # Where it hurts: by now the lease may be another's.
            site.later(site.chaos.chance.uniform(*LATE_SECONDS), effect)
            raise DedupeUnavailable("no answer in time")
        await self._wire.call("release", effect)

    async def close(self) -> None:
        """Nothing to give back."""


@dataclass(slots=True)
class SimulatedDatabase(MemoryDatabase):
    """A projection's database that counts effects, and can fail over to a replica that is behind."""

    effects: dict[tuple[ObjectKey, str], int] = field(default_factory=dict)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """A batch was applied."""

    def photograph(self) -> Callable[[], None]:
        """What is committed now; call the result to lose all that came after it."""
        ledger = {key: dict(observations) for key, observations in self.ledger.items()}
        sets = [
            (place, {key: set(values) for key, values in place.items()})
            for place in (self.roots, self.members, self.dependants)
        ]
        states, rows, offsets = dict(self.states), dict(self.rows), dict(self.offsets)
        no_ops, effects = set(self.no_ops), dict(self.effects)

        def restore() -> None:
            self.ledger.clear()
            self.ledger.update(ledger)
            for place, values in sets:
                place.clear()
                place.update(values)
            self.states.clear()
            self.states.update(states)
            self.rows.clear()
            self.rows.update(rows)
            self.offsets.clear()
            self.offsets.update(offsets)
            self.no_ops.clear()
            self.no_ops.update(no_ops)
            self.effects.clear()
            self.effects.update(effects)

        return restore


class CountingStore(MemoryProjectionStore):
    """The twin of the projection store, which tells the history of each effect on an object."""

    def watched_by(self, history: History, database: SimulatedDatabase) -> None:
        """Tell this history."""
        self._history = history
        self._effects = database.effects

    def _fold(self, new: Observed) -> int:
        before = {o.key: self.database.states.get(o.key) for o, _ in new}
        for observation, _ in new:
            identity = (observation.key, observation.event_id)
            self._effects[identity] = self._effects.get(identity, 0) + 1
            if self._effects[identity] > 1:
                self._history.double_effects.append(f"{observation.event_id} on {observation.key.object_id}")
        refolded = super()._fold(new)
        for key, state in before.items():
            now = self.database.states[key]
            if state is not None and now.last_event_at < state.last_event_at:
                self._history.regressions.append(
                    f"{key.object_id}: {state.last_event_type} of {state.last_event_at:%H:%M:%S} became "
                    f"{now.last_event_type} of {now.last_event_at:%H:%M:%S}"
                )
        return refolded


class StoreClient:
    """The `ProjectionStore` port of one process."""

    def __init__(
        self, site: Site, store: CountingStore, database: SimulatedDatabase, server: Server, *, fuse: Fuse, name: str
    ) -> None:
        self._site = site
        self._store = store
        self._database = database
        self._name = name
        self._wire = Wire(
            site,
            server,
            fuse,
            _STORE,
            lambda: StoreUnavailable("the database is away", site.chaos.chance.choice(SQLSTATES)),
            patience_seconds=30.0,
        )

    async def check(self) -> None:
        """See `ProjectionStore.check`."""
        await self._wire.call("check", lambda: run_now(self._store.check()))

    async def next_offset(self, partition: Partition) -> int | None:
        """See `ProjectionStore.next_offset`."""
        return await self._wire.call("next_offset", lambda: run_now(self._store.next_offset(partition)))

    async def apply(self, batch: Batch) -> Applied:
        """See `ProjectionStore.apply`."""

        def effect() -> Applied:
            moves = ", ".join(f"{p.topic}[{p.number}]→{offset}" for p, offset in sorted(batch.next_offsets.items()))
            try:
                applied = run_now(self._store.apply(batch))
            except Exception as failure:
                self._site.history.tell(self._name, f"{type(failure).__name__} {moves}")
                raise
            self._database.moved.set()
            self._site.history.tell(self._name, f"applied {applied.applied} of {len(batch.events)} {moves}")
            return applied

        return await self._wire.call("apply", effect)

    async def close(self) -> None:
        """Nothing to give back."""


class SimulatedSource(MemoryRecordSource):
    """The `RecordSource` port of one process; as a zombie it goes on with the partitions that it had."""

    def __init__(
        self, site: Site, kafka: MemoryKafka, broker: Server, fuse: Fuse, *, group: str, topics: Collection[str]
    ) -> None:
        self.zombie = False
        self._dealt: frozenset[Partition] | None = None
        self._site = site
        self._fuse = fuse
        self._wire = Wire(
            site, broker, fuse, _SOURCE, lambda: BrokerUnavailable("the broker is away"), patience_seconds=10.0
        )
        super().__init__(kafka, group=group, topics=topics)

    def assign(self, partitions: Collection[Partition]) -> None:
        """The group's side, of which a zombie hears nothing."""
        if self.zombie:
            self._dealt = frozenset(partitions)
        else:
            super().assign(partitions)

    def revive(self) -> None:
        """Hear of what the group has dealt meanwhile."""
        self.zombie = False
        if self._dealt is not None:
            super().assign(self._dealt)
            self._dealt = None
            self._kafka.wake()

    def interrupt(self) -> None:
        """End a fetch that waits for longer than any real one."""
        self._changed = True
        self._kafka.wake()

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, tuple[int, int]]:
        """See `RecordSource.bounds`."""
        return await self._wire.call("bounds", lambda: run_now(MemoryRecordSource.bounds(self, partitions)))

    async def fetch(self, *, max_records: int, timeout_seconds: float) -> Sequence[ConsumedRecord]:
        """See `RecordSource.fetch`."""
        fate = await _begin(self._fuse)
        chaos = self._site.chaos
        if chaos.strikes(Fault.SOURCE_SLOW):
            await asyncio.sleep(chaos.chance.uniform(0, timeout_seconds))
        if self._positions and chaos.strikes(Fault.REDELIVERY):
            for partition, offset in self._positions.items():
                self._positions[partition] = max(self._kafka.log(partition).first, offset - chaos.chance.randint(1, 4))
        records = await super().fetch(
            max_records=min(max_records, chaos.chance.choice((1, 3, max_records))),
            timeout_seconds=timeout_seconds if self._site.busy or self.unpositioned() else QUIET_FETCH_SECONDS,
        )
        if fate is not None:
            self._fuse.strike()
            await asyncio.sleep(0)
        return records

    async def commit(self, offsets: Offsets) -> None:
        """See `RecordSource.commit`."""
        await _begin(self._fuse)
        if self._site.chaos.strikes(Fault.COMMIT_LOST):
            self.commit_failures += 1
            return
        await super().commit(offsets)

    async def ends(self) -> Offsets:
        """See `RecordSource.ends`."""
        return await self._wire.call("ends", lambda: run_now(MemoryRecordSource.ends(self)))
