"""Redriving on a cluster in memory: what is selected, where it goes, and that doing it again changes nothing."""

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.adapters.memory_kafka import MemoryKafka, MemoryPublisher, MemoryRecordLog
from service.clock import SystemClock
from service.contract import Event
from service.errors import BrokerUnavailable, IngestError, PublishOutcomeUnknown, PublishRefused, RecordTooLarge
from service.events import (
    ClaimKey,
    ConsumedEvent,
    ConsumedRecord,
    Endpoint,
    InvalidRecord,
    Partition,
    Quarantined,
    Record,
    Secret,
    TrustedEvent,
)
from service.receiver.dedupe import Deduplicator
from service.receiver.ingest import Ingest, take
from service.records import Topics, dead_letter, decode, decode_for, encode, marked, read_dead_letter, replayed
from service.recovery import redrive as module
from service.recovery.redrive import (
    Bodies,
    Outcome,
    Parked,
    PlanBodies,
    PlanDeadLetters,
    Redriven,
    ReplayBodies,
    ReplayDeadLetters,
    Selection,
    Step,
    dead_letter_of,
    quarantined,
    redrive,
    search,
)
from service.redaction import Redaction, RedactionKeys, Sealing, parse_paths
from service.telemetry.metrics import ReceiverMetrics
from service.telemetry.observers import DedupeMetricsObserver
from tests.contracts.projection_store import event, intent
from tests.support.waiting import eventually

TOPICS = Topics("stripe")
PAYMENTS = TOPICS.of("payment")
GROUP, OTHER_GROUP = TOPICS.group("payments"), TOPICS.group("refunds")
READERS = {GROUP: {PAYMENTS, TOPICS.of("refund")}, OTHER_GROUP: {TOPICS.of("refund")}}
LIVE = Endpoint(name="live", path="/webhooks/live", secrets=(Secret("whsec_x"),), mode="live")
TEST = Endpoint(name="test", path="/webhooks/test", secrets=(Secret("whsec_y"),), mode="test")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ALL = Selection()
KEY = base64.b64encode(bytes(range(32))).decode()


@dataclass
class SetClock:
    """The broker's clock."""

    time: datetime = NOON

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0


@dataclass
class World:
    """A cluster, what is needed to publish to it, and a run of redriving."""

    clock: SetClock = field(default_factory=SetClock)
    redaction: Redaction | None = None
    told: list[Redriven] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kafka = MemoryKafka(self.clock)
        for name in (*TOPICS.data, TOPICS.quarantine, TOPICS.dead_letter):
            self.kafka.create_topic(name, partitions=2)
        self.publisher = MemoryPublisher(self.kafka)
        self.log = MemoryRecordLog(self.kafka)
        self.store = MemoryDedupeStore(SystemClock(), max_entries=1_000)
        self.stop = asyncio.Event()

    @property
    def ingest(self) -> Ingest:
        """What a process has of its own: a new one each time."""
        observer = DedupeMetricsObserver(ReceiverMetrics(CollectorRegistry()))
        return Ingest(
            publisher=self.publisher,
            deduplicator=Deduplicator(self.store, observer, on_error="refuse", timeout_seconds=2),
            clock=SystemClock(),
            topics=TOPICS,
            include_raw=True,
            tolerance_seconds=300,
            redaction=self.redaction,
        )

    async def run(self, topic: str, step: Step, selection: Selection = ALL) -> list[Outcome]:
        """What became of each record, in the order in which that was told."""
        describe = dead_letter_of if topic == TOPICS.dead_letter else quarantined
        found = await search(self.log, topic, describe, selection)
        begun = len(self.told)
        await redrive(found.found(), step, self.told.append, self.stop, jitter=lambda *_: 0.0)
        return [redriven.outcome for redriven in self.told[begun:]]

    async def replay_letters(self, **chosen: Any) -> list[Outcome]:
        return await self.run(TOPICS.dead_letter, ReplayDeadLetters(READERS, self.publisher), Selection(**chosen))

    async def replay_bodies(
        self, *endpoints: Endpoint, named: Endpoint | None = None, sealing: Sealing | None = None, **chosen: Any
    ) -> list[Outcome]:
        bodies = Bodies({endpoint.name: endpoint for endpoint in endpoints or (LIVE, TEST)}, named, sealing)
        return await self.run(TOPICS.quarantine, ReplayBodies(bodies, self.ingest), Selection(**chosen))

    def bury(
        self, given: Event, *, group: str = GROUP, offset: int = 0, reason: str = "schema_mismatch", times: int = 1
    ) -> Record:
        """Dead-letter an event's record; the record."""
        record = encoded(given)
        origin = ConsumedRecord(Partition(record.topic, 1), offset, record.key, record.value, record.headers, 0)
        for _ in range(times):
            self.kafka.append(dead_letter(InvalidRecord(origin, reason, "$.data"), topics=TOPICS, consumer_group=group))
        return record

    async def deliver(self, tree: object, to: Endpoint) -> None:
        """Take a body as it comes from Stripe."""
        body = tree if isinstance(tree, bytes) else orjson.dumps(tree)
        taken = await take(TrustedEvent(to, body, NOON), "webhook", self.ingest, deadline=in_seconds(2))
        assert isinstance(taken.outcome, Quarantined)


