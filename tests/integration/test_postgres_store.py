import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.adapters.postgres_errors import translated
from service.adapters.postgres_statements import TABLES
from service.adapters.postgres_store import PostgresProjectionStore
from service.contract import Event, PaymentIntent, Subscription, SubscriptionItem
from service.errors import RowRefused, StoreUnavailable
from service.events import Partition
from service.projections import PROJECTIONS
from service.projections.model import ObjectKey, Projection
from tests.contracts.projection_store import (
    PAYMENTS,
    REFUNDS,
    SHOP,
    Rows,
    StoreContract,
    batch,
    charge,
    event,
    history,
    intent,
    oracle,
    refund,
)
from tests.support import histories
from tests.support.histories import arrivals, catalog_histories, oracle_rows, payment_histories, subscription_histories
from tests.support.stack import LocalPostgres
from tests.support.waiting import eventually

OTHERS = Partition("stripe.payments", 1)
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
IN_TRANSACTION = """
SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()
"""


@dataclass
class PostgresWorld:
    """A database, and the stores opened on it."""

    url: str
    connection: "asyncpg.Connection[asyncpg.Record]"
    opened: list[PostgresProjectionStore] = field(default_factory=list)

    async def store(
        self,
        *,
        cluster_id: str = "cluster",
        consumer_group: str = "group",
        projection: Projection = SHOP,
        lock_seconds: float = 20,
    ) -> PostgresProjectionStore:
        store = await PostgresProjectionStore.open(
            self.url, projection, consumer_group=consumer_group, cluster_id=cluster_id, lock_seconds=lock_seconds
        )
        self.opened.append(store)
        return store

    async def rows(self) -> Rows:
        columns = set().union(*(row for row in oracle(history()).values()))
        return {
            identity: {name: row[name] for name in columns}
            for identity, row in (await self.all_columns("payments")).items()
        }

    async def all_columns(self, projection: str, account: str | None = None) -> Rows:
        rows: dict[tuple[str, ObjectKey], dict[str, Any]] = {}
        for table, id_column in TABLES[projection].rows.items():
            for record in await self.connection.fetch(
                f"SELECT * FROM {table} WHERE account = coalesce($1, account)", account
            ):
                row = dict(record)
                if row.get("metadata") is not None:
                    row["metadata"] = json.loads(row["metadata"])
                rows[table, ObjectKey(row["account"], row["livemode"], row[id_column])] = row
        return rows

    async def no_ops(self) -> set[str]:
        return {
            row["event_id"] for row in await self.connection.fetch("SELECT event_id FROM payment_events WHERE no_op")
        }

    async def count(self, table: str) -> int:
        return int(await self.connection.fetchval(f"SELECT count(*) FROM {table}"))


