"""What every `ProjectionStore` does. A suite for a store subclasses `StoreContract` and provides `world`."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from service.contract import NO_RAW, Category, Charge, Data, Event, PaymentIntent, Refund
from service.errors import FenceLost, ForeignCluster
from service.events import ConsumedEvent, ConsumedRecord, Partition
from service.ports import Applied, Batch, ProjectionStore
from service.projections.model import Links, ObjectKey, ObjectState, Observation, Row, RowSet
from service.projections.ordering import fold

PAYMENTS = Partition("stripe.payments", 0)
REFUNDS = Partition("stripe.refunds", 0)
EPOCH = datetime(2026, 11, 20, 10, tzinfo=UTC)


class Shop:
    """A small projection with everything in it that is hard: roots, refs, `via`, and rows that come and go.

    A payment's row exists per payment intent, and per charge without one; a refund that knows only its charge belongs
    to whatever the charge belongs to.
    """

    name = "payments"
    ledger = "payment_events"
    categories: tuple[Category, ...] = ("payment", "refund")

    def observe(self, event: Event) -> tuple[Observation, ...]:
        if not isinstance(event.data, PaymentIntent | Charge | Refund) or event.object_id is None:
            return ()
        return (
            Observation(
                key=ObjectKey(event.account, event.livemode, event.object_id),
                object_type=event.object_type,
                event_id=event.event_id,
                event_type=event.event_type,
                created_at=event.created_at,
                api_version=event.api_version,
                data=event.data,
                previous=event.previous,
            ),
        )

    def links(self, observation: Observation) -> Links:
        match observation.data:
            case PaymentIntent(payment_intent_id=root, latest_charge_id=charge):
                return Links(frozenset({root}), frozenset({charge} if charge else ()), None)
            case Charge(charge_id=charge_id, payment_intent_id=root):
                return Links(frozenset({root or charge_id}), frozenset(), None)
            case Refund(payment_intent_id=str(root)):
                return Links(frozenset({root}), frozenset(), None)
            case Refund(charge_id=via):
                return Links(frozenset(), frozenset(), via)
            case _:
                return Links(frozenset(), frozenset(), None)

    def rows(self, root: ObjectKey, states: Sequence[ObjectState]) -> RowSet:
        owned = {"payments": "payment_id"}
        by_type = {state.object_type: state for state in sorted(states, key=lambda state: state.key)}
        main = by_type.get("payment_intent") or by_type.get("charge")
        if main is None:
            return RowSet((), owned)
        last = max(states, key=lambda state: (state.last_event_at, state.last_event_id))
        refunded = sum(s.data.amount_minor or 0 for s in states if isinstance(s.data, Refund))
        assert isinstance(main.data, PaymentIntent | Charge)
        columns = {
            "status": main.data.status,
            "amount_minor": main.data.amount_minor,
            "amount_refunded_minor": refunded,
            "description": main.data.description,
            "metadata": dict(main.data.metadata),
            "created_at": main.data.created_at,
            "last_event_id": last.last_event_id,
            "last_event_at": last.last_event_at,
        }
        return RowSet((Row("payments", root, columns),), owned)


SHOP = Shop()


def event(
    event_id: str, data: Data, *, at: int, kind: str = "updated", account: str = "acct_1", livemode: bool = True
) -> Event:
    """An event of the object, created `at` seconds after the epoch."""
    category: Category = "refund" if isinstance(data, Refund) else "payment"
    match data:
        case PaymentIntent(payment_intent_id=object_id):
            object_type = "payment_intent"
        case Charge(charge_id=object_id):
            object_type = "charge"
        case Refund(refund_id=object_id):
            object_type = "refund"
        case _:
            raise AssertionError(data)
    created_at = EPOCH + timedelta(seconds=at)
    return Event(
        category=category,
        event_id=event_id,
        event_type=f"{object_type}.{kind}",
        account=account,
        livemode=livemode,
        endpoint="shop",
        created_at=created_at,
        received_at=created_at + timedelta(seconds=1),
        api_version="2026-10-28.endive",
        request_id=None,
        idempotency_key=None,
        object_type=object_type,
        object_id=object_id,
        data=data,
        previous=None,
        raw=NO_RAW,
    )


def intent(number: int, status: str = "succeeded", amount: int = 1000, charge: str | None = None) -> PaymentIntent:
    return PaymentIntent(payment_intent_id=f"pi_{number}", status=status, amount_minor=amount, latest_charge_id=charge)


def charge(number: int, intent_id: str | None = None, status: str = "succeeded") -> Charge:
    return Charge(charge_id=f"ch_{number}", payment_intent_id=intent_id, status=status, amount_minor=1000)


def refund(number: int, charge_id: str | None, amount: int = 100, intent_id: str | None = None) -> Refund:
    return Refund(refund_id=f"re_{number}", charge_id=charge_id, payment_intent_id=intent_id, amount_minor=amount)


def history() -> list[Event]:
    """One payment whose refund names a charge that only another event links; and a charge that has no intent."""
    return [
        event("evt_1", intent(1, "processing"), at=0, kind="created"),
        event("evt_2", refund(1, "ch_1"), at=9),
        event("evt_3", charge(1, "pi_1"), at=3),
        event("evt_4", intent(1, "succeeded", charge="ch_1"), at=5, kind="succeeded"),
        event("evt_5", refund(2, "ch_2", amount=7), at=8),
        event("evt_6", charge(2), at=2),
    ]


def consumed(event: Event, partition: Partition, offset: int) -> ConsumedEvent:
    return ConsumedEvent(ConsumedRecord(partition, offset, b"key", b"{}", (), 0), event)


def batch(
    events: Iterable[Event], *, partition: Partition = PAYMENTS, stored: int | None = None, first: int = 0
) -> Batch:
    """The events as the records that follow what is stored; where nothing is, from the log's `first` offset on."""
    begin = first if stored is None else stored
    records = [consumed(e, partition, begin + i) for i, e in enumerate(events)]
    return Batch(records, {partition: stored}, {partition: begin + len(records)})