def in_seconds(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def encoded(given: Event) -> Record:
    record = encode(given, topics=TOPICS, ingest_source="webhook", include_raw=False, traceparent="00-1-1-01")
    return marked(record, "checked")


def payment(number: int, **fields: Any) -> Event:
    return replace(event(f"evt_{number}", intent(number), at=number), **fields)


def body(event_id: str, *, amount: object = 100, event_type: str = "payment_intent.succeeded", **more: Any) -> Any:
    stripe_object = {"id": "pi_1", "object": "payment_intent", "amount": amount, "currency": "eur"}
    return {
        "id": event_id, "object": "event", "type": event_type, "created": 1_763_700_000, "livemode": True,
        "data": {"object": stripe_object}, **more,
    }  # fmt: skip


@pytest.fixture
async def world() -> World:
    return World()


async def found(world: World, topic: str, **chosen: Any) -> list[Parked]:
    describe = dead_letter_of if topic == TOPICS.dead_letter else quarantined
    looked = await search(world.log, topic, describe, Selection(**chosen))
    return [parked async for parked in looked.found()]


async def ids(world: World, topic: str, **chosen: Any) -> set[str]:
    return {parked.id for parked in await found(world, topic, **chosen)}


# --- the selection ---------------------------------------------------------------------------------------------------


async def test_dead_letters_are_selected_by_what_their_headers_say(world: World) -> None:
    world.bury(payment(1, event_type="charge.failed", endpoint="one"), offset=10)
    world.bury(payment(2, event_type="charge.succeeded"), offset=11, reason="row_refused")
    world.bury(payment(3, event_type="payment_intent.created"), offset=12, group=OTHER_GROUP)
    letters = TOPICS.dead_letter

    assert await ids(world, letters) == {"evt_1", "evt_2", "evt_3"}
    assert await ids(world, letters, ids={"evt_1", "evt_3"}) == {"evt_1", "evt_3"}
    assert await ids(world, letters, ids={"pi_2"}) == {"evt_2"}
    assert await ids(world, letters, ids={f"{GROUP}/{PAYMENTS}/1/11"}) == {"evt_2"}
    assert await ids(world, letters, ids={f"{OTHER_GROUP}/{PAYMENTS}/1/11"}) == set()
    assert await ids(world, letters, ids={f"{PAYMENTS}/1/12"}) == {"evt_3"}
    assert await ids(world, letters, event_types=("charge.*",)) == {"evt_1", "evt_2"}
    assert await ids(world, letters, event_types=("charge.failed", "payment_intent.created")) == {"evt_1", "evt_3"}
    assert await ids(world, letters, event_types=("charge",)) == set()
    assert await ids(world, letters, endpoints={"one"}) == {"evt_1"}
    assert await ids(world, letters, reasons={"row_refused"}) == {"evt_2"}
    assert await ids(world, letters, consumer_groups={OTHER_GROUP}) == {"evt_3"}
    assert await ids(world, letters, consumer_groups={GROUP}, event_types=("*.failed",)) == {"evt_1"}


async def test_brackets_in_a_type_stand_for_themselves(world: World) -> None:
    world.bury(payment(1, event_type="v2.core.account[requirements].updated"))

    assert await ids(world, TOPICS.dead_letter, event_types=("v2.core.account[requirements].*",)) == {"evt_1"}
    assert await ids(world, TOPICS.dead_letter, event_types=("v2.core.account[r].*",)) == set()


async def test_a_span_of_time_has_its_beginning_and_not_its_end(world: World) -> None:
    for hour in range(4):
        world.clock.time = NOON + timedelta(hours=hour)
        world.bury(payment(hour), offset=hour)
    one, three = NOON + timedelta(hours=1), NOON + timedelta(hours=3)

    assert await ids(world, TOPICS.dead_letter, since=one, until=three) == {"evt_1", "evt_2"}
    assert await ids(world, TOPICS.dead_letter, since=three) == {"evt_3"}
    assert await ids(world, TOPICS.dead_letter, since=three + timedelta(hours=1)) == set()
    assert await ids(world, TOPICS.dead_letter, until=one) == {"evt_0"}


async def test_what_is_older_behind_the_beginning_of_a_span_is_not_in_it(world: World) -> None:
    for number, hours in enumerate((2, 0)):
        world.clock.time = NOON + timedelta(hours=hours)
        world.bury(payment(1), offset=number)

    (parked,) = await found(world, TOPICS.dead_letter, since=NOON + timedelta(hours=1))

    assert parked.place.endswith("/0")


async def test_a_dead_letter_is_one_however_often_it_was_dead_lettered(world: World) -> None:
    world.bury(payment(1), offset=1, times=3)
    world.bury(payment(1), offset=2)

    parked = await found(world, TOPICS.dead_letter)

    assert Counter(each.place for each in parked) == {f"{GROUP}/{PAYMENTS}/1/{offset}": 1 for offset in (1, 2)}


async def test_the_limit_counts_what_was_found(world: World) -> None:
    for number in range(5):
        world.bury(payment(number), offset=number, times=2)

    assert len(await found(world, TOPICS.dead_letter, limit=3)) == 3
    assert len(await found(world, TOPICS.dead_letter, limit=5)) == 5


async def test_by_its_place_a_record_is_found_without_reading_the_topic(world: World) -> None:
    for number in range(3):
        world.bury(payment(number), offset=number)
    wanted = world.kafka.records(TOPICS.dead_letter)[1]
    place = f"{TOPICS.dead_letter}/{wanted.partition.number}/{wanted.offset}"

    looked = await search(world.log, TOPICS.dead_letter, dead_letter_of, Selection(ids=frozenset((place,))))

    assert looked.ranges == {wanted.partition: range(wanted.offset, wanted.offset + 1)}
    assert [parked.record async for parked in looked.found()] == [wanted]
    nowhere = await search(
        world.log, TOPICS.dead_letter, dead_letter_of, Selection(ids=frozenset((f"{TOPICS.dead_letter}/0/99",)))
    )
    assert [parked async for parked in nowhere.found()] == []


async def test_quarantined_bodies_are_selected_by_what_their_headers_say(world: World) -> None:
    await world.deliver(body("evt_1", amount="much"), LIVE)
    await world.deliver(body("evt_2", event_type="payment_intent.created"), TEST)
    await world.deliver(b"{", LIVE)
    quarantine = TOPICS.quarantine

    (unnamed,) = await found(world, quarantine, reasons={"malformed_json"})
    assert (unnamed.event_type, unnamed.endpoint, len(unnamed.id)) == (None, "live", 64)
    assert await ids(world, quarantine, ids={"evt_1"}) == {"evt_1"}
    assert await ids(world, quarantine, ids={unnamed.id}) == await ids(world, quarantine, ids={unnamed.place})
    assert await ids(world, quarantine, event_types=("payment_intent.*",)) == {"evt_1", "evt_2"}
    assert await ids(world, quarantine, event_types=("*.created",)) == {"evt_2"}
    assert await ids(world, quarantine, endpoints={"test"}) == {"evt_2"}
    assert await ids(world, quarantine, reasons={"mode_mismatch", "object_malformed"}) == {"evt_1", "evt_2"}


# --- dead letters ----------------------------------------------------------------------------------------------------


async def test_a_dead_letter_goes_back_as_it_was_for_the_group_it_came_from(world: World) -> None:
    record = world.bury(payment(1), offset=7)

    assert await world.replay_letters() == [Outcome.REPLAYED]

    (back,) = world.kafka.records(PAYMENTS)
    assert (back.key, back.value) == (record.key, record.value)
    kept = [(name, value) for name, value in record.headers if name != "ingest_source"]
    assert back.headers == (
        *kept,
        ("ingest_source", b"replay"),
        ("replay_group", GROUP.encode()),
        ("replay_of", f"{PAYMENTS}/1/7".encode()),
    )
    assert isinstance(decode_for(back, consumer_group=GROUP), ConsumedEvent)


async def test_any_other_group_passes_it_over_whatever_is_in_it(world: World) -> None:
    world.bury(payment(1))
    await world.replay_letters()
    (back,) = world.kafka.records(PAYMENTS)

    assert not isinstance(decode_for(back, consumer_group=OTHER_GROUP), ConsumedEvent | InvalidRecord)
    poison = ConsumedRecord(back.partition, 5, b"k", b"poison", back.headers, 0)
    assert not isinstance(decode_for(poison, consumer_group=OTHER_GROUP), ConsumedEvent | InvalidRecord)
    assert isinstance(decode_for(poison, consumer_group=GROUP), InvalidRecord)
    plain = ConsumedRecord(back.partition, 5, b"k", b"poison", (), 0)
    assert decode_for(plain, consumer_group=OTHER_GROUP) == decode(plain)


async def test_what_was_replayed_and_dead_lettered_again_is_still_the_same_dead_letter(world: World) -> None:
    """Or each replay with the bug still there would double what the next one finds."""
    world.bury(payment(1), offset=7)
    for _ in range(3):
        assert await world.replay_letters() == [Outcome.REPLAYED]
        back = world.kafka.records(PAYMENTS)[-1]
        world.kafka.append(
            dead_letter(InvalidRecord(back, "schema_mismatch", "$.data"), topics=TOPICS, consumer_group=GROUP)
        )

    (parked,) = await found(world, TOPICS.dead_letter)
    assert parked.place == f"{GROUP}/{PAYMENTS}/1/7"
    letter = read_dead_letter(world.kafka.records(TOPICS.dead_letter)[-1])
    assert letter is not None
    assert replayed(letter).headers == world.kafka.records(PAYMENTS)[0].headers


@pytest.mark.parametrize(
    ("group", "topic"), [("somebody", PAYMENTS), (OTHER_GROUP, PAYMENTS), (GROUP, "elsewhere")], ids=str
)
async def test_what_no_group_of_ours_reads_is_reported_and_published_nowhere(
    world: World, group: str, topic: str
) -> None:
    origin = ConsumedRecord(Partition(topic, 0), 0, b"k", b"v", (), 0)
    world.kafka.append(dead_letter(InvalidRecord(origin, "not_json", "x"), topics=TOPICS, consumer_group=group))

    assert await world.replay_letters() == [Outcome.NOT_ADDRESSED]
    assert group in world.told[0].detail
    assert not any(world.kafka.records(name) for name in TOPICS.data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: {},
        lambda headers: {name: value for name, value in headers.items() if name != "consumer_group"},
        lambda headers: {**headers, "original_offset": b"x"},
        lambda headers: {**headers, "original_partition": b"\xff"},
    ],
    ids=["none", "no group", "no offset", "no text"],
)
async def test_a_record_that_is_no_dead_letter_is_listed_as_that_and_not_replayed(
    world: World, spoil: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    origin = ConsumedRecord(Partition(PAYMENTS, 0), 0, b"k", b"v", (), 0)
    whole = dead_letter(InvalidRecord(origin, "not_json", "x"), topics=TOPICS, consumer_group=GROUP)
    world.kafka.append(Record(TOPICS.dead_letter, b"k", b"v", tuple(spoil(dict(whole.headers)).items())))

    (parked,) = await found(world, TOPICS.dead_letter)
    assert (parked.reason, parked.id, parked.consumer_group) == ("not_a_dead_letter", "k", None)
    assert await world.replay_letters() == [Outcome.NOT_ADDRESSED]
    assert not world.kafka.records(PAYMENTS)


async def test_a_dry_run_of_dead_letters_says_the_same_and_publishes_nothing(world: World) -> None:
    world.bury(payment(1))
    world.bury(payment(2), group="somebody")

    outcomes = await world.run(TOPICS.dead_letter, PlanDeadLetters(READERS))

    assert Counter(outcomes) == {Outcome.WOULD_REPLAY: 1, Outcome.NOT_ADDRESSED: 1}
    assert not any(world.kafka.records(name) for name in TOPICS.data)


# --- how a run goes --------------------------------------------------------------------------------------------------


async def test_what_the_broker_refuses_is_reported_and_the_others_go_on(world: World) -> None:
    for number in range(3):
        world.bury(payment(number), offset=number)
    world.publisher.fail_next(1, PublishRefused("the broker refuses the record"))

    assert Counter(await world.replay_letters()) == {Outcome.REPLAYED: 2, Outcome.REFUSED: 1}


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), PublishOutcomeUnknown("slow")], ids=lambda e: e.tag)
async def test_a_broker_that_is_away_for_a_while_is_waited_for(world: World, error: IngestError) -> None:
    world.bury(payment(1))
    world.publisher.fail_next(3, error)

    assert await world.replay_letters() == [Outcome.REPLAYED]


