"""Publish an event once: the claim around `publish`, and single flight within the process.

    run ─▶ recently done? ───────────────────────────────────────────────────▶ duplicate
        │          in flight here? ── wait for that flight's outcome ────────▶ duplicate, or its failure
        └▶ a new flight: claim ─▶ DONE ──────────────────────────────────────▶ duplicate
                           ├─▶ IN_FLIGHT elsewhere: ask again ── budget over ─▶ InFlight
                           ├─▶ store down or slow: unchecked, or refused ────▶ DedupeUnavailable
                           └─▶ NEW ─▶ publish ─▶ ack ─▶ (confirm) ───────────▶ position
                                         ├▶ definitely not published ─▶ (release) ─▶ the failure
                                         └▶ outcome unknown: the lease runs out by itself ─▶ the failure

A flight is a task of its own. A client that goes away, or whose budget ends, leaves it flying: the record may be on
its way to the log, and only the flight can still confirm or release the claim. Each round trip of claims has an owner
token of its own: a release may reach the store so late that the lease has run out and a later flight, of this process
or of another, has claimed the key.

Nothing here can lose an event. "Duplicate" is only said after an ack; every way of forgetting (a lost confirm, a full
queue, a store that is away) costs a second record, which the projections' ledgers absorb.
"""

import asyncio
import secrets
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from service.errors import (
    DedupeUnavailable,
    InFlight,
    Overloaded,
    PublishOutcomeUnknown,
    PublishRefused,
    ShuttingDown,
    Unavailable,
)
from service.events import ClaimKey, ClaimState, DedupeMark, Position
from service.ports import DedupeStore

OnError: TypeAlias = Literal["publish", "refuse"]
"""What to do with an event while the store is away: publish it unchecked, or have Stripe send it again."""

Publish: TypeAlias = Callable[[DedupeMark], Awaitable[Position]]
"""Publish the record with this `dedupe` header and return once it is acknowledged.

Its deadline is its own: at most the lease's length from now, and best a little beyond that of the answer, so that an
ack which is too late for the answer still confirms the claim. Raises what `Publisher.publish` raises.
"""

Operation: TypeAlias = Literal["claim", "look", "confirm", "release"]
Finding: TypeAlias = Literal["new", "done", "in_flight", "recent", "joined"]
"""What a delivery met: a state of the store, a recently done id, or a flight of the same key in this process."""

BATCH_KEYS_MAX: Final = 500
ROUND_TRIP_SECONDS_MAX: Final = 2.0
"""After this long a call to the store counts as failed. Far below the lease: no late release meets a later owner."""
POLL_SECONDS_FIRST: Final = 0.05
POLL_SECONDS_MAX: Final = 0.8
CONFIRM_RETRY_SECONDS_FIRST: Final = 0.1
CONFIRM_RETRY_SECONDS_MAX: Final = 5.0

R = TypeVar("R")


class DedupeObserver(Protocol):
    """What the metrics want to know."""

    def found(self, finding: Finding) -> None:
        """One delivery, or one more question of a waiting one, met this."""
        ...

    def bypassed(self) -> None:
        """An event is published unchecked, because the store did not answer in time."""
        ...

    def round_trip(self, operation: Operation, *, keys: int, seconds: float, succeeded: bool) -> None:
        """One call to the store for `keys` keys."""
        ...

    def unforeseen(self, operation: Operation, error: Exception) -> None:
        """A call to the store failed in a way nobody foresaw; it counts as a store that is away."""
        ...

    def confirms_lost(self, count: int) -> None:
        """So many confirms were given up: their events may be published again if they are resent."""
        ...