Rows = Mapping[tuple[str, ObjectKey], Mapping[str, Any]]


def oracle(events: Iterable[Event]) -> Rows:
    """The rows that a set of events comes to, by brute force: the first rendering of each event counts."""
    observations: dict[tuple[ObjectKey, str], Observation] = {}
    for e in events:
        for observation in SHOP.observe(e):
            observations.setdefault((observation.key, observation.event_id), observation)
    by_object: dict[ObjectKey, list[Observation]] = {}
    belongs: set[tuple[ObjectKey, ObjectKey]] = set()
    via: set[tuple[ObjectKey, ObjectKey]] = set()
    for observation in observations.values():
        key = observation.key
        by_object.setdefault(key, []).append(observation)
        links = SHOP.links(observation)
        for root in links.roots:
            at = ObjectKey(key.account, key.livemode, root)
            belongs |= {(ObjectKey(key.account, key.livemode, ref), at) for ref in (key.object_id, root, *links.refs)}
        if links.via:
            via.add((ObjectKey(key.account, key.livemode, links.via), key))
    while grown := {(o, root) for v, o in via for ref, root in belongs if ref == v} - belongs:
        belongs |= grown
    states = {key: fold(found).state for key, found in by_object.items()}
    return {
        (row.table, row.key): row.columns
        for root in {root for _, root in belongs}
        for row in SHOP.rows(root, [states[o] for o, r in belongs if r == root and o in states]).rows
    }


class World(Protocol):
    """A database under test."""

    async def store(self, *, cluster_id: str = "cluster", consumer_group: str = "group") -> ProjectionStore:
        """A store of the projection `SHOP` on it; every call gives another, as another process would have."""
        ...

    async def rows(self) -> Rows:
        """All rows, with the columns that `SHOP` writes."""
        ...

    async def no_ops(self) -> set[str]:
        """The ids of the ledger's events that changed nothing."""
        ...