async def test_a_broker_that_stays_away_ends_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 2)
    for number in range(10):
        world.bury(payment(number), offset=number)
    world.publisher.fail_next(1000, BrokerUnavailable("away"))

    outcomes = await world.replay_letters()

    assert set(outcomes) == {Outcome.UNAVAILABLE}
    assert len(outcomes) <= 4
    assert world.stop.is_set()


async def test_no_more_are_in_flight_than_there_is_room_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 3)
    flying, most = 0, 0
    for number in range(20):
        world.bury(payment(number), offset=number)

    async def step(parked: Parked) -> Redriven:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        for _ in range(5):
            await asyncio.sleep(0)
        flying -= 1
        return Redriven(parked, Outcome.REPLAYED)

    assert len(await world.run(TOPICS.dead_letter, step)) == 20
    assert most == 3


async def test_told_to_stop_it_begins_nothing_more_and_tells_what_was_in_flight(world: World) -> None:
    for number in range(100):
        world.bury(payment(number), offset=number)
    begun = 0

    async def step(parked: Parked) -> Redriven:
        nonlocal begun
        begun += 1
        if begun == 5:
            world.stop.set()
        await asyncio.sleep(0)
        return Redriven(parked, Outcome.REPLAYED)

    told = await world.run(TOPICS.dead_letter, step)

    assert len(told) == begun
    assert 5 <= begun < 100


