"""One history: a story, a platform, processes, and what goes wrong, all from one seed."""

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from operator import attrgetter
from random import Random
from typing import Final

import structlog

from service.adapters.memory_kafka import MemoryKafka
from service.events import Partition, Record
from service.projections import PROJECTIONS
from tests.simulation.checker import Checker, Findings
from tests.simulation.faults import Chaos, Fault
from tests.simulation.history import History
from tests.simulation.loop import Deadlock, Livelock, VirtualClock, VirtualLoop, repeatable, run
from tests.simulation.processes import (
    LEASE_SECONDS,
    TOPICS,
    ConsumerProcess,
    Platform,
    ReceiverProcess,
    endpoint,
    lives,
)
from tests.simulation.stories import Story, story
from tests.simulation.stripe import Stripe, all_of
from tests.simulation.twins import ForgetfulDedupeStore, Server, SimulatedDatabase, Site

CONVERGENCE_SECONDS: Final = 600.0
"""How long after the last delivery and the last fault everything may need to be applied."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a seed came to."""

    seed: int
    findings: Findings
    faults: Mapping[Fault, int]
    events: int
    attempts: int
    records: int
    doubled_records: int
    virtual_seconds: float
    digest: str
    lines: Sequence[str] = field(repr=False)


@contextmanager
def silence() -> Iterator[None]:
    """No logging inside of the block: what a history has to say is in the history."""
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.testing.LogCapture()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def play(seed: int) -> Outcome:
    """Play the history of a seed, and judge it."""
    chance = repeatable(f"history:{seed}")
    world: list[World] = []

    async def main(loop: VirtualLoop) -> None:
        world.append(World(seed, chance, loop))
        await world[0].play()

    with silence():
        trouble: list[str] = []
        try:
            run(main, chance, shuffled=chance.random() < 0.5)
        except (Deadlock, Livelock) as stuck:
            trouble = [f"{type(stuck).__name__}: {stuck}"]
        return world[0].outcome(trouble)


