"""Finding the objects whose events do not decide their state, on real Postgres."""

from datetime import timedelta

from service.adapters.postgres_store import PostgresProjectionStore
from service.adapters.postgres_undecided import PostgresUndecidedObjects
from service.contract import Event, PaymentIntent, Product
from service.projections import PROJECTIONS
from tests.contracts.projection_store import batch
from tests.support import histories


def says(description: str, event_id: str, second: int, kind: str = "payment_intent.processing") -> Event:
    intent = PaymentIntent(payment_intent_id="pi_1", status="processing", description=description)
    return histories.event(kind, intent, event_id=event_id, second=second)


async def test_an_object_is_undecided_until_a_snapshot_settles_it(database_url: str) -> None:
    store = await PostgresProjectionStore.open(
        database_url, PROJECTIONS["payments"], consumer_group="group", cluster_id="cluster"
    )
    objects = await PostgresUndecidedObjects.open(database_url)
    tie = [says("one", "evt_1", 0), says("other", "evt_2", 0)]
    account, livemode, at = tie[0].account, tie[0].livemode, tie[0].created_at

    async def undecided(*, after: timedelta = timedelta(hours=1), of: str = account) -> list[tuple[str, str]]:
        return list(await objects.undecided(account=of, livemode=livemode, before=at + after, limit=10))

    try:
        await store.apply(batch(tie))
        assert await undecided() == [("payment_intent", "pi_1")]
        assert await undecided(after=timedelta(0)) == []
        assert await undecided(of="acct_another") == []

        await store.apply(batch([says("as read", "snapshot:pi_1:9", 9, "payment_intent.snapshot")], stored=2))
        assert await undecided() == []
    finally:
        await objects.close()
        await store.close()


async def test_a_product_is_named_as_stripe_names_it(database_url: str) -> None:
    store = await PostgresProjectionStore.open(
        database_url, PROJECTIONS["catalog"], consumer_group="group", cluster_id="cluster"
    )
    objects = await PostgresUndecidedObjects.open(database_url)
    tie = [
        histories.event("product.updated", Product(product_id="gold", name=name), event_id=f"evt_{name}")
        for name in ("one", "other")
    ]
    try:
        await store.apply(batch(tie))

        found = await objects.undecided(
            account=tie[0].account,
            livemode=tie[0].livemode,
            before=tie[0].created_at + timedelta(hours=1),
            limit=10,
        )
        assert list(found) == [("product", "gold")]
    finally:
        await objects.close()
        await store.close()