async def test_what_became_of_each_is_told_while_others_are_in_flight(world: World) -> None:
    for number in range(2):
        world.bury(payment(number), offset=number)

    async def step(parked: Parked) -> Redriven:
        if parked.id == "evt_0":
            await eventually(lambda: world.told, what="the other one is told")
        return Redriven(parked, Outcome.REPLAYED)

    await world.run(TOPICS.dead_letter, step)

    assert [redriven.parked.id for redriven in world.told] == ["evt_1", "evt_0"]


async def test_told_to_stop_it_looks_no_further(world: World) -> None:
    """What is wanted next may be at the other end of the log, or a broker say nothing."""
    world.bury(payment(1))
    first = dead_letter_of(world.kafka.records(TOPICS.dead_letter)[0])
    left = False

    async def looking() -> AsyncIterator[Parked]:
        nonlocal left
        yield first
        try:
            await asyncio.Event().wait()
        finally:
            left = True

    async def step(parked: Parked) -> Redriven:
        world.stop.set()
        return Redriven(parked, Outcome.REPLAYED)

    await asyncio.wait_for(redrive(looking(), step, world.told.append, world.stop), 5)

    assert [redriven.parked for redriven in world.told] == [first]
    assert left


async def test_what_nobody_foresaw_ends_the_run_when_the_others_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 5)
    for number in range(20):
        world.bury(payment(number), offset=number)

    first, second, *others = [parked.id for parked in await found(world, TOPICS.dead_letter, limit=5)]

    async def step(parked: Parked) -> Redriven:
        if parked.id == second:
            raise ZeroDivisionError
        return Redriven(parked, Outcome.REPLAYED)

    with pytest.raises(ZeroDivisionError):
        await world.run(TOPICS.dead_letter, step)

    assert [redriven.parked.id for redriven in world.told] == [first, *others]