class Deduplicator:
    """The layer in front of a dedupe store, for one process and one event loop.

    `timeout_seconds` is what a delivery gives the store before `on_error` decides; `recent_max`, `confirms_max` and
    `flights_max` bound, in keys, what is remembered, what waits for its confirm, and what flies. All deadlines are on
    the event loop's clock.
    """

    def __init__(
        self,
        store: DedupeStore,
        observer: DedupeObserver,
        *,
        on_error: OnError = "publish",
        timeout_seconds: float = 0.1,
        recent_max: int = 100_000,
        confirms_max: int = 100_000,
        flights_max: int = 10_000,
    ) -> None:
        self._store = store
        self._observer = observer
        self._on_error = on_error
        self._timeout_seconds = timeout_seconds
        self._recent_max = recent_max
        self._flights_max = flights_max
        self._recent: OrderedDict[ClaimKey, None] = OrderedDict()
        self._flights: dict[ClaimKey, _Flight] = {}
        self._closing = False
        process, numbers = secrets.token_hex(8), count()
        self._releasing: dict[ClaimKey, str] = {}
        """Whose the claims are that are to be released."""

        async def claim(keys: Sequence[ClaimKey]) -> Mapping[ClaimKey, _Claim]:
            owner = f"{process}-{next(numbers)}"
            states = await store.claim(keys, owner=owner)
            return {key: _Claim(state, owner) for key, state in states.items()}

        async def release(keys: Sequence[ClaimKey]) -> Mapping[ClaimKey, None]:
            by_owner: defaultdict[str, list[ClaimKey]] = defaultdict(list)
            for key in keys:
                by_owner[self._releasing.pop(key)].append(key)
            for owner, its in by_owner.items():
                await store.release(its, owner=owner)
            return dict.fromkeys(keys)

        self._claims = _Lane("claim", claim, observer)
        self._releases = _Lane("release", release, observer)
        self._confirms = _Confirms(store, observer, confirms_max)

    async def run(self, key: ClaimKey, publish: Publish, *, deadline: float) -> Position | None:
        """Publish under a claim on `key`; return the record's position, or None where it was acknowledged before.

        Returns only after an ack, this call's or an earlier one's. Raises what `publish` raises, and `InFlight` when
        the outcome of another delivery of the event is still unknown at `deadline`, `PublishOutcomeUnknown` when this
        one's is, `DedupeUnavailable` while the store is away and `on_error` is "refuse", `Overloaded`, `ShuttingDown`.
        Cancelling the call leaves the publishing under way.
        """
        while not self._is_recent(key):
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, publish, deadline)
            self._observer.found("joined")
            if await self._follow(flight, deadline):
                return None
        self._observer.found("recent")
        return None

    async def look(self, keys: Sequence[ClaimKey]) -> Mapping[ClaimKey, ClaimState]:
        """What the store knows of the keys, claiming nothing. Raises `DedupeUnavailable`."""
        return await _round_trip("look", keys, self._store.look(keys), self._observer)

    async def close(self, *, timeout_seconds: float) -> None:
        """Take no new events, let flights land and confirms get through; after `timeout_seconds` drop what is left.

        The store is the caller's, and still open afterwards.
        """
        self._closing = True
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        landing = [flight.task for flight in self._flights.values()]
        await _wait(landing, until=deadline)
        await _cancel(landing)
        await self._confirms.close(deadline)
        await self._claims.close()
        await self._releases.close()

    async def _lead(self, key: ClaimKey, publish: Publish, deadline: float) -> Position | None:
        if self._closing:
            raise ShuttingDown("the receiver is shutting down")
        if len(self._flights) >= self._flights_max:
            raise Overloaded("too many events wait for their outcome")
        flight = self._flights[key] = _Flight(lambda flight: self._fly(key, flight, publish, deadline))
        # The first callback of the task: whoever waits for its end finds the key free.
        flight.task.add_done_callback(lambda _: self._ended(key, flight))
        await _wait([flight.outcome], until=deadline)
        if flight.outcome.done():
            return flight.outcome.result()
        if flight.publishing:
            raise PublishOutcomeUnknown("the broker has not acknowledged the record in time")
        raise InFlight("another delivery of this event is being published")

    async def _follow(self, flight: "_Flight", deadline: float) -> bool:
        """Share another delivery's flight: true after its ack, false when the key is free for a flight of our own."""
        if not flight.outcome.done():
            await _wait([flight.outcome], until=deadline)
            if not flight.outcome.done():
                raise InFlight("another delivery of this event is being published")
            failure = flight.outcome.exception()
            if failure is None:
                return True
            if not isinstance(failure, InFlight):
                raise failure
        # It failed before we came, or because its own time was over and not ours: it is only tidying up now.
        await _wait([flight.task], until=deadline)
        if not flight.task.done():
            raise InFlight("an earlier delivery of this event is being cleared away")
        return False

    async def _fly(self, key: ClaimKey, flight: "_Flight", publish: Publish, deadline: float) -> None:
        try:
            flight.land(await self._publish_claimed(key, flight, publish, deadline))
        except Exception as failure:  # noqa: BLE001 - every waiting delivery raises it
            flight.fail(failure)
            if _certainly_not_published(failure):
                await self._release(key, flight)

    def _ended(self, key: ClaimKey, flight: "_Flight") -> None:
        del self._flights[key]
        if not flight.outcome.done():
            flight.fail(PublishOutcomeUnknown("the publishing was cut off"))

    async def _publish_claimed(
        self, key: ClaimKey, flight: "_Flight", publish: Publish, deadline: float
    ) -> Position | None:
        checked = await self._claim(key, flight, deadline)
        if checked is None:
            self._remember(key)
            return None
        flight.publishing = True
        position = await publish(checked)
        self._remember(key)
        self._confirms.add(key)
        return position

    async def _claim(self, key: ClaimKey, flight: "_Flight", deadline: float) -> DedupeMark | None:
        """Get the right to publish; None where the event is published."""
        loop = asyncio.get_running_loop()
        delay = POLL_SECONDS_FIRST
        while True:
            try:
                state = (await self._ask(key, flight)).state
            except DedupeUnavailable:
                if self._on_error == "refuse":
                    raise
                self._observer.bypassed()
                return "unchecked"
            self._observer.found(state.value)
            match state:
                case ClaimState.NEW:
                    return "checked"
                case ClaimState.DONE:
                    return None
                case ClaimState.IN_FLIGHT:
                    if loop.time() + delay >= deadline:
                        raise InFlight("another delivery of this event is being published")
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, POLL_SECONDS_MAX)

    async def _ask(self, key: ClaimKey, flight: "_Flight") -> "_Claim":
        flight.claim = claim = self._claims.ask(key)
        await _wait([claim], until=asyncio.get_running_loop().time() + self._timeout_seconds)
        if not claim.done():
            self._claims.withdraw(key)
            raise DedupeUnavailable("the dedupe store has not answered in time")
        return claim.result()

    async def _release(self, key: ClaimKey, flight: "_Flight") -> None:
        """Give the claim back, so that Stripe's next attempt need not wait for the lease to run out."""
        claim = flight.claim
        # One that we gave up waiting for may reach the store yet; a release that overtook it would release nothing.
        await asyncio.wait([claim])
        if claim.cancelled() or claim.exception() is not None:
            # It may have been made all the same, and then runs out by itself.
            return
        if claim.result().state is ClaimState.NEW:
            self._releasing[key] = claim.result().owner
            await asyncio.wait([self._releases.ask(key)])

    def _is_recent(self, key: ClaimKey) -> bool:
        if key not in self._recent:
            return False
        self._recent.move_to_end(key)
        return True

    def _remember(self, key: ClaimKey) -> None:
        self._recent[key] = None
        if len(self._recent) > self._recent_max:
            self._recent.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What the store said to a claim, and the token it was made with."""

    state: ClaimState
    owner: str


class _Flight:
    """The publishing of one event: a task, and its outcome for every delivery that waits for it.

    The outcome comes before the task's end, which is when a claim that must be released has been.
    """

    def __init__(self, fly: Callable[["_Flight"], Coroutine[None, None, None]]) -> None:
        loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Position | None] = loop.create_future()
        self.claim: asyncio.Future[_Claim] = loop.create_future()
        """The latest question to the store. Cancelled when it was never sent."""
        self.claim.cancel()
        self.publishing = False
        self.task = loop.create_task(fly(self))

    def land(self, position: Position | None) -> None:
        self.outcome.set_result(position)

    def fail(self, failure: Exception) -> None:
        self.outcome.set_exception(failure)
        # Read once, or asyncio complains of it where every delivery has gone away.
        self.outcome.exception()


class _Lane(Generic[R]):
    """One kind of call to the store, one round trip at a time: keys that come meanwhile go together in the next."""

    def __init__(
        self,
        operation: Operation,
        call: Callable[[Sequence[ClaimKey]], Awaitable[Mapping[ClaimKey, R]]],
        observer: DedupeObserver,
    ) -> None:
        self._operation = operation
        self._call = call
        self._observer = observer
        self._waiting: dict[ClaimKey, asyncio.Future[R]] = {}
        self._task: asyncio.Task[None] | None = None

    def ask(self, key: ClaimKey) -> asyncio.Future[R]:
        """Put a key into the next round trip; a key has at most one question waiting."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._waiting[key] = answer
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return answer

    def withdraw(self, key: ClaimKey) -> None:
        """Cancel a question that has not been sent; one that was gets its answer."""
        answer = self._waiting.pop(key, None)
        if answer is not None:
            answer.cancel()

    async def close(self) -> None:
        """Cut off what is under way."""
        if self._task is not None:
            await _cancel([self._task])

    async def _run(self) -> None:
        while self._waiting:
            batch = dict(islice(self._waiting.items(), BATCH_KEYS_MAX))
            for key in batch:
                del self._waiting[key]
            await self._send(batch)

    async def _send(self, batch: Mapping[ClaimKey, asyncio.Future[R]]) -> None:
        keys = sorted(batch)
        try:
            results = await _round_trip(self._operation, keys, self._results(keys), self._observer)
        except DedupeUnavailable as failure:
            for answer in batch.values():
                answer.set_exception(failure)
                answer.exception()
        else:
            for key, result in zip(keys, results, strict=True):
                batch[key].set_result(result)

    async def _results(self, keys: Sequence[ClaimKey]) -> Sequence[R]:
        answers = await self._call(keys)
        return [answers[key] for key in keys]