@asynccontextmanager
async def world_on(url: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(url, await asyncpg.connect(url))
    try:
        yield world
    finally:
        await asyncio.gather(*(store.close() for store in world.opened))
        await world.connection.close()


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[PostgresWorld]:
    async with world_on(database_url) as world:
        yield world


@pytest.fixture
async def store(world: PostgresWorld) -> PostgresProjectionStore:
    return await started(await world.store(), PAYMENTS, REFUNDS)


async def started(store: PostgresProjectionStore, *partitions: Partition) -> PostgresProjectionStore:
    for partition in partitions:
        assert await store.next_offset(partition) is None
    return store


class TestPostgresStore(StoreContract):
    """The contract."""


# Several processes at once ---------------------------------------------------------------------------------------------


class Paused:
    """Holds a store's transaction open, locks held and ledger written, before one of its last steps."""

    def __init__(
        self, store: PostgresProjectionStore, monkeypatch: pytest.MonkeyPatch, *, before: str = "_write_rows"
    ) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        step: Callable[..., Awaitable[None]] = getattr(store, before)

        async def wait_for_leave(*args: Any) -> None:
            self.reached.set()
            await asyncio.wait_for(self.go_on.wait(), 20)
            await step(*args)

        monkeypatch.setattr(store, before, wait_for_leave)


async def both_orders_of_a_race(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch, first: Sequence[Event], second: Sequence[Event]
) -> None:
    """`second` is applied while the transaction of `first` is open: it waits, and the rows are those of both."""
    ahead = await started(await world.store(), PAYMENTS)
    behind = await started(await world.store(), REFUNDS)
    paused = Paused(ahead, monkeypatch)
    one = asyncio.create_task(ahead.apply(batch(first)))
    await asyncio.wait_for(paused.reached.wait(), 20)
    other = asyncio.create_task(behind.apply(batch(second, partition=REFUNDS)))
    await eventually(lambda: blocked(world, 1), what="the second transaction waits for the first")
    paused.go_on.set()
    await asyncio.gather(one, other)

    assert await world.rows() == oracle([*first, *second])


LINK = (event("evt_1", intent(1, charge="ch_1"), at=1),)
BY_CHARGE = (event("evt_2", refund(1, "ch_1"), at=2),)


async def test_a_refund_that_knows_its_charge_waits_for_the_link_that_is_being_written(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_orders_of_a_race(world, monkeypatch, LINK, BY_CHARGE)

    assert (await world.rows())["payments", ObjectKey("acct_1", True, "pi_1")]["amount_refunded_minor"] == 100


async def test_a_link_waits_for_the_refund_that_is_being_recorded_through_it(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_orders_of_a_race(world, monkeypatch, BY_CHARGE, LINK)

    assert (await world.rows())["payments", ObjectKey("acct_1", True, "pi_1")]["amount_refunded_minor"] == 100


async def test_two_partitions_with_one_object_are_one_after_the_other(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_orders_of_a_race(
        world,
        monkeypatch,
        [event("evt_2", intent(1, "succeeded"), at=2)],
        [event("evt_1", intent(1, "processing"), at=1)],
    )


async def test_two_objects_of_one_payment_do_not_overwrite_each_others_row(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both_orders_of_a_race(
        world,
        monkeypatch,
        [event("evt_1", refund(1, None, 100, intent_id="pi_1"), at=1), event("evt_2", charge(1, "pi_1"), at=1)],
        [event("evt_3", refund(2, None, 20, intent_id="pi_1"), at=1)],
    )


async def test_two_objects_whose_links_are_known_do_not_overwrite_their_payments_row(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [event(f"evt_{n}", refund(n, None, 1, intent_id="pi_1"), at=1) for n in (1, 2)]
    known.append(event("evt_3", intent(1), at=1))
    updates = [event(f"evt_{n}b", refund(n, None, 50 * n, intent_id="pi_1"), at=2) for n in (1, 2)]
    ahead = await started(await world.store(), PAYMENTS)
    behind = await started(await world.store(), REFUNDS)
    await ahead.apply(batch(known))
    paused = Paused(ahead, monkeypatch, before="_upsert")
    one = asyncio.create_task(ahead.apply(batch(updates[:1], stored=3)))
    await asyncio.wait_for(paused.reached.wait(), 20)
    other = asyncio.create_task(behind.apply(batch(updates[1:], partition=REFUNDS)))
    await eventually(lambda: blocked_or_done(world, other), what="the second waits for the first, or has overtaken it")
    paused.go_on.set()
    await asyncio.gather(one, other)

    assert await world.rows() == oracle([*known, *updates])


async def test_a_payment_that_becomes_known_while_its_charge_is_waited_for_is_locked_before_its_row_is_written(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_intent = [event("evt_3", refund(2, None, 7, intent_id="pi_1"), at=3)]
    linking = await started(await world.store(), PAYMENTS)
    by_charge = await started(await world.store(), REFUNDS)
    third = await started(await world.store(), OTHERS)
    link_paused = Paused(linking, monkeypatch)
    third_paused = Paused(third, monkeypatch, before="_upsert")
    one = asyncio.create_task(linking.apply(batch(LINK)))
    await asyncio.wait_for(link_paused.reached.wait(), 20)
    two = asyncio.create_task(by_charge.apply(batch(BY_CHARGE, partition=REFUNDS)))
    three = asyncio.create_task(third.apply(batch(by_intent, partition=OTHERS)))
    await eventually(lambda: blocked(world, 2), what="both wait: for the charge, and for the payment")
    link_paused.go_on.set()
    await asyncio.wait_for(third_paused.reached.wait(), 20)
    # The refund by charge has learned of the payment only now, and must wait for the third that is writing its row.
    await eventually(lambda: blocked_or_done(world, two), what="the second waits for the third, or has overtaken it")
    third_paused.go_on.set()
    await asyncio.gather(one, two, three)

    assert await world.rows() == oracle([*LINK, *BY_CHARGE, *by_intent])


async def blocked(world: PostgresWorld, count: int) -> bool:
    return int(await world.connection.fetchval(BLOCKED)) >= count


async def blocked_or_done(world: PostgresWorld, task: "asyncio.Task[Any]") -> bool:
    return task.done() or await blocked(world, 1)


async def test_events_of_other_payments_wait_for_nobody(world: PostgresWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = await started(await world.store(), PAYMENTS)
    other = await started(await world.store(), REFUNDS)
    paused = Paused(ahead, monkeypatch)
    open_one = asyncio.create_task(ahead.apply(batch(LINK)))
    await asyncio.wait_for(paused.reached.wait(), 20)

    applied = await asyncio.wait_for(other.apply(batch([event("evt_9", intent(9), at=0)], partition=REFUNDS)), 20)

    assert applied.applied == 1
    assert not open_one.done()
    paused.go_on.set()
    await open_one


_accounts = itertools.count()
_CONCURRENT = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example has an account of its own
)


async def assert_any_interleaving_comes_to_the_oracle(
    url: str, projection: Projection, events: Sequence[Event], batches: Sequence[Sequence[Event]], workers: int
) -> None:
    account = f"acct_{next(_accounts)}"

    async def work(store: PostgresProjectionStore, mine: Iterable[Sequence[Event]]) -> None:
        offset = 0
        for some in mine:
            await store.apply(batch((replace(e, account=account) for e in some), stored=offset or None))
            offset += len(some)

    async with world_on(url) as world:
        stores = [
            await started(await world.store(projection=projection, consumer_group=f"{account}/{n}"), PAYMENTS)
            for n in range(workers)
        ]
        # A deadlock would come out of `apply` as StoreUnavailable and fail the test.
        await asyncio.gather(*(work(store, batches[n::workers]) for n, store in enumerate(stores)))
        rows = await world.all_columns(projection.name, account)

    expected = oracle_rows(projection, [replace(e, account=account) for e in events])
    assert {
        identity: {name: row[name] for name in expected.get(identity, row)} for identity, row in rows.items()
    } == expected


@_CONCURRENT
@given(st.data())
async def test_payments_in_any_interleaving_of_three_processes_come_to_the_oracles_rows(
    database_url: str, data: st.DataObject
) -> None:
    events = data.draw(payment_histories)
    batches = data.draw(arrivals(events))

    await assert_any_interleaving_comes_to_the_oracle(database_url, PROJECTIONS["payments"], events, batches, 3)


@_CONCURRENT
@given(st.data())
async def test_refunds_in_any_interleaving_of_three_processes_come_to_the_oracles_rows(
    database_url: str, data: st.DataObject
) -> None:
    events = [e for e in data.draw(payment_histories) if e.category == "refund"]
    batches = data.draw(arrivals(events)) if events else []

    await assert_any_interleaving_comes_to_the_oracle(database_url, PROJECTIONS["refunds"], events, batches, 3)


@_CONCURRENT
@given(st.data())
async def test_subscriptions_in_any_interleaving_of_three_processes_come_to_the_oracles_rows(
    database_url: str, data: st.DataObject
) -> None:
    events = data.draw(subscription_histories)
    batches = data.draw(arrivals(events))

    await assert_any_interleaving_comes_to_the_oracle(database_url, PROJECTIONS["subscriptions"], events, batches, 3)


@_CONCURRENT
@given(st.data())
async def test_the_catalog_in_any_interleaving_of_three_processes_comes_to_the_oracles_rows(
    database_url: str, data: st.DataObject
) -> None:
    events = data.draw(catalog_histories)
    batches = data.draw(arrivals(events))

    await assert_any_interleaving_comes_to_the_oracle(database_url, PROJECTIONS["catalog"], events, batches, 3)


async def test_large_batches_over_the_same_payments_at_once_neither_deadlock_nor_lose_anything(
    world: PostgresWorld,
) -> None:
    dice = random.Random(20261121)
    events = [
        e
        for n in range(150)
        for e in (
            event(f"evt_{n}a", intent(n, "processing"), at=n, kind="created"),
            event(f"evt_{n}b", intent(n, "succeeded", charge=f"ch_{n}"), at=n + 2, kind="succeeded"),
            event(f"evt_{n}c", refund(n, f"ch_{n}"), at=n + 3),
        )
    ]
    stores = [await started(await world.store(consumer_group=f"g{n}"), PAYMENTS) for n in range(3)]

    async def work(store: PostgresProjectionStore) -> None:
        mine = dice.sample(events, len(events))
        for begin in range(0, len(mine), 90):
            await store.apply(batch(mine[begin : begin + 90], stored=begin or None))

    await asyncio.gather(*(work(store) for store in stores))

    assert await world.rows() == oracle(events)
    assert await world.count("payment_events") == len(events)


# Crashes and refusals --------------------------------------------------------------------------------------------------


async def test_a_connection_killed_between_ledger_and_commit_leaves_nothing(
    world: PostgresWorld, store: PostgresProjectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        paused = Paused(store, patch)
        doomed = asyncio.create_task(store.apply(batch(history())))
        await asyncio.wait_for(paused.reached.wait(), 20)
        pid = await world.connection.fetchval(IN_TRANSACTION)
        assert await world.connection.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
        paused.go_on.set()
        with pytest.raises(StoreUnavailable):
            await doomed
    assert [await world.count(t) for t in ("payment_events", "payment_objects", "payments", "consumer_offsets")] == [
        0,
        0,
        0,
        0,
    ]

    await store.apply(batch(history()))

    assert await world.rows() == oracle(history())
    assert await store.next_offset(PAYMENTS) == 6


async def test_a_server_that_is_down_is_unavailable_and_the_same_batch_works_once_it_is_back(
    store: PostgresProjectionStore, migrated_postgres: LocalPostgres
) -> None:
    await store.apply(batch(LINK))
    await migrated_postgres.stop()
    with pytest.raises(StoreUnavailable):
        await store.apply(batch(BY_CHARGE, stored=1))
    with pytest.raises(StoreUnavailable):
        await store.next_offset(PAYMENTS)
    await migrated_postgres.start()

    await store.apply(batch(BY_CHARGE, stored=1))

    assert await store.next_offset(PAYMENTS) == 2


@pytest.mark.parametrize("sqlstate", ["08006", "40001", "40P01", "53300", "55P03", "57P01", "57014", "25006"])
def test_what_may_work_later_is_unavailable(sqlstate: str) -> None:
    with pytest.raises(StoreUnavailable) as meaning, translated():
        raise asyncpg.PostgresError.new({"C": sqlstate, "M": "a message"})

    assert meaning.value.sqlstate == sqlstate


@pytest.mark.parametrize("sqlstate", ["22003", "22021", "22P05", "23502", "23514", "54000"])
def test_what_the_data_itself_is_to_blame_for_is_refused(sqlstate: str) -> None:
    with pytest.raises(RowRefused) as meaning, translated():
        raise asyncpg.PostgresError.new({"C": sqlstate, "M": "a message"})

    assert meaning.value.sqlstate == sqlstate


@pytest.mark.parametrize("sqlstate", ["42P01", "42501", "28P01", "3D000", "25001", "XX000"])
def test_what_a_person_must_look_at_passes_through(sqlstate: str) -> None:
    with pytest.raises(asyncpg.PostgresError), translated():
        raise asyncpg.PostgresError.new({"C": sqlstate, "M": "a message"})


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), TimeoutError(), asyncpg.InterfaceError("connection is closed")], ids=repr
)
def test_a_lost_connection_is_unavailable(error: Exception) -> None:
    with pytest.raises(StoreUnavailable), translated():
        raise error


def test_a_misuse_of_the_driver_passes_through() -> None:
    with pytest.raises(asyncpg.InterfaceError), translated():
        raise asyncpg.InterfaceError("cannot use a cursor outside of a transaction")


SECRET = "4242-personal"


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(PaymentIntent(payment_intent_id="pi_1", description=f"{SECRET}\x00"), id="NUL in a text"),
        pytest.param(PaymentIntent(payment_intent_id="pi_1", metadata={SECRET: "\x00"}), id="NUL in jsonb"),
        pytest.param(
            PaymentIntent(payment_intent_id="pi_1", amount_minor=2**63, description=SECRET), id="over a bigint"
        ),
        pytest.param(
            PaymentIntent(payment_intent_id="pi_1", amount_minor=2**64, description=SECRET), id="over 64 bits"
        ),
        pytest.param(PaymentIntent(payment_intent_id="pi_1", description=f"{SECRET}\ud800"), id="a lone surrogate"),
        pytest.param(
            PaymentIntent(payment_intent_id=SECRET + random.Random(1).randbytes(3000).hex()),
            id="an id too long for an index",
        ),
        pytest.param(PaymentIntent(payment_intent_id=f"{SECRET}\x00"), id="NUL in an id"),
    ],
)
async def test_data_that_postgres_refuses_is_refused_without_being_quoted(
    world: PostgresWorld, store: PostgresProjectionStore, poison: PaymentIntent
) -> None:
    with pytest.raises(RowRefused) as refusal:
        await store.apply(batch([event("evt_1", intent(2), at=0), event("evt_2", poison, at=0)]))

    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__
    assert await world.count("payment_events") == 0
    assert await store.next_offset(PAYMENTS) is None


async def test_a_lock_that_is_not_given_in_time_is_unavailable(world: PostgresWorld) -> None:
    store = await started(await world.store(lock_seconds=0.1), PAYMENTS)
    async with world.connection.transaction():
        await world.connection.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")

        with pytest.raises(StoreUnavailable) as refusal:
            await store.apply(batch(LINK))

    assert refusal.value.sqlstate == "55P03"


async def test_a_read_only_server_is_unavailable(world: PostgresWorld) -> None:
    name = await world.connection.fetchval("SELECT current_database()")
    await world.connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    store = await started(await world.store(), PAYMENTS)

    with pytest.raises(StoreUnavailable) as refusal:
        await store.apply(batch(LINK))

    assert refusal.value.sqlstate == "25006"


async def test_a_column_that_a_migration_has_changed_meanwhile_is_found_at_the_next_attempt(
    world: PostgresWorld, store: PostgresProjectionStore
) -> None:
    await store.apply(batch(LINK))
    assert await store.next_offset(PAYMENTS) == 1
    await world.connection.execute("ALTER TABLE consumer_offsets ALTER COLUMN cluster_id TYPE varchar(200)")

    with pytest.raises(StoreUnavailable, match="0A000"):
        await store.next_offset(PAYMENTS)

    assert await store.next_offset(PAYMENTS) == 1


async def test_a_database_that_answers_and_has_the_tables_is_fine(world: PostgresWorld) -> None:
    store = await world.store()

    await store.check()


async def test_a_database_without_tables_is_neither_poison_nor_away(empty_database_url: str) -> None:
    async with world_on(empty_database_url) as world:
        store = await world.store()

        with pytest.raises(asyncpg.UndefinedTableError):
            await store.next_offset(PAYMENTS)
        with pytest.raises(asyncpg.UndefinedTableError):
            await store.check()


# What is written -------------------------------------------------------------------------------------------------------


async def test_a_row_that_says_what_it_said_before_is_not_touched(
    world: PostgresWorld, store: PostgresProjectionStore
) -> None:
    await store.apply(batch([event("evt_2", intent(1), at=2)]))
    before = await world.connection.fetchrow("SELECT *, xmin::text FROM payments")

    late = await store.apply(batch([event("evt_1", intent(1, "processing"), at=1)], stored=1))

    assert late.applied == 1
    assert await world.connection.fetchrow("SELECT *, xmin::text FROM payments") == before
    await store.apply(batch([event("evt_3", intent(1, "canceled"), at=3)], stored=2))
    after = await world.connection.fetchrow("SELECT * FROM payments")
    assert before is not None
    assert after is not None
    assert after["status"] == "canceled"
    assert after["applied_at"] > before["applied_at"]


async def test_items_that_a_subscription_has_no_more_are_removed_and_no_others(world: PostgresWorld) -> None:
    store = await started(await world.store(projection=PROJECTIONS["subscriptions"]), PAYMENTS)

    def subscription(number: int, *items: str) -> Subscription:
        return Subscription(
            subscription_id=f"sub_{number}",
            items=tuple(SubscriptionItem(subscription_item_id=item, quantity=1) for item in items),
        )

    await store.apply(
        batch(
            [
                histories.event("customer.subscription.created", subscription(1, "si_1", "si_2"), event_id="evt_1"),
                histories.event("customer.subscription.created", subscription(2, "si_3"), event_id="evt_2"),
            ]
        )
    )
    await store.apply(
        batch(
            [histories.event("customer.subscription.updated", subscription(1, "si_2"), event_id="evt_3", second=1)],
            stored=2,
        )
    )

    left = await world.connection.fetch("SELECT subscription_item_id FROM subscription_items ORDER BY 1")
    assert [row[0] for row in left] == ["si_2", "si_3"]


async def test_views_say_what_is_left_of_a_payment_and_who_is_to_be_served(world: PostgresWorld) -> None:
    payments = await started(await world.store(projection=PROJECTIONS["payments"]), PAYMENTS)
    subscriptions = await started(
        await world.store(projection=PROJECTIONS["subscriptions"], consumer_group="other"), PAYMENTS
    )
    paid = PaymentIntent(payment_intent_id="pi_1", status="succeeded", amount_received_minor=1000)
    given_back = replace(refund(1, None, 300, intent_id="pi_1"), status="succeeded")
    await payments.apply(batch([event("evt_1", paid, at=1), event("evt_2", given_back, at=2)]))
    await subscriptions.apply(
        batch(
            histories.event(
                "customer.subscription.updated",
                Subscription(subscription_id=f"sub_{status}", status=status),
                event_id=f"evt_{status}",
            )
            for status in ("active", "canceled", "past_due", "incomplete")
        )
    )

    assert await world.connection.fetchval("SELECT net_minor FROM payment_balances") == 700
    served = await world.connection.fetch("SELECT subscription_id FROM active_subscriptions ORDER BY 1")
    assert [row[0] for row in served] == ["sub_active", "sub_past_due"]


async def test_only_payments_write_links(world: PostgresWorld) -> None:
    refunds = await started(await world.store(projection=PROJECTIONS["refunds"]), REFUNDS)

    await refunds.apply(batch(BY_CHARGE, partition=REFUNDS))

    assert await world.count("refunds") == 1
    assert await world.count("payment_refs") == 0