class World:
    """A history while it is played."""

    def __init__(self, seed: int, chance: Random, loop: VirtualLoop, chaos: Chaos | None = None) -> None:
        self.seed = seed
        self.loop = loop
        self.chance = chance
        self.chaos = chaos or Chaos(chance)
        self.history = History(loop)
        self.site = Site(loop, self.chaos, self.history, contextvars.copy_context())
        self.live = chance.random() < 0.7
        self.platform = self._platform()
        self.story: Story = story(
            seed,
            chance,
            livemode=self.live,
            span=chance.choice((5, 120, 3_600)),
            twins=lambda: self.chaos.strikes(Fault.TWO_EVENTS),
        )
        self.receivers = [ReceiverProcess(f"receiver-{n}", self.platform) for n in range(chance.randint(1, 3))]
        self.consumers = [
            ConsumerProcess(f"{name}-{n}", name, self.platform)
            for name in self.platform.databases
            for n in range(chance.randint(1, 2))
        ]
        self.stripe = Stripe(
            self.site,
            self.receivers,
            live=self.live,
            endpoints=self.platform.endpoints[:2],
            stranger=self.platform.endpoints[2],
        )
        self.healed_at = 0.0

    def _platform(self) -> Platform:
        clock, chance = VirtualClock(self.loop), self.chance
        kafka = MemoryKafka(clock)
        partitions = chance.randint(1, 3)
        for topic in (*TOPICS.data, TOPICS.quarantine, TOPICS.dead_letter):
            kafka.create_topic(topic, partitions=partitions)
        names = self._projections()
        own, other = ("live", "test") if self.live else ("test", "live")
        return Platform(
            site=self.site,
            kafka=kafka,
            broker=Server(),
            dedupe=ForgetfulDedupeStore(clock, lease_seconds=LEASE_SECONDS, max_entries=100_000),
            dedupe_server=Server(),
            databases={name: SimulatedDatabase() for name in names},
            database_server=Server(),
            refused={name: set() for name in names},
            endpoints=(endpoint("shop", own), endpoint("mirror", own), endpoint("stranger", other)),
        )

    def _projections(self) -> Sequence[str]:
        return sorted(self.chance.sample(sorted(PROJECTIONS), k=self.chance.randint(1, 3)))

    async def play(self) -> None:
        """From the first event until all is quiet."""
        for name, refused in self.platform.refused.items():
            topics = {TOPICS.of(category) for category in PROJECTIONS[name].categories}
            refused.update(
                told.event_id
                for told in self.story.events
                if f"stripe.{told.family}" in topics
                and self.chaos.chance.random() < 0.2
                and self.chaos.strikes(Fault.ROW_REFUSED)
            )
        for process in (*self.receivers, *self.consumers):
            process.start()
        last = max(told.at for told in self.story.events)
        self.healed_at = last + self.chance.choice((60, 900, 7_200))
        trouble = asyncio.create_task(self._trouble())
        await all_of(self.stripe.deliveries(self.story.events), lambda line: self.history.tell("world", line))
        await trouble
        await self._converge()
        for process in (*self.receivers, *self.consumers):
            process.retired = True
        for process in (*self.receivers, *self.consumers):
            if process.alive:
                await process.stop()

    async def _trouble(self) -> None:
        await all_of(self._planned(), lambda line: self.history.tell("world", line))
        await asyncio.sleep(max(0.0, self.healed_at - self.loop.time()))
        self.chaos.healed = True
        self.healed_at = self.loop.time()
        for process in (*self.receivers, *self.consumers):
            process.fuse.calls = None
            self.loop.thaw(process.tasks)
        self._end_the_quiet()
        self.history.tell("world", "nothing goes wrong any more")

    def _moment(self) -> float:
        """Some time at which something is going on; more often than others the last one, after which all is quiet."""
        events = self.story.events
        told = self.chance.choice(events) if self.chance.random() < 0.7 else max(events, key=attrgetter("at"))
        return max(0.0, told.at + self.chance.choice((0, 0, 0, 300)) + self.chance.uniform(-3, 15))

    def _planned(self) -> list[Awaitable[None]]:
        platform, site = self.platform, self.site
        planned: list[Awaitable[None]] = [
            *lives(
                self.receivers,
                site,
                crash=Fault.RECEIVER_CRASH,
                restart=Fault.RECEIVER_RESTART,
                frozen=Fault.RECEIVER_FROZEN,
                moments=self._moment,
            ),
            *lives(
                self.consumers,
                site,
                crash=Fault.CONSUMER_CRASH,
                restart=Fault.CONSUMER_RESTART,
                frozen=Fault.CONSUMER_FROZEN,
                moments=self._moment,
            ),
        ]
        nemeses: Mapping[Fault, Callable[[], Awaitable[None]]] = {
            Fault.BROKER_AWAY: lambda: self._away(Fault.BROKER_AWAY, platform.broker, self._broker),
            Fault.DEDUPE_AWAY: lambda: self._away(Fault.DEDUPE_AWAY, platform.dedupe_server, lambda _: None),
            Fault.STORE_AWAY: lambda: self._away(Fault.STORE_AWAY, platform.database_server, lambda _: None),
            Fault.DEDUPE_FORGETS: self._forget,
            Fault.DEDUPE_RESTART: self._flush,
            Fault.STORE_FAILOVER: self._failover,
            Fault.REBALANCE: self._rebalance,
            Fault.ZOMBIE: self._zombie,
            Fault.RECEIVER_SKEW: self._skew,
            Fault.POISON_RECORD: self._poison,
        }
        for fault, nemesis in nemeses.items():
            if self.chaos.on(fault):
                planned += [nemesis() for _ in range(self.chance.randint(1, 3))]
        return planned

    async def _away(self, fault: Fault, server: Server, tell: Callable[[bool], None]) -> None:
        duration = self.chance.choice(
            (self.chance.uniform(0, 2), self.chance.uniform(2, 60), self.chance.uniform(60, 1_200))
        )
        await asyncio.sleep(self._moment())
        if server.down:
            return
        self._happens(fault, f"for {duration:.1f} s")
        server.down = True
        tell(False)
        await asyncio.sleep(duration)
        tell(True)
        server.up()
        self.site.disturb()
        self.history.tell("world", f"{fault.value}, no more")

    def _broker(self, available: bool) -> None:
        self.platform.kafka.available = available
        self.platform.kafka.wake()

    async def _forget(self) -> None:
        await asyncio.sleep(self._moment())
        restore = self.platform.dedupe.photograph()
        await asyncio.sleep(self.chance.uniform(0.01, 30))
        self._happens(Fault.DEDUPE_FORGETS)
        self.history.forgot.append(self.loop.time())
        restore()

    async def _flush(self) -> None:
        await asyncio.sleep(self._moment())
        self._happens(Fault.DEDUPE_RESTART)
        self.history.forgot.append(self.loop.time())
        self.platform.dedupe.flush()

    async def _failover(self) -> None:
        name = self.chance.choice(sorted(self.platform.databases))
        gap, patience = self.chance.uniform(0, 20), self.chance.choice((0, 60, 7_200))
        await asyncio.sleep(self._moment())
        database, begun = self.platform.databases[name], self.loop.time()
        restore = database.photograph()
        database.moved.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(database.moved.wait(), patience)  # until there is something to lose
        await asyncio.sleep(self.chance.uniform(0.01, 30))
        self._happens(Fault.STORE_FAILOVER, f"of {name}: the last {self.loop.time() - begun:.1f} s are lost")
        server = self.platform.database_server
        was_down, server.down = server.down, True
        restore()
        await asyncio.sleep(gap)
        if not was_down:
            server.up()
        self._end_the_quiet()

    async def _rebalance(self) -> None:
        name = self.chance.choice(sorted(self.platform.databases))
        await asyncio.sleep(self._moment())
        self._happens(Fault.REBALANCE, f"of {name}")
        self.platform.kafka.rebalance(TOPICS.group(name))

    async def _zombie(self) -> None:
        process = self.chance.choice(self.consumers)
        duration = self.chance.uniform(0.1, 90)
        await asyncio.sleep(self._moment())
        if not process.alive or process.source.zombie:
            return
        self._happens(Fault.ZOMBIE, f"{process.name} for {duration:.1f} s")
        process.lose_touch(duration)
        self.platform.kafka.leave(process.source)

    async def _skew(self) -> None:
        receiver = self.chance.choice(self.receivers)
        skew = self.chance.choice((-1, 1)) * self.chance.choice(
            (self.chance.uniform(1, 250), self.chance.uniform(320, 4_000))
        )
        duration = self.chance.uniform(1, 600)
        await asyncio.sleep(self._moment())
        self._happens(Fault.RECEIVER_SKEW, f"{receiver.name} by {skew:.0f} s")
        receiver.clock.skew_seconds = skew
        await asyncio.sleep(duration)
        receiver.clock.skew_seconds = 0.0

    async def _poison(self) -> None:
        name = self.chance.choice(sorted(self.platform.databases))
        topic = TOPICS.of(self.chance.choice(PROJECTIONS[name].categories))
        value = self.chance.choice((b"", b"{", b'{"event_id": 1}', b"\xff\xfe"))
        await asyncio.sleep(self._moment())
        self._happens(Fault.POISON_RECORD, f"on {topic}")
        self.site.disturb()
        self.history.planted_records.add(
            self.platform.kafka.append_to(Partition(topic, 0), Record(topic, b"poison", value, ()))
        )

    def _happens(self, fault: Fault, detail: str = "") -> None:
        self.chaos.happened(fault)
        self.history.tell("world", f"{fault.value} {detail}")

    async def _converge(self) -> None:
        """Everything in the logs is applied within a bound, without anything new to come."""
        self.history.tell("world", "nothing is sent any more")
        until = self.loop.time() + CONVERGENCE_SECONDS
        self._end_the_quiet()
        while (behind := self.behind()) and self.loop.time() < until:
            self.site.disturb()
            await asyncio.sleep(1.0)
        self.history.overdue += behind

    def _end_the_quiet(self) -> None:
        """No fetch waits for longer than a real one from here on."""
        self.site.disturb()
        for consumer in self.consumers:
            if consumer.alive:
                consumer.source.interrupt()

    def behind(self) -> list[str]:
        """What is not where it must come to: records that are not passed, processes that are not there."""
        behind = [f"{name} has not passed {place}" for name, place in self.not_passed()]
        for receiver in self.receivers:
            if not receiver.alive:
                behind.append(f"{receiver.name} is not there")
            elif receiver.deduplicator._flights:
                behind.append(f"{receiver.name} has publishings that do not end")
            elif receiver.deduplicator._confirms._waiting:
                behind.append(f"{receiver.name} has confirms that do not get through")
        return behind

    def not_passed(self) -> Iterator[tuple[str, str]]:
        """Projection, and record of a topic of its own that its stored offset has not passed."""
        for name, database in self.platform.databases.items():
            group = TOPICS.group(name)
            for category in PROJECTIONS[name].categories:
                for record in self.platform.kafka.records(TOPICS.of(category)):
                    offset, _ = database.offsets.get((group, record.partition), (0, ""))
                    if record.next_offset > offset:
                        yield name, f"{record.partition.topic}[{record.partition.number}]{record.offset}"

    def outcome(self, trouble: Sequence[str]) -> Outcome:
        """The verdict."""
        self.history.overdue += [*trouble, *self.loop.unheard]
        checker = Checker(
            self.history,
            self.platform,
            self.story,
            livemode=self.live,
            signed=self.stripe.signed,
            accepted=self.stripe.accepted,
            healed_at=self.healed_at,
        )
        return Outcome(
            seed=self.seed,
            findings=checker.findings(),
            faults=Counter(self.chaos.counts),
            events=len(self.story.events),
            attempts=len(self.history.attempts),
            records=sum(len(publishing.appended) for publishing in self.history.publishings),
            doubled_records=checker.doubled_records(),
            virtual_seconds=self.loop.time(),
            digest=self.history.digest(),
            lines=self.history.lines,
        )
