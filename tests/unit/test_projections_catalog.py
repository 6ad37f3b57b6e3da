from collections.abc import Mapping
from itertools import permutations
from typing import Any

import msgspec
import pytest

from service.contract import Data, Event, Other, PaymentIntent, Price, Product
from service.projections import PROJECTIONS
from tests.support.histories import Replica, at, event, key, oracle_rows

CATALOG = PROJECTIONS["catalog"]
MONTHLY = Price(
    price_id="price_1",
    product_id="prod_1",
    active=True,
    currency="eur",
    unit_amount_minor=900,
    unit_amount_decimal="900",
    interval="month",
    lookup_key="standard",
    tax_behavior="exclusive",
    created_at=at(0),
)
CLUB = Product(
    product_id="prod_1", name="Club", description="For members", active=True, metadata={"k": "v"}, created_at=at(0)
)
PLAN = msgspec.structs.replace(MONTHLY, lookup_key=None, tax_behavior=None)
"""The price as its plan shows it."""


def told(*story: tuple[str, Data, int]) -> list[Event]:
    """Events in the order of their telling: type, data, second. Their ids say the reverse of it."""
    return [
        event(event_type, data, second=second, event_id=f"evt_{len(story) - number}")
        for number, (event_type, data, second) in enumerate(story)
    ]


def final(*story: tuple[str, Data, int]) -> Mapping[str, Any]:
    """The one row that a story comes to, in whatever order its events arrive and one by one."""
    rows = []
    for order in permutations(told(*story)):
        replica = Replica(CATALOG)
        for each in order:
            replica.apply([each])
        rows.append(replica.rows())
    assert all(each == rows[0] for each in rows)
    (columns,) = rows[0].values()
    return columns


def undecided(*events: Event) -> int:
    replica = Replica(CATALOG)
    replica.apply(events)
    (state,) = replica.states.values()
    return state.undecided


def changed(data: Data, **fields: Any) -> Any:
    return msgspec.structs.replace(data, **fields)


def test_products_and_prices_have_rows_with_all_their_fields_and_their_last_event() -> None:
    history = [
        event("product.created", CLUB, event_id="evt_1"),
        event("price.created", MONTHLY, second=2, event_id="evt_2"),
    ]
    product, price = msgspec.structs.asdict(CLUB), msgspec.structs.asdict(MONTHLY)
    del product["product_id"], price["price_id"]
    assert oracle_rows(CATALOG, history) == {
        ("products", key("prod_1")): product
        | {"last_event_id": "evt_1", "last_event_type": "product.created", "last_event_at": at(0)},
        ("prices", key("price_1")): price
        | {"last_event_id": "evt_2", "last_event_type": "price.created", "last_event_at": at(2)},
    }


def test_it_observes_the_catalog_and_nothing_else() -> None:
    assert CATALOG.observe(event("payment_intent.created", PaymentIntent(payment_intent_id="pi_1"))) == ()
    thin = msgspec.structs.replace(event("product.created", CLUB), data=Other())
    assert CATALOG.observe(thin) == ()


def test_a_plan_is_its_price_and_takes_nothing_from_it_that_it_does_not_know() -> None:
    renamed = changed(PLAN, nickname="Each month")
    row = final(("price.created", MONTHLY, 0), ("plan.created", PLAN, 0), ("plan.updated", renamed, 1))
    assert (row["lookup_key"], row["tax_behavior"], row["nickname"]) == ("standard", "exclusive", "Each month")
    assert row["last_event_type"] == "plan.updated"


def test_a_price_and_its_plan_in_one_second_are_no_tie() -> None:
    both = told(("plan.created", PLAN, 0), ("price.created", MONTHLY, 0))
    assert undecided(*both) == 0
    assert final(("plan.created", PLAN, 0), ("price.created", MONTHLY, 0))["last_event_type"] == "price.created"


def test_two_changes_of_a_recurring_price_in_one_second_are_followed_through_both_its_names() -> None:
    def changes(prefix: str, price: Price) -> list[Event]:
        return [
            event(
                f"{prefix}.updated",
                changed(price, nickname=str(number + 1)),
                second=1,
                event_id=f"evt_{9 - number}{prefix}",
                previous={"nickname": str(number)},
            )
            for number in range(2)
        ]

    created = event("price.created", changed(MONTHLY, nickname="0"))
    history = [created, *changes("plan", PLAN), *changes("price", MONTHLY)]
    assert undecided(*history) == 0
    for order in permutations(history):
        (row,) = oracle_rows(CATALOG, order).values()
        assert row["nickname"] == "2"


def test_a_lookup_key_that_went_to_another_price_is_gone() -> None:
    moved = changed(MONTHLY, lookup_key=None)
    assert final(("price.created", MONTHLY, 0), ("price.updated", moved, 1))["lookup_key"] is None


def test_a_product_that_says_when_it_was_updated_needs_no_link_to_be_in_order() -> None:
    def at_second(second: int) -> Event:
        data = changed(CLUB, name=f"Club {second}", updated_at=at(second))
        return event("product.updated", data, second=5, event_id=f"evt_{9 - second}")

    assert undecided(at_second(3), at_second(4)) == 0
    (row,) = oracle_rows(CATALOG, [at_second(4), at_second(3)]).values()
    assert row["name"] == "Club 4"