async def test_what_was_in_flight_is_told_when_the_reading_fails(world: World) -> None:
    world.bury(payment(1))
    first = dead_letter_of(world.kafka.records(TOPICS.dead_letter)[0])
    gate = asyncio.Event()

    async def failing() -> AsyncIterator[Parked]:
        yield first
        gate.set()
        raise BrokerUnavailable("gone")

    async def step(parked: Parked) -> Redriven:
        await gate.wait()
        return Redriven(parked, Outcome.REPLAYED)

    with pytest.raises(BrokerUnavailable):
        await redrive(failing(), step, world.told.append, world.stop)
    assert [redriven.parked for redriven in world.told] == [first]


# --- quarantine ------------------------------------------------------------------------------------------------------


def events_on(world: World, topic: str = PAYMENTS) -> Sequence[dict[str, bytes]]:
    return [dict(record.headers) for record in world.kafka.records(topic)]


async def test_a_body_that_can_be_read_now_arrives_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as old:
        old.setattr("service.normalize.envelope.DEPTH_MAX", 1)
        await world.deliver(body("evt_1"), LIVE)

    assert await world.replay_bodies() == [Outcome.REPLAYED]
    assert await world.replay_bodies() == [Outcome.DUPLICATE]

    (headers,) = events_on(world)
    assert (headers["ce_id"], headers["ingest_source"], headers["dedupe"]) == (b"evt_1", b"replay", b"checked")
    value = orjson.loads(world.kafka.records(PAYMENTS)[0].value or b"")
    assert value["received_at"] == "2026-11-20T12:00:00Z"
    assert len(world.kafka.records(TOPICS.quarantine)) == 1