class _Confirms:
    """Keys that the store is still to be told are done: in the background, in batches, until it takes them."""

    def __init__(self, store: DedupeStore, observer: DedupeObserver, keys_max: int) -> None:
        self._store = store
        self._observer = observer
        self._keys_max = keys_max
        self._waiting: OrderedDict[ClaimKey, None] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def add(self, key: ClaimKey) -> None:
        """Have the key confirmed soon; the oldest one is dropped where too many wait."""
        self._waiting[key] = None
        if len(self._waiting) > self._keys_max:
            self._waiting.popitem(last=False)
            self._observer.confirms_lost(1)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self, deadline: float) -> None:
        """Wait until all are confirmed, at most until the deadline; drop the rest."""
        if self._task is not None:
            await _wait([self._task], until=deadline)
            await _cancel([self._task])
        if self._waiting:
            self._observer.confirms_lost(len(self._waiting))
            self._waiting.clear()

    async def _run(self) -> None:
        delay = CONFIRM_RETRY_SECONDS_FIRST
        while self._waiting:
            keys = sorted(islice(self._waiting, BATCH_KEYS_MAX))
            try:
                await _round_trip("confirm", keys, self._store.confirm(keys), self._observer)
            except DedupeUnavailable:
                await asyncio.sleep(delay)
                delay = min(2 * delay, CONFIRM_RETRY_SECONDS_MAX)
            else:
                delay = CONFIRM_RETRY_SECONDS_FIRST
                for key in keys:
                    self._waiting.pop(key, None)