class StoreContract:
    """The suite: subclass it, and give it a fixture `world`."""

    @pytest.fixture
    async def store(self, world: World) -> ProjectionStore:
        store = await world.store()
        assert await store.next_offset(PAYMENTS) is None
        assert await store.next_offset(REFUNDS) is None
        return store

    async def test_rows_and_offset_of_a_batch_are_there_afterwards(self, world: World, store: ProjectionStore) -> None:
        events = history()

        applied = await store.apply(batch(events, first=40))

        assert applied == Applied(applied=6, already_applied=0, refolded=0, undecided=0)
        assert await world.rows() == oracle(events)
        assert await store.next_offset(PAYMENTS) == 46

    async def test_every_order_of_arrival_in_batches_of_one_gives_the_same_rows(self, world: World) -> None:
        expected = oracle(history())
        for number, order in enumerate(list(permutations(history()))[:: 720 // 24]):
            # Another account for each order: one database serves all.
            account = f"acct_{number}"
            store = await world.store(consumer_group=account)
            assert await store.next_offset(PAYMENTS) is None
            for offset, e in enumerate(order):
                await store.apply(batch([replace(e, account=account)], stored=offset or None))
            rows = {
                (table, ObjectKey("acct_1", key.livemode, key.object_id)): row
                for (table, key), row in (await world.rows()).items()
                if key.account == account
            }
            assert rows == expected, [e.event_id for e in order]

    async def test_a_replay_is_already_applied_and_changes_nothing(self, world: World, store: ProjectionStore) -> None:
        await store.apply(batch(history()))
        before = await world.rows()

        applied = await store.apply(batch(reversed(history()), stored=6))

        assert applied == Applied(applied=0, already_applied=6, refolded=0, undecided=0)
        assert await world.rows() == before
        assert await store.next_offset(PAYMENTS) == 12

    async def test_an_event_twice_in_a_batch_counts_once_and_its_first_rendering_wins(
        self, world: World, store: ProjectionStore
    ) -> None:
        first = event("evt_1", intent(1, amount=1), at=0)
        second = event("evt_1", intent(1, amount=2), at=0)

        applied = await store.apply(batch([first, second]))
        again = await store.apply(batch([second], stored=2))

        assert (applied.applied, again.applied, again.already_applied) == (1, 0, 1)
        assert await world.rows() == oracle([first])

    async def test_an_event_older_than_its_objects_state_is_folded_in_from_the_ledger(
        self, world: World, store: ProjectionStore
    ) -> None:
        late = event("evt_a", intent(1, "processing"), at=1)
        await store.apply(batch([event("evt_b", intent(1, "succeeded"), at=2)]))

        applied = await store.apply(batch([late], stored=1))

        assert applied.refolded == 1
        assert (await world.rows())["payments", ObjectKey("acct_1", True, "pi_1")]["status"] == "succeeded"

    async def test_two_events_that_say_the_same_in_one_second_leave_a_no_op_in_the_ledger(
        self, world: World, store: ProjectionStore
    ) -> None:
        await store.apply(batch([event("evt_b", intent(1), at=1)]))
        assert await world.no_ops() == set()

        await store.apply(batch([event("evt_a", intent(1), at=1)], stored=1))

        # By id, evt_a is the first: the one that was there already is the no-op.
        assert await world.no_ops() == {"evt_b"}

    async def test_what_waits_for_a_link_joins_its_row_when_the_link_comes(
        self, world: World, store: ProjectionStore
    ) -> None:
        await store.apply(batch([event("evt_1", refund(1, "ch_1"), at=1)]))
        assert await world.rows() == {}

        await store.apply(batch([event("evt_2", intent(1, charge="ch_1"), at=2)], stored=1))

        row = (await world.rows())["payments", ObjectKey("acct_1", True, "pi_1")]
        assert row["amount_refunded_minor"] == 100
        assert row["last_event_id"] == "evt_2"

    async def test_accounts_and_modes_do_not_mix(self, world: World, store: ProjectionStore) -> None:
        events = [
            event("evt_1", intent(1, amount=1), at=0),
            event("evt_1", intent(1, amount=2), at=0, livemode=False),
            event("evt_1", intent(1, amount=3), at=0, account="acct_2"),
        ]

        applied = await store.apply(batch(events))

        assert applied.applied == 3
        assert await world.rows() == oracle(events)
        assert len(await world.rows()) == 3

    async def test_a_batch_of_poison_only_moves_the_offset(self, store: ProjectionStore) -> None:
        applied = await store.apply(Batch((), {PAYMENTS: None}, {PAYMENTS: 3}))

        assert applied == Applied(applied=0, already_applied=0, refolded=0, undecided=0)
        assert await store.next_offset(PAYMENTS) == 3

    async def test_who_has_not_moved_the_offset_loses_the_fence_and_applies_nothing(
        self, world: World, store: ProjectionStore
    ) -> None:
        zombie = await world.store()
        await zombie.next_offset(PAYMENTS)
        await store.apply(batch([event("evt_1", intent(1), at=0)]))
        before = await world.rows()

        with pytest.raises(FenceLost):
            await zombie.apply(batch([event("evt_2", intent(2), at=0)]))

        assert await world.rows() == before
        assert await store.next_offset(PAYMENTS) == 1

    async def test_one_partition_without_its_fence_keeps_the_whole_batch_out(
        self, world: World, store: ProjectionStore
    ) -> None:
        await store.apply(batch([event("evt_1", intent(1), at=0)]))
        both = Batch(
            (
                consumed(event("evt_2", intent(2), at=0), PAYMENTS, 0),
                consumed(event("evt_3", refund(1, "ch_1"), at=0), REFUNDS, 0),
            ),
            {PAYMENTS: None, REFUNDS: None},
            {PAYMENTS: 1, REFUNDS: 1},
        )

        with pytest.raises(FenceLost, match=r"stripe\.payments"):
            await store.apply(both)

        assert await store.next_offset(REFUNDS) is None
        assert len(await world.rows()) == 1

    async def test_an_offset_row_that_vanished_is_not_made_anew_in_the_middle_of_the_log(self, world: World) -> None:
        store = await world.store()
        # Whoever asks is told that there is nothing: what was applied before the question still counts.
        assert await store.next_offset(PAYMENTS) is None

        with pytest.raises(FenceLost):
            await store.apply(batch([event("evt_1", intent(1), at=0)], stored=500))

        assert await world.rows() == {}

    async def test_consumer_groups_have_offsets_of_their_own(self, world: World, store: ProjectionStore) -> None:
        await store.apply(batch([event("evt_1", intent(1), at=0)]))
        other = await world.store(consumer_group="other")

        assert await other.next_offset(PAYMENTS) is None

    async def test_another_clusters_offsets_are_refused_and_never_moved(
        self, world: World, store: ProjectionStore
    ) -> None:
        foreign = await world.store(cluster_id="another")
        assert await foreign.next_offset(PAYMENTS) is None
        await store.apply(batch([event("evt_1", intent(1), at=0)]))

        with pytest.raises(FenceLost):
            await foreign.apply(batch([event("evt_2", intent(2), at=0)], stored=1))
        with pytest.raises(ForeignCluster, match=r"stripe\.payments"):
            await foreign.next_offset(PAYMENTS)

        assert await store.next_offset(PAYMENTS) == 1