async def test_an_event_that_has_arrived_in_another_way_is_a_duplicate(world: World) -> None:
    await world.deliver(body("evt_1"), TEST)
    await take(TrustedEvent(LIVE, orjson.dumps(body("evt_1")), NOON), "webhook", world.ingest, deadline=in_seconds(2))

    assert await world.replay_bodies(named=LIVE) == [Outcome.DUPLICATE]
    assert len(events_on(world)) == 1


async def test_a_body_that_is_still_unfit_stays_where_it_is_with_todays_reason(world: World) -> None:
    await world.deliver(body("evt_1", amount="much"), LIVE)
    await world.deliver(b"{", LIVE)

    # Not even where the dedupe store has forgotten that it is there.
    world.store = MemoryDedupeStore(SystemClock(), max_entries=1_000)
    assert await world.replay_bodies() == [Outcome.UNFIT, Outcome.UNFIT]

    assert {told.detail for told in world.told} == {"object_malformed: data.object.amount", "malformed_json: body"}
    assert len(world.kafka.records(TOPICS.quarantine)) == 2
    assert not events_on(world)


async def test_a_record_that_is_too_large_still_stays_where_it_is(world: World) -> None:
    """Whether its topic's limit is known beforehand, or only the broker knows it."""
    world.kafka.create_topic(PAYMENTS, max_message_bytes=500)
    await world.deliver(body("evt_1"), LIVE)
    world.store = MemoryDedupeStore(SystemClock(), max_entries=1_000)

    assert await world.replay_bodies() == [Outcome.UNFIT]
    world.kafka.create_topic(PAYMENTS)
    world.publisher.fail_next(1, RecordTooLarge("the limit was lowered"))
    assert await world.replay_bodies() == [Outcome.UNFIT]
    assert all(told.detail.startswith("record_too_large") for told in world.told)
    assert len(world.kafka.records(TOPICS.quarantine)) == 1
    assert await world.replay_bodies() == [Outcome.REPLAYED]


async def test_an_endpoint_that_is_gone_is_reported_and_another_can_be_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as old:
        old.setattr("service.normalize.envelope.DEPTH_MAX", 1)
        await world.deliver(body("evt_1"), Endpoint("old", "/old", ()))

    assert await world.replay_bodies() == [Outcome.ENDPOINT_UNKNOWN]
    assert "'old'" in world.told[-1].detail
    assert not events_on(world)
    assert await world.replay_bodies(named=LIVE) == [Outcome.REPLAYED]


async def test_what_an_endpoint_refused_for_its_mode_is_only_taken_by_one_that_is_named(world: World) -> None:
    await world.deliver(body("evt_1"), TEST)

    assert await world.replay_bodies() == [Outcome.ENDPOINT_NEEDED]
    assert not events_on(world)
    assert await world.replay_bodies(named=TEST) == [Outcome.UNFIT]
    assert await world.replay_bodies(named=LIVE) == [Outcome.REPLAYED]

    (headers,) = events_on(world)
    assert headers["endpoint"] == b"live"


