"""The layer in front of the dedupe store, with a store and a broker that fail on command."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.clock import SystemClock
from service.errors import (
    BrokerUnavailable,
    DedupeUnavailable,
    InFlight,
    Overloaded,
    PublishOutcomeUnknown,
    PublishRefused,
    RecordTooLarge,
    ShuttingDown,
)
from service.events import ClaimKey, ClaimState, DedupeMark, Position
from service.receiver.dedupe import Deduplicator, Finding, OnError, Operation
from tests.support.waiting import eventually

KEY = ClaimKey("event", "evt_1")
ELSEWHERE = "another process"
SOON = 5.0
"""Seconds that no wait of a working test comes near."""


@dataclass
class FaultyStore:
    """The memory store behind gates: per operation, calls are held until the gate opens, and then may fail."""

    inner: MemoryDedupeStore = field(
        default_factory=lambda: MemoryDedupeStore(SystemClock(), lease_seconds=60, max_entries=10_000)
    )
    failing: set[Operation] = field(default_factory=set)
    calls: list[tuple[Operation, list[ClaimKey]]] = field(default_factory=list)
    gates: dict[Operation, asyncio.Event] = field(default_factory=dict)
    owner: str | None = None
    bugs: dict[Operation, Exception] = field(default_factory=dict)
    mute: bool = False
    """Whether claims are made and nothing is said of them."""

    def hold(self, operation: Operation) -> asyncio.Event:
        return self.gates.setdefault(operation, asyncio.Event())

    async def _pass(self, operation: Operation, keys: Collection[ClaimKey]) -> None:
        self.calls.append((operation, list(keys)))
        if operation in self.gates:
            await self.gates[operation].wait()
        if operation in self.failing:
            raise DedupeUnavailable("scripted")
        if operation in self.bugs:
            raise self.bugs[operation]

    async def claim(self, keys: Collection[ClaimKey], *, owner: str) -> Mapping[ClaimKey, ClaimState]:
        self.owner = owner
        await self._pass("claim", keys)
        answers = await self.inner.claim(keys, owner=owner)
        return {} if self.mute else answers

    async def look(self, keys: Collection[ClaimKey]) -> Mapping[ClaimKey, ClaimState]:
        return await self.inner.look(keys)

    async def confirm(self, keys: Collection[ClaimKey]) -> None:
        await self._pass("confirm", keys)
        await self.inner.confirm(keys)

    async def release(self, keys: Collection[ClaimKey], *, owner: str) -> None:
        await self._pass("release", keys)
        await self.inner.release(keys, owner=owner)

    async def close(self) -> None:
        await self.inner.close()

    def called(self, operation: Operation) -> int:
        return sum(1 for called, _ in self.calls if called == operation)

    async def state(self, key: ClaimKey = KEY) -> ClaimState:
        """What another process would find; if that is NEW, it claims the key."""
        return (await self.inner.claim([key], owner=ELSEWHERE))[key]


@dataclass
class Broker:
    """Publishing that waits for its ack, and then gives it or raises what the script says."""

    failures: list[Exception] = field(default_factory=list)
    acks: asyncio.Event = field(default_factory=asyncio.Event)
    published: list[DedupeMark] = field(default_factory=list)
    acknowledged: int = 0

    async def publish(self, dedupe: DedupeMark) -> Position:
        self.published.append(dedupe)
        await self.acks.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.acknowledged += 1
        return Position("stripe.payments", 0, self.acknowledged)


@dataclass
class RecordingObserver:
    """Keeps what the metrics would count."""

    findings: Counter[Finding] = field(default_factory=Counter)
    bypasses: int = 0
    lost: int = 0
    trips: list[tuple[Operation, int, bool]] = field(default_factory=list)
    unforeseen_failures: list[tuple[Operation, Exception]] = field(default_factory=list)

    def found(self, finding: Finding) -> None:
        self.findings[finding] += 1

    def bypassed(self) -> None:
        self.bypasses += 1

    def round_trip(self, operation: Operation, *, keys: int, seconds: float, succeeded: bool) -> None:
        assert seconds >= 0
        self.trips.append((operation, keys, succeeded))

    def unforeseen(self, operation: Operation, error: Exception) -> None:
        self.unforeseen_failures.append((operation, error))

    def confirms_lost(self, count: int) -> None:
        self.lost += count


@dataclass
class World:
    """A deduplicator and everything around it."""

    store: FaultyStore
    broker: Broker
    observer: RecordingObserver
    deduplicator: Deduplicator

    async def deliver(self, key: ClaimKey = KEY, *, within: float = SOON) -> Position | None:
        deadline = asyncio.get_running_loop().time() + within
        return await self.deduplicator.run(key, self.broker.publish, deadline=deadline)


@asynccontextmanager
async def world(
    *, on_error: OnError = "publish", timeout_seconds: float = SOON, recent_max: int = 1000, flights_max: int = 1000
) -> AsyncIterator[World]:
    store, broker, observer = FaultyStore(), Broker(), RecordingObserver()
    broker.acks.set()
    deduplicator = Deduplicator(
        store,
        observer,
        on_error=on_error,
        timeout_seconds=timeout_seconds,
        recent_max=recent_max,
        confirms_max=1000,
        flights_max=flights_max,
    )
    yield World(store, broker, observer, deduplicator)
    broker.acks.set()
    for gate in store.gates.values():
        gate.set()
    await deduplicator.close(timeout_seconds=0)


async def until(condition: Callable[[], bool]) -> None:
    await eventually(condition, timeout_seconds=SOON, what="what the test waits for")


async def settled(store: FaultyStore, state: ClaimState, key: ClaimKey = KEY) -> None:
    """Wait until the store knows this of the key; asking changes nothing, unless it is NEW."""

    async def known() -> bool:
        return await store.state(key) is state

    await eventually(known, timeout_seconds=SOON, what=f"the key is {state}")


async def test_a_new_event_is_published_as_checked_and_confirmed() -> None:
    async with world() as w:
        assert await w.deliver() == Position("stripe.payments", 0, 1)

        assert w.broker.published == ["checked"]
        await settled(w.store, ClaimState.DONE)


async def test_the_answer_follows_the_ack_and_not_the_confirm() -> None:
    async with world() as w:
        w.store.hold("confirm")

        assert await w.deliver() is not None


async def test_there_is_no_answer_before_the_ack() -> None:
    async with world() as w:
        w.broker.acks.clear()
        delivery = asyncio.create_task(w.deliver())
        await until(lambda: w.broker.published == ["checked"])
        assert await w.store.state() is ClaimState.IN_FLIGHT
        assert not delivery.done()

        w.broker.acks.set()

        assert await delivery is not None


async def test_a_recently_published_event_is_a_duplicate_without_asking_the_store() -> None:
    async with world() as w:
        await w.deliver()
        asked = w.store.called("claim")

        assert await w.deliver() is None
        assert w.store.called("claim") == asked
        assert w.broker.published == ["checked"]
        assert w.observer.findings == {"new": 1, "recent": 1}


async def test_an_event_that_another_process_published_is_a_duplicate_and_then_a_recent_one() -> None:
    async with world() as w:
        await w.store.inner.confirm([KEY])

        assert await w.deliver() is None
        assert await w.deliver() is None
        assert w.broker.published == []
        assert w.observer.findings == {"done": 1, "recent": 1}


async def test_the_least_recently_seen_are_forgotten_beyond_the_bound_and_found_in_the_store() -> None:
    async with world(recent_max=2) as w:
        keys = [ClaimKey("event", f"evt_{n}") for n in range(3)]
        await w.deliver(keys[0])
        await w.deliver(keys[1])
        await w.deliver(keys[0])
        await w.deliver(keys[2])
        for key in keys:
            await settled(w.store, ClaimState.DONE, key)
        w.observer.findings.clear()

        assert [await w.deliver(key) for key in keys] == [None, None, None]
        assert w.observer.findings == {"recent": 1, "done": 2}
        assert len(w.broker.published) == 3


async def test_twenty_concurrent_deliveries_of_one_event_are_one_publish_and_no_answer_before_the_ack() -> None:
    async with world() as w:
        w.broker.acks.clear()
        deliveries = [asyncio.create_task(w.deliver()) for _ in range(20)]
        await until(lambda: w.observer.findings["joined"] == 19 and w.broker.published == ["checked"])
        assert not any(delivery.done() for delivery in deliveries)

        w.broker.acks.set()
        answers = await asyncio.gather(*deliveries)

        assert Counter(answers) == {Position("stripe.payments", 0, 1): 1, None: 19}
        assert w.broker.published == ["checked"]


@pytest.mark.parametrize(
    "failure",
    [BrokerUnavailable("away"), PublishRefused("no"), RecordTooLarge("no"), ShuttingDown("going")],
    ids=lambda failure: failure.tag,
)
async def test_after_a_definite_failure_the_claim_is_released_and_the_next_attempt_accepted(failure: Exception) -> None:
    async with world() as w:
        w.broker.failures = [failure]
        with pytest.raises(type(failure)):
            await w.deliver()

        assert await w.deliver() == Position("stripe.payments", 0, 1)
        assert w.store.called("release") == 1


async def test_after_a_definite_failure_another_process_can_claim_at_once() -> None:
    async with world() as w:
        w.broker.failures = [BrokerUnavailable("away")]
        with pytest.raises(BrokerUnavailable):
            await w.deliver()

        await until(lambda: w.store.called("release") == 1)
        assert await w.store.state() is ClaimState.NEW


@pytest.mark.parametrize("failure", [PublishOutcomeUnknown("late"), RuntimeError("a bug")], ids=["unknown", "a bug"])
async def test_after_an_unknown_outcome_the_claim_stays(failure: Exception) -> None:
    async with world() as w:
        w.broker.failures = [failure]
        with pytest.raises(type(failure)):
            await w.deliver()

        with pytest.raises(InFlight):
            await w.deliver(within=0.01)
        await w.deduplicator.close(timeout_seconds=SOON)
        assert w.store.called("release") == 0
        assert await w.store.state() is ClaimState.IN_FLIGHT


async def test_deliveries_that_waited_share_the_failure() -> None:
    async with world() as w:
        w.broker.acks.clear()
        w.broker.failures = [PublishOutcomeUnknown("late")]
        deliveries = [asyncio.create_task(w.deliver()) for _ in range(5)]
        await until(lambda: w.observer.findings["joined"] == 4)

        w.broker.acks.set()
        answers = await asyncio.gather(*deliveries, return_exceptions=True)

        assert [type(answer) for answer in answers] == [PublishOutcomeUnknown] * 5
        assert w.broker.published == ["checked"]


async def test_an_event_in_flight_elsewhere_is_asked_for_again_until_it_is_done() -> None:
    async with world() as w:
        await w.store.inner.claim([KEY], owner=ELSEWHERE)
        delivery = asyncio.create_task(w.deliver())
        await until(lambda: w.observer.findings["in_flight"] == 2)
        assert not delivery.done()

        await w.store.inner.confirm([KEY])

        assert await delivery is None
        assert w.broker.published == []


async def test_an_event_that_its_holder_gave_up_elsewhere_is_taken_over() -> None:
    async with world() as w:
        await w.store.inner.claim([KEY], owner=ELSEWHERE)
        delivery = asyncio.create_task(w.deliver())
        await until(lambda: w.observer.findings["in_flight"] == 1)

        await w.store.inner.release([KEY], owner=ELSEWHERE)

        assert await delivery == Position("stripe.payments", 0, 1)


async def test_an_event_in_flight_elsewhere_until_the_deadline_is_never_called_a_duplicate() -> None:
    async with world() as w:
        await w.store.inner.claim([KEY], owner=ELSEWHERE)

        with pytest.raises(InFlight):
            await w.deliver(within=0.01)
        assert w.broker.published == []
        await w.store.inner.release([KEY], owner=ELSEWHERE)
        assert await w.store.state() is ClaimState.NEW


async def test_a_delivery_with_budget_left_goes_on_where_the_first_one_had_to_give_up() -> None:
    async with world() as w:
        await w.store.inner.claim([KEY], owner=ELSEWHERE)
        first = asyncio.create_task(w.deliver(within=0.06))
        await until(lambda: w.observer.findings["in_flight"] == 1)
        second = asyncio.create_task(w.deliver())
        with pytest.raises(InFlight):
            await first

        await w.store.inner.release([KEY], owner=ELSEWHERE)

        assert await second == Position("stripe.payments", 0, 1)


async def test_at_the_deadline_the_first_delivery_says_unknown_and_one_that_waits_says_in_flight() -> None:
    async with world() as w:
        w.broker.acks.clear()
        first = asyncio.create_task(w.deliver(within=0.05))
        await until(lambda: w.broker.published == ["checked"])
        with pytest.raises(InFlight):
            await w.deliver(within=0.01)
        with pytest.raises(PublishOutcomeUnknown):
            await first


async def test_at_the_deadline_a_delivery_that_still_waits_for_the_store_says_in_flight() -> None:
    async with world() as w:
        w.store.hold("claim")

        with pytest.raises(InFlight):
            await w.deliver(within=0.01)


async def test_an_ack_that_is_too_late_for_every_answer_still_confirms() -> None:
    async with world() as w:
        w.broker.acks.clear()
        with pytest.raises(PublishOutcomeUnknown):
            await w.deliver(within=0.01)
        assert await w.store.state() is ClaimState.IN_FLIGHT

        w.broker.acks.set()

        await settled(w.store, ClaimState.DONE)
        assert await w.deliver() is None


async def test_an_ack_after_the_lease_ran_out_confirms_although_another_process_has_taken_over() -> None:
    async with world() as w:
        w.broker.acks.clear()
        delivery = asyncio.create_task(w.deliver())
        await until(lambda: w.broker.published == ["checked"])
        assert w.store.owner is not None
        await w.store.inner.release([KEY], owner=w.store.owner)
        assert await w.store.state() is ClaimState.NEW

        w.broker.acks.set()

        assert await delivery is not None
        await settled(w.store, ClaimState.DONE)


async def test_a_failure_after_the_lease_ran_out_does_not_release_the_new_holders_claim() -> None:
    async with world() as w:
        w.broker.acks.clear()
        w.broker.failures = [BrokerUnavailable("away")]
        delivery = asyncio.create_task(w.deliver())
        await until(lambda: w.broker.published == ["checked"])
        assert w.store.owner is not None
        await w.store.inner.release([KEY], owner=w.store.owner)
        assert await w.store.state() is ClaimState.NEW

        w.broker.acks.set()
        with pytest.raises(BrokerUnavailable):
            await delivery
        with pytest.raises(InFlight):
            await w.deliver(within=0.01)
        assert w.store.called("release") == 1
        assert await w.store.state() is ClaimState.IN_FLIGHT


async def test_a_client_that_goes_away_does_not_stop_the_publishing() -> None:
    async with world() as w:
        w.broker.acks.clear()
        first = asyncio.create_task(w.deliver())
        await until(lambda: w.broker.published == ["checked"])
        second = asyncio.create_task(w.deliver())
        await until(lambda: w.observer.findings["joined"] == 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

        w.broker.acks.set()

        assert await second is None
        assert w.broker.published == ["checked"]
        await settled(w.store, ClaimState.DONE)


async def test_a_client_that_goes_away_while_the_store_is_asked_does_not_stop_the_publishing() -> None:
    async with world() as w:
        gate = w.store.hold("claim")
        delivery = asyncio.create_task(w.deliver())
        await until(lambda: w.store.called("claim") == 1)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery

        gate.set()

        await until(lambda: w.broker.acknowledged == 1)
        await settled(w.store, ClaimState.DONE)


async def test_a_store_that_is_away_is_bypassed_and_the_record_says_so() -> None:
    async with world() as w:
        w.store.failing = {"claim"}

        assert await w.deliver() is not None
        assert w.broker.published == ["unchecked"]
        assert w.observer.bypasses == 1


async def test_single_flight_and_recent_ids_hold_while_the_store_is_away() -> None:
    async with world() as w:
        w.store.failing = {"claim", "confirm", "release"}
        answers = await asyncio.gather(*(w.deliver() for _ in range(20)))

        assert Counter(answer is None for answer in answers) == {True: 19, False: 1}
        assert await w.deliver() is None
        assert w.broker.published == ["unchecked"]


async def test_a_store_that_does_not_answer_in_time_is_bypassed() -> None:
    async with world(timeout_seconds=0.01) as w:
        w.store.hold("claim")

        assert await w.deliver() is not None
        assert w.broker.published == ["unchecked"]


async def test_where_the_store_is_mandatory_its_failure_refuses_the_event() -> None:
    async with world(on_error="refuse") as w:
        w.store.failing = {"claim"}

        with pytest.raises(DedupeUnavailable):
            await w.deliver()
        assert w.broker.published == []
        assert w.observer.bypasses == 0


async def test_a_claim_that_comes_through_after_it_was_refused_is_released() -> None:
    async with world(on_error="refuse", timeout_seconds=0.01) as w:
        gate = w.store.hold("claim")
        with pytest.raises(DedupeUnavailable):
            await w.deliver()

        gate.set()

        await until(lambda: w.store.called("release") == 1)
        assert await w.store.state() is ClaimState.NEW


async def test_a_claim_that_comes_through_after_its_unchecked_event_failed_is_released() -> None:
    async with world(timeout_seconds=0.01) as w:
        gate = w.store.hold("claim")
        w.broker.failures = [BrokerUnavailable("away")]
        with pytest.raises(BrokerUnavailable):
            await w.deliver()
        assert w.store.called("release") == 0

        gate.set()

        await until(lambda: w.store.called("release") == 1)
        assert await w.store.state() is ClaimState.NEW


async def test_an_event_that_may_be_in_the_log_stays_leased_whatever_becomes_of_the_next_delivery() -> None:
    async with world() as w:
        w.broker.failures = [PublishOutcomeUnknown("no answer"), BrokerUnavailable("away")]
        with pytest.raises(PublishOutcomeUnknown):
            await w.deliver()
        w.store.failing = {"claim"}
        with pytest.raises(BrokerUnavailable):
            await w.deliver()
        w.store.failing = set()
        await w.deduplicator.close(timeout_seconds=SOON)

        assert await w.store.state() is ClaimState.IN_FLIGHT


async def test_a_release_that_comes_after_its_lease_leaves_the_next_flights_claim_alone() -> None:
    async with world() as w:
        w.broker.failures = [BrokerUnavailable("away")]
        w.store.failing = {"release"}
        with pytest.raises(BrokerUnavailable):
            await w.deliver()
        first = w.store.owner
        assert first is not None
        await until(lambda: w.store.called("release") == 1)
        # As if the lease had run out.
        await w.store.inner.release([KEY], owner=first)
        w.broker.acks.clear()
        delivery = asyncio.create_task(w.deliver())
        await until(lambda: w.broker.published == ["checked"] * 2)

        await w.store.inner.release([KEY], owner=first)

        assert await w.store.state() is ClaimState.IN_FLIGHT
        w.broker.acks.set()
        await delivery


async def test_a_claim_that_comes_through_after_its_event_was_published_unchecked_is_confirmed() -> None:
    async with world(timeout_seconds=0.01) as w:
        claiming = w.store.hold("claim")
        confirming = w.store.hold("confirm")
        await w.deliver()
        claiming.set()
        await until(lambda: ("claim", 1, True) in w.observer.trips)
        assert await w.store.state() is ClaimState.IN_FLIGHT

        confirming.set()

        await settled(w.store, ClaimState.DONE)


async def test_a_question_that_was_never_sent_is_withdrawn() -> None:
    async with world(timeout_seconds=0.01) as w:
        gate = w.store.hold("claim")
        stuck = asyncio.create_task(w.deliver(ClaimKey("event", "evt_0")))
        await until(lambda: w.store.called("claim") == 1)
        await w.deliver()
        await stuck

        gate.set()

        await until(lambda: w.observer.trips.count(("claim", 1, True)) == 1)
        await settled(w.store, ClaimState.DONE)
        assert [keys for operation, keys in w.store.calls if operation == "claim"] == [[ClaimKey("event", "evt_0")]]


async def test_a_new_delivery_waits_until_a_failed_one_is_cleared_away() -> None:
    async with world() as w:
        gate = w.store.hold("release")
        w.broker.failures = [BrokerUnavailable("away")]
        with pytest.raises(BrokerUnavailable):
            await w.deliver()
        second = asyncio.create_task(w.deliver())
        await until(lambda: w.store.called("release") == 1 and w.observer.findings["joined"] == 1)
        with pytest.raises(InFlight):
            await w.deliver(within=0.01)
        assert w.broker.published == ["checked"]

        gate.set()

        assert await second == Position("stripe.payments", 0, 1)


async def test_a_release_that_fails_leaves_the_lease_to_run_out() -> None:
    async with world() as w:
        w.store.failing = {"release"}
        w.broker.failures = [BrokerUnavailable("away")]
        with pytest.raises(BrokerUnavailable):
            await w.deliver()

        with pytest.raises(InFlight):
            await w.deliver(within=0.01)


async def test_claims_that_come_while_a_round_trip_is_under_way_share_the_next_one_sorted_and_unique() -> None:
    async with world() as w:
        gate = w.store.hold("claim")
        deliveries = [asyncio.create_task(w.deliver(ClaimKey("event", "evt_0")))]
        await until(lambda: w.store.called("claim") == 1)
        deliveries += [asyncio.create_task(w.deliver(ClaimKey("event", f"evt_{n}"))) for n in (3, 1, 2, 1)]
        await until(lambda: w.observer.findings["joined"] == 1)

        gate.set()
        await asyncio.gather(*deliveries)

        asked = [[key.id for key in keys] for operation, keys in w.store.calls if operation == "claim"]
        assert asked == [["evt_0"], ["evt_1", "evt_2", "evt_3"]]


async def test_confirms_are_batched_and_wait_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.receiver.dedupe.CONFIRM_RETRY_SECONDS_FIRST", 0.001)
    async with world() as w:
        w.store.failing = {"confirm"}
        await asyncio.gather(*(w.deliver(ClaimKey("event", f"evt_{n}")) for n in range(10)))
        await until(lambda: ("confirm", 10, False) in w.observer.trips)

        w.store.failing = set()

        for n in range(10):
            await settled(w.store, ClaimState.DONE, ClaimKey("event", f"evt_{n}"))
        assert w.observer.lost == 0


async def test_confirms_beyond_the_bound_are_lost_and_counted_and_the_newest_kept() -> None:
    store, observer, broker = FaultyStore(), RecordingObserver(), Broker()
    broker.acks.set()
    gate = store.hold("confirm")
    deduplicator = Deduplicator(store, observer, confirms_max=3, timeout_seconds=SOON)
    w = World(store, broker, observer, deduplicator)
    for n in range(5):
        await w.deliver(ClaimKey("event", f"evt_{n}"))
    assert observer.lost == 2

    gate.set()
    await deduplicator.close(timeout_seconds=SOON)

    states = [await store.state(ClaimKey("event", f"evt_{n}")) for n in (1, 2, 3, 4)]
    assert states == [ClaimState.IN_FLIGHT, ClaimState.DONE, ClaimState.DONE, ClaimState.DONE]
    assert observer.lost == 2


async def test_closing_lets_flights_land_and_confirms_get_through() -> None:
    async with world() as w:
        w.broker.acks.clear()
        confirming = w.store.hold("confirm")
        delivery = asyncio.create_task(w.deliver())
        await until(lambda: w.broker.published == ["checked"])
        closing = asyncio.create_task(w.deduplicator.close(timeout_seconds=SOON))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await w.deliver(ClaimKey("event", "evt_2"))
        assert not closing.done()

        w.broker.acks.set()
        assert await delivery is not None
        confirming.set()
        await closing

        assert await w.store.state() is ClaimState.DONE
        assert w.observer.lost == 0


async def test_closing_is_bounded_whatever_hangs() -> None:
    async with world() as w:
        w.store.hold("confirm")
        await w.deliver()
        w.broker.acks.clear()
        stuck = asyncio.create_task(w.deliver(ClaimKey("event", "evt_2"), within=10 * SOON))
        await until(lambda: len(w.broker.published) == 2)

        async with asyncio.timeout(SOON):
            await w.deduplicator.close(timeout_seconds=0.01)
            with pytest.raises(PublishOutcomeUnknown):
                await stuck
        assert w.observer.lost == 1


async def test_more_flights_than_the_bound_are_refused_and_those_that_can_join_are_not() -> None:
    async with world(flights_max=1) as w:
        w.broker.acks.clear()
        first = asyncio.create_task(w.deliver())
        await until(lambda: w.broker.published == ["checked"])
        joining = asyncio.create_task(w.deliver())
        with pytest.raises(Overloaded):
            await w.deliver(ClaimKey("event", "evt_2"))

        w.broker.acks.set()

        assert await first is not None
        assert await joining is None
        assert await w.deliver(ClaimKey("event", "evt_2")) is not None


async def test_a_crash_between_claim_and_publish_lets_the_event_in_again_after_the_lease() -> None:
    async with world() as w:
        await w.store.inner.claim([KEY], owner="a process that was killed")
        delivery = asyncio.create_task(w.deliver())
        await until(lambda: w.observer.findings["in_flight"] == 1)
        w.store.inner._leases.clear()

        assert await delivery == Position("stripe.payments", 0, 1)


async def test_a_store_call_that_hangs_is_cut_off_and_the_next_one_gets_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.receiver.dedupe.ROUND_TRIP_SECONDS_MAX", 0.02)
    async with world(timeout_seconds=SOON) as w:
        w.store.hold("claim")
        assert await w.deliver() is not None
        assert w.broker.published == ["unchecked"]
        assert ("claim", 1, False) in w.observer.trips

        w.store.gates.clear()

        assert await w.deliver(ClaimKey("event", "evt_2")) is not None
        assert w.broker.published == ["unchecked", "checked"]


@pytest.mark.parametrize("failure", [RuntimeError("planted detail"), KeyError("a key"), TypeError()], ids=repr)
async def test_a_bug_in_the_store_is_taken_for_a_store_that_is_away(failure: Exception) -> None:
    async with world() as w:
        w.store.bugs["claim"] = failure

        assert await w.deliver() is not None
        assert w.broker.published == ["unchecked"]
        assert w.observer.bypasses == 1
        assert w.observer.unforeseen_failures == [("claim", failure)]

    async with world(on_error="refuse") as w:
        w.store.bugs["claim"] = failure

        with pytest.raises(DedupeUnavailable) as refused:
            await w.deliver()

        assert "planted" not in str(refused.value)
        assert w.broker.published == []
        del w.store.bugs["claim"]
        assert await w.deliver() is not None


async def test_a_store_that_does_not_answer_for_every_key_is_taken_for_one_that_is_away() -> None:
    async with world() as w:
        w.store.mute = True

        assert await w.deliver() is not None
        assert w.broker.published == ["unchecked"]
        assert [operation for operation, _ in w.observer.unforeseen_failures] == ["claim"]


async def test_confirms_and_releases_survive_a_bug_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.receiver.dedupe.CONFIRM_RETRY_SECONDS_FIRST", 0.001)
    async with world() as w:
        w.store.bugs = {"confirm": RuntimeError("a bug"), "release": RuntimeError("a bug")}
        w.broker.failures = [BrokerUnavailable("away")]

        with pytest.raises(BrokerUnavailable):
            await w.deliver(ClaimKey("event", "evt_2"))
        await w.deliver()
        await until(lambda: {operation for operation, _ in w.observer.unforeseen_failures} == {"confirm", "release"})

        w.store.bugs = {}
        await settled(w.store, ClaimState.DONE)