def test_what_is_archived_is_not_active_and_can_be_taken_back() -> None:
    archived = changed(MONTHLY, active=False)
    gone = final(("price.created", MONTHLY, 0), ("price.updated", archived, 1))
    assert (gone["active"], gone["deleted"]) == (False, False)
    back = final(("price.created", MONTHLY, 0), ("price.updated", archived, 1), ("price.updated", MONTHLY, 2))
    assert (back["active"], back["deleted"]) == (True, False)


@pytest.mark.parametrize(
    ("event_type", "data"), [("product.deleted", CLUB), ("price.deleted", MONTHLY), ("plan.deleted", PLAN)]
)
def test_what_is_deleted_keeps_its_row_and_never_comes_back(event_type: str, data: Data) -> None:
    kind = event_type.partition(".")[0]
    row = final((f"{kind}.created", data, 0), (event_type, data, 1), (f"{kind}.updated", data, 2))
    assert (row["active"], row["deleted"], row["last_event_type"]) == (False, True, event_type)


@pytest.mark.parametrize("event_type", ["product.deleted", "product.snapshot"])
def test_the_stub_of_a_deleted_product_leaves_what_was_known_of_it(event_type: str) -> None:
    stub = Product(product_id="prod_1", deleted=True)
    row = final(("product.created", CLUB, 0), (event_type, stub, 1), ("product.updated", CLUB, 2))
    assert (row["active"], row["deleted"]) == (False, True)
    assert (row["name"], row["description"], row["metadata"]) == ("Club", "For members", {"k": "v"})


@pytest.mark.parametrize("kind", ["product", "price"])
def test_a_snapshot_wins_over_what_is_older_and_loses_to_its_own_second(kind: str) -> None:
    data: dict[str, Any] = {"product": CLUB, "price": MONTHLY}
    field = {"product": "name", "price": "nickname"}[kind]

    def named(name: str) -> Any:
        return changed(data[kind], **{field: name})

    old, read, new = named("old"), named("read"), named("new")
    older = final((f"{kind}.updated", old, 1), (f"{kind}.snapshot", read, 2))
    equal = final((f"{kind}.updated", new, 2), (f"{kind}.snapshot", read, 2))
    newer = final((f"{kind}.updated", new, 3), (f"{kind}.snapshot", read, 2))
    assert [older[field], equal[field], newer[field]] == ["read", "new", "new"]
    assert older["last_event_type"] == f"{kind}.snapshot"


# Ids that people choose ----------------------------------------------------------------------------------------------


def test_a_product_and_a_plan_of_one_id_are_two_objects() -> None:
    product, plan = changed(CLUB, product_id="gold"), changed(PLAN, price_id="gold", product_id="gold")
    history = told(("product.created", product, 0), ("plan.created", plan, 0), ("product.deleted", product, 1))
    rows = oracle_rows(CATALOG, history)
    assert rows["products", key("gold")]["deleted"]
    assert rows["prices", key("gold")]["active"]
    assert len(rows) == 2


def test_no_products_key_is_a_prices() -> None:
    ids = ["gold", "prod_1", "price_1", "plan_1"]
    ids += [f"{prefix}{name}" for prefix in ("product:", "price:", "price:price:") for name in ids]
    observed = [
        observation.key
        for name in ids
        for each in (event("product.created", Product(product_id=name)), event("plan.created", Price(price_id=name)))
        for observation in CATALOG.observe(each)
    ]
    assert len(set(observed)) == len(observed) == 2 * len(ids)


@pytest.mark.parametrize("name", ["prod_1", "price_1", "plan_1"])
def test_an_id_that_stripe_made_is_the_ledgers_own(name: str) -> None:
    data: Data = Product(product_id=name) if name == "prod_1" else Price(price_id=name)
    kind = "product" if name == "prod_1" else "price"
    (observation,) = CATALOG.observe(event(f"{kind}.created", data))
    assert observation.key == key(name)


@pytest.mark.parametrize("second", [4, 5, 6])
def test_an_id_that_is_used_again_is_another_object(second: int) -> None:
    """Deleted at 4; made anew then or later, without what the first one had."""
    again = Price(price_id="gold", product_id="prod_2", active=True, created_at=at(second))
    first = changed(PLAN, price_id="gold", trial_period_days=7)
    row = final(
        ("plan.created", first, 0),
        ("plan.deleted", first, 4),
        ("plan.created", again, second),
        ("plan.updated", changed(again, nickname="New"), second),
    )
    assert (row["active"], row["deleted"], row["nickname"], row["product_id"]) == (True, False, "New", "prod_2")
    assert (row["unit_amount_minor"], row["interval"], row["trial_period_days"]) == (None, None, None)


def test_a_second_life_ends_as_the_first_did() -> None:
    again = changed(CLUB, created_at=at(3))
    row = final(
        ("product.created", CLUB, 0),
        ("product.deleted", CLUB, 3),
        ("product.created", again, 3),
        ("product.deleted", Product(product_id="prod_1", deleted=True), 3),
        ("product.updated", again, 4),
    )
    assert (row["active"], row["deleted"], row["created_at"]) == (False, True, at(3))


def test_of_a_life_that_never_said_when_it_began_only_the_end_is_known() -> None:
    stub = Product(product_id="prod_1", deleted=True)
    later = final(("product.deleted", stub, 2), ("product.created", changed(CLUB, created_at=at(3)), 3))
    before = final(("product.deleted", stub, 2), ("product.updated", changed(CLUB, created_at=at(1)), 3))
    assert (later["deleted"], before["deleted"]) == (False, True)