async def test_an_account_is_not_taken_for_another(world: World) -> None:
    ours = Endpoint("ours", "/ours", (), account="acct_1")
    theirs = Endpoint("theirs", "/theirs", (), account="acct_2")
    await world.deliver(body("evt_1", account="acct_2"), ours)

    assert await world.replay_bodies(ours, theirs) == [Outcome.ENDPOINT_NEEDED]
    assert await world.replay_bodies(ours, theirs, named=theirs) == [Outcome.REPLAYED]


async def test_the_named_endpoint_leaves_the_others_to_their_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as old:
        old.setattr("service.normalize.envelope.DEPTH_MAX", 1)
        await world.deliver(body("evt_1"), LIVE)
    any_other = Endpoint("other", "/other", (), account="acct_9")

    assert await world.replay_bodies(LIVE, any_other, named=any_other) == [Outcome.REPLAYED]

    (headers,) = events_on(world)
    assert (headers["endpoint"], headers["ce_source"]) == (b"live", b"/stripe/default/live")


async def test_a_sealed_body_needs_its_key_and_is_redacted_on_its_way() -> None:
    redaction = Redaction.of(parse_paths(("payment_intent.description",)), RedactionKeys.of(KEY))
    world = World(redaction=redaction)
    sealed_by = redaction.sealing
    other = Sealing(RedactionKeys.of(base64.b64encode(b"n" * 32).decode()))
    await world.deliver(body("evt_1"), TEST)

    assert await world.replay_bodies(named=LIVE) == [Outcome.SEALED]
    assert f"the kafka.redact_key {sealed_by.keys.fingerprint} is needed" in world.told[-1].detail
    assert await world.replay_bodies(named=LIVE, sealing=other) == [Outcome.SEALED]
    assert sealed_by.keys.fingerprint in world.told[-1].detail
    assert await world.replay_bodies(named=LIVE, sealing=sealed_by) == [Outcome.REPLAYED]
    assert len(events_on(world)) == 1


async def test_a_dry_run_of_bodies_says_the_same_and_claims_nothing(world: World) -> None:
    await world.deliver(body("evt_1"), TEST)
    await world.deliver(body("evt_2", amount="much"), LIVE)
    bodies = Bodies({"live": LIVE, "test": TEST}, LIVE, None)
    plan = PlanBodies(bodies, world.ingest)

    assert Counter(await world.run(TOPICS.quarantine, plan)) == {Outcome.WOULD_REPLAY: 1, Outcome.UNFIT: 1}
    assert (await world.store.look([ClaimKey("event", "evt_1")]))[ClaimKey("event", "evt_1")].value == "new"
    assert not events_on(world)

    world.kafka.create_topic(PAYMENTS, max_message_bytes=500)
    assert await world.run(TOPICS.quarantine, plan) == [Outcome.UNFIT] * 2
    world.kafka.create_topic(PAYMENTS)
    await world.replay_bodies(named=LIVE)
    assert Counter(await world.run(TOPICS.quarantine, plan)) == {Outcome.DUPLICATE: 1, Outcome.UNFIT: 1}


async def test_a_run_that_was_killed_is_waited_for_and_its_event_published_once(world: World) -> None:
    """The claim of a process that is no more stays until its lease is over."""
    await world.deliver(body("evt_1"), TEST)
    key = ClaimKey("event", "evt_1")
    await world.store.claim([key], owner="a run that was killed")
    waits = 0

    def no_time(*_: float) -> float:
        nonlocal waits
        waits += 1
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(release()))
        return 0.05

    async def release() -> None:
        await world.store.release([key], owner="a run that was killed")

    found_there = await search(world.log, TOPICS.quarantine, quarantined, Selection())
    step = ReplayBodies(Bodies({"live": LIVE, "test": TEST}, LIVE, None), world.ingest)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "ATTEMPT_SECONDS", 0.05)
        await redrive(found_there.found(), step, world.told.append, world.stop, jitter=no_time)

    assert [told.outcome for told in world.told] == [Outcome.REPLAYED]
    assert waits >= 1
    assert len(events_on(world)) == 1
