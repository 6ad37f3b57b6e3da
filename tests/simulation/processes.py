"""Receivers and consumers as processes: production code, composed as for production, killed, stopped and started."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final, cast

import msgspec
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry

from service.adapters.memory_kafka import MemoryKafka
from service.consumer.loop import Consumer, ConsumerLimits
from service.errors import IngestError
from service.events import Endpoint, Secret
from service.projections import PROJECTIONS
from service.receiver.dedupe import Deduplicator
from service.receiver.http import Limits, Receiver
from service.receiver.ingest import Ingest
from service.records import Topics, dead_letter, decode
from service.telemetry.metrics import ReceiverMetrics
from service.telemetry.observers import DedupeMetricsObserver
from tests.simulation.faults import Fault
from tests.simulation.history import Attempt
from tests.simulation.loop import Tasks, VirtualClock, owned_by
from tests.simulation.twins import (
    CountingStore,
    DedupeClient,
    Fate,
    ForgetfulDedupeStore,
    Fuse,
    Server,
    SimulatedDatabase,
    SimulatedPublisher,
    SimulatedSource,
    Site,
    StoreClient,
)
from tests.support.memory_log import SeenByObserver

TOPICS: Final = Topics("stripe")
LEASE_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 8.0
"""`receiver.answer_timeout_seconds`."""
STOP_SECONDS_MAX: Final = 120.0
"""No process may need longer to stop when it is asked to."""
DEDUPE_SECONDS: Final = 0.1
FROZEN_SECONDS_MAX: Final = 60.0
"""How long a process may stand still at a time: longer than a lease, and than a session of a consumer group."""
SESSION_SECONDS: Final = 45.0
"""After so long without a heartbeat a member is out of its group."""
SHUTDOWN_SECONDS: Final = 25.0
"""`receiver.shutdown_timeout_seconds`."""

_LIMITS: Final = Limits(max_body_bytes=1_048_576, max_in_flight=64, answer_timeout_seconds=ANSWER_SECONDS)
_METRICS: Final = ReceiverMetrics(CollectorRegistry())
"""Of all receivers of all histories: nothing is decided by a metric."""


@dataclass(slots=True)
class Platform:
    """What processes are connected to."""

    site: Site
    kafka: MemoryKafka
    broker: Server
    dedupe: ForgetfulDedupeStore
    dedupe_server: Server
    databases: Mapping[str, SimulatedDatabase]
    database_server: Server
    refused: Mapping[str, set[str]]
    """Projection → events whose rows its database refuses."""
    endpoints: Sequence[Endpoint]


class _Process:
    """Alive or not; started again some time after it has died."""

    def __init__(self, name: str, platform: Platform) -> None:
        self.name = name
        self.platform = platform
        self.site = platform.site
        self.stopping = False
        self.retired = False
        self.fuse = Fuse(self.crash)
        self.tasks = Tasks(name)
        self.tasks.alive = False

    @property
    def alive(self) -> bool:
        return self.tasks.alive

    def start(self) -> None:
        """Begin with nothing in memory."""
        if self.alive or self.retired:
            return
        self.site.disturb()
        self.stopping = False
        self.fuse.calls = None
        self.tasks = Tasks(self.name)
        with owned_by(self.tasks):
            self.begin()

    def crash(self) -> None:
        """Die at once. Somebody starts it again."""
        if not self.alive:
            return
        self.site.disturb()
        self.site.history.tell(self.name, "is killed")
        self._kill()
        self.site.later(self.site.chaos.chance.uniform(0.2, 20), self.start)

    async def restart(self, pause: float) -> None:
        """Stop as one is asked to, then start again."""
        if not self.alive or self.stopping:
            return
        self.site.history.tell(self.name, "is asked to stop")
        await self.stop()
        self.site.later(pause, self.start)

    async def stop(self) -> None:
        """Stop as one is asked to, which has a bound."""
        self.stopping = True
        tasks, begun = self.tasks, self.site.loop.time()
        with owned_by(tasks):
            finishing = asyncio.create_task(self.finish())
        while not finishing.done() and (left := STOP_SECONDS_MAX - self._ran_since(begun)) > 0:
            await asyncio.wait([finishing], timeout=left)
        if not finishing.done():
            self.site.history.overdue.append(f"{self.name} has not stopped in {STOP_SECONDS_MAX:.0f} s")
        elif tasks.alive and (failure := finishing.exception()) is not None:
            self.site.history.overdue.append(f"{self.name} failed to stop: {failure!r}")
        if tasks is self.tasks and tasks.alive:
            self._kill()

    def _ran_since(self, begun: float) -> float:
        now = self.site.loop.time()
        return now - begun - self.site.history.stood_still(self.name, begun, now)

    def _kill(self) -> None:
        self.tasks.kill()
        self.site.loop.thaw(self.tasks)
        self.end()

    def freeze(self, seconds: float) -> None:
        """Stand still, and go on without having noticed."""
        if not self.alive:
            return
        tasks, history = self.tasks, self.site.history
        history.tell(self.name, f"stands still for {seconds:.1f} s")
        history.stand_still(self.name, seconds)
        self.site.loop.freeze(tasks)
        self.site.later(seconds, lambda: self.site.loop.thaw(tasks))

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    async def finish(self) -> None:
        raise NotImplementedError


class _Request:
    """As much of an HTTP request as the receiver looks at."""

    def __init__(self, path: str, body: bytes, signature: str | None) -> None:
        headers = {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body))}
        if signature is not None:
            headers["Stripe-Signature"] = signature
        self.method = "POST"
        self.path = path
        self.remote = "127.0.0.1"
        self.content_length = len(body)
        self.headers = CIMultiDict(headers)
        self.raw_headers = tuple((name.encode(), value.encode()) for name, value in headers.items())
        self._body = body

    async def read(self) -> bytes:
        return self._body


class ReceiverProcess(_Process):
    """One receiver."""

    def __init__(self, name: str, platform: Platform) -> None:
        super().__init__(name, platform)
        self.clock = VirtualClock(self.site.loop)
        self.receiver: Receiver
        self.deduplicator: Deduplicator
        self._handling: dict[asyncio.Task[web.Response], None] = {}

    def begin(self) -> None:
        platform, site = self.platform, self.site
        self._handling = {}
        self.deduplicator = Deduplicator(
            DedupeClient(site, platform.dedupe, platform.dedupe_server, self.fuse),
            DedupeMetricsObserver(_METRICS),
            timeout_seconds=DEDUPE_SECONDS,
        )
        self.receiver = Receiver(
            endpoints={endpoint.path: endpoint for endpoint in platform.endpoints},
            ingest=Ingest(
                publisher=SimulatedPublisher(site, platform.kafka, platform.broker, self.fuse, self.name),
                deduplicator=self.deduplicator,
                clock=self.clock,
                topics=TOPICS,
                include_raw=False,
                tolerance_seconds=300,
            ),
            limits=_LIMITS,
            metrics=_METRICS,
        )

    def end(self) -> None:
        """What was in memory is unreachable."""

    async def finish(self) -> None:
        self.receiver.draining = True
        if self._handling:
            await asyncio.wait(tuple(self._handling), timeout=SHUTDOWN_SECONDS)
        await self.deduplicator.close(timeout_seconds=SHUTDOWN_SECONDS)

    def serve(self, path: str, body: bytes, signature: str | None, attempt: Attempt) -> asyncio.Task[web.Response]:
        """Handle a request in this process."""
        attempt.receiver, attempt.reached = self.name, self.site.loop.time()
        tasks = self.tasks

        async def handle() -> web.Response:
            response = await self.receiver.handle(cast("web.Request", _Request(path, body, signature)))
            attempt.ended = self.site.loop.time()
            attempt.status = response.status
            said = msgspec.json.decode(cast("bytes", response.body))
            attempt.said = said.get("status") or said.get("error")
            self.site.history.tell(
                self.name, f"answers {attempt.status} {attempt.said} to {attempt.event_id} at {attempt.endpoint}"
            )
            return response

        under_way = self._handling

        def ended(handling: asyncio.Task[web.Response]) -> None:
            del under_way[handling]
            # Also where it never began, because the process stood still from the request to its death.
            if handling.cancelled():
                attempt.receiver_died = not tasks.alive
                attempt.cancelled = True

        with owned_by(tasks):
            handling = asyncio.create_task(handle())
            under_way[handling] = None
            handling.add_done_callback(ended)
        return handling


class ConsumerProcess(_Process):
    """One member of a projection's consumer group."""

    def __init__(self, name: str, projection: str, platform: Platform) -> None:
        super().__init__(name, platform)
        self.projection = projection
        self.group = TOPICS.group(projection)
        self.source: SimulatedSource
        self._stop: asyncio.Event
        self._running: asyncio.Task[None]

    def begin(self) -> None:
        platform, site = self.platform, self.site
        projection = PROJECTIONS[self.projection]
        database = platform.databases[self.projection]
        store = CountingStore(
            projection, consumer_group=self.group, cluster_id=platform.kafka.cluster_id, database=database
        )
        store.refused = platform.refused[self.projection]
        store.watched_by(site.history, database)
        self.source = SimulatedSource(
            site,
            platform.kafka,
            platform.broker,
            self.fuse,
            group=self.group,
            topics=[TOPICS.of(category) for category in projection.categories],
        )
        self._stop = asyncio.Event()
        consumer = Consumer(
            self.projection,
            self.source,
            StoreClient(site, store, database, platform.database_server, fuse=self.fuse, name=self.name),
            SimulatedPublisher(site, platform.kafka, platform.broker, self.fuse, self.name),
            decode=decode,
            build_dead_letter=partial(dead_letter, topics=TOPICS, consumer_group=self.group),
            observer=SeenByObserver(),
            clock=VirtualClock(site.loop),
            limits=ConsumerLimits(fetch_wait=10.0, lag_interval=60.0),
            jitter=site.chaos.chance.uniform,
        )
        self._running = asyncio.create_task(self._supervised(consumer, self._stop))
        self._running.add_done_callback(self._ended)

    async def _supervised(self, consumer: Consumer, stop: asyncio.Event) -> None:
        """Run it; where it gives up, the process ends and is started anew."""
        try:
            await consumer.run(stop)
        except IngestError as failure:
            # Raised on purpose: a supervisor restarts it.
            self.site.history.tell(self.name, f"gives up: {failure!r}")
            self.crash()

    def _ended(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled() and (failure := running.exception()) is not None:
            self.site.history.overdue.append(f"{self.name} failed in a way nobody foresaw: {failure!r}")

    def end(self) -> None:
        """The group notices when the session has timed out."""
        source = self.source
        self.site.later(self.site.chaos.chance.uniform(0, 45), lambda: self.platform.kafka.leave(source))

    def freeze(self, seconds: float) -> None:
        """Without heartbeats its group goes on without it; it comes back when it hears of that."""
        super().freeze(seconds)
        if self.alive and seconds > SESSION_SECONDS and not self.source.zombie:
            self.site.later(SESSION_SECONDS, partial(self.platform.kafka.leave, self.source))
            self.lose_touch(seconds)

    def lose_touch(self, seconds: float) -> None:
        """Hear nothing of the group for a while, in which it may have dealt the partitions to others."""
        source, kafka = self.source, self.platform.kafka
        source.zombie = True

        def come_back() -> None:
            source.revive()
            if not self.stopping and self.source is source and self.alive:
                kafka.leave(source)
                kafka.join(source)

        self.site.later(seconds, come_back)

    async def finish(self) -> None:
        self._stop.set()
        self.site.disturb()
        self.source.interrupt()
        await asyncio.wait([self._running])
        await self.source.close()


def lives(
    processes: Sequence[_Process],
    site: Site,
    *,
    crash: Fault,
    restart: Fault,
    frozen: Fault,
    moments: Callable[[], float],
) -> Sequence[Awaitable[None]]:
    """What the seed has planned to befall some processes."""
    chance = site.chaos.chance
    planned: list[Awaitable[None]] = []
    for process in processes:
        if site.chaos.on(crash):
            planned += [_struck(process, site, crash, moments(), process.crash) for _ in range(chance.randint(1, 3))]
        if site.chaos.on(frozen):
            planned += [
                _struck(process, site, frozen, moments(), partial(process.freeze, _standstill(chance)))
                for _ in range(chance.randint(1, 3))
            ]
        if site.chaos.on(restart):
            planned.append(_restart(process, site, restart, moments()))
    return planned


def _standstill(chance: Random) -> float:
    return chance.choice((chance.uniform(0.1, 10), chance.uniform(10, FROZEN_SECONDS_MAX)))


async def _struck(process: _Process, site: Site, fault: Fault, moment: float, strike: Callable[[], None]) -> None:
    """At once, or in the middle of one of its next calls, where it hurts most."""
    chance = site.chaos.chance
    fate = chance.choice(tuple(Fate))
    calls = chance.randint(1, 4)
    at_once = chance.random() < 0.3
    await asyncio.sleep(moment)
    if not process.alive:
        return
    site.chaos.happened(fault)
    if at_once:
        strike()
    else:
        process.fuse.light(calls, fate, strike)


async def _restart(process: _Process, site: Site, fault: Fault, moment: float) -> None:
    await asyncio.sleep(moment)
    if process.alive:
        site.chaos.happened(fault)
        await process.restart(site.chaos.chance.uniform(0.1, 10))


def endpoint(name: str, mode: str) -> Endpoint:
    """An endpoint with a secret of its own."""
    return Endpoint(
        name=name,
        path=f"/webhooks/{name}",
        secrets=(Secret(f"whsec_{name}_of_the_simulation"),),
        mode="live" if mode == "live" else "test",
    )