async def _round_trip(
    operation: Operation, keys: Sequence[ClaimKey], call: Awaitable[R], observer: DedupeObserver
) -> R:
    """One call to the store. Raises `DedupeUnavailable`, whatever went wrong: `on_error` is for a driver's bugs too."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    succeeded = False
    try:
        async with asyncio.timeout(ROUND_TRIP_SECONDS_MAX):
            answer = await call
        succeeded = True
    except TimeoutError as error:
        raise DedupeUnavailable("the dedupe store has not answered in time") from error
    except DedupeUnavailable:
        raise
    except Exception as error:
        observer.unforeseen(operation, error)
        raise DedupeUnavailable("the dedupe store failed in a way nobody foresaw") from error
    finally:
        observer.round_trip(operation, keys=len(keys), seconds=loop.time() - started, succeeded=succeeded)
    return answer


def _certainly_not_published(failure: Exception) -> bool:
    return isinstance(failure, (Unavailable, PublishRefused)) and not isinstance(failure, PublishOutcomeUnknown)


async def _wait(futures: Sequence[asyncio.Future[R]], *, until: float) -> None:
    """Wait for all of them or for the deadline, and cancel none of them."""
    if futures:
        await asyncio.wait(futures, timeout=max(0.0, until - asyncio.get_running_loop().time()))


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
