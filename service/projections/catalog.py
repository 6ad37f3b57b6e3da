"""The catalog: products and their prices. A plan is a price under its older name, and both share the id and the row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from service.contract import Category, Event, Price, Product
from service.projections.columns import fields_of, last_event_of
from service.projections.model import Links, ObjectKey, ObjectState, Observation, Row, RowSet
from service.projections.observing import observe_object
from service.projections.ordering import is_deleted

_STRIPES_PRODUCT: Final = "prod_"
_PRODUCT: Final = "product:"
_PRICE: Final = "price:"


@dataclass(frozen=True, slots=True)
class Catalog:
    """The tables `products` and `prices`. Each object is its own and only root."""

    name: str = "catalog"
    ledger: str = "catalog_events"
    categories: tuple[Category, ...] = ("catalog",)

    def observe(self, event: Event) -> tuple[Observation, ...]:
        """See `Projection.observe`."""
        return tuple(replace(o, key=_key(o)) for o in observe_object(event, ("product", "price", "plan")))

    def links(self, observation: Observation) -> Links:
        """See `Projection.links`."""
        return Links(roots=frozenset({observation.key.object_id}), refs=frozenset(), via=None)

    def rows(self, root: ObjectKey, states: Sequence[ObjectState]) -> RowSet:  # noqa: ARG002 -- a state knows its row
        """See `Projection.rows`."""
        return RowSet(tuple(row for state in states if (row := _row(state)) is not None), owned={})


def _key(observation: Observation) -> ObjectKey:
    """The key of the ledger and the states: Stripe's id, told apart where a product and a plan might share it.

    Whoever makes a product or a plan may choose its id, and may call both of them `gold`. No product's key is a
    price's, whatever the ids.
    """
    key = observation.key
    if isinstance(observation.data, Product):
        apart = "" if key.object_id.startswith(_STRIPES_PRODUCT) else _PRODUCT
    else:
        apart = _PRICE if key.object_id.startswith((_STRIPES_PRODUCT, _PRODUCT, _PRICE)) else ""
    return ObjectKey(key.account, key.livemode, apart + key.object_id) if apart else key


def _row(state: ObjectState) -> Row | None:
    match state.data:
        case Product() as product:
            key = ObjectKey(state.key.account, state.key.livemode, product.product_id)
            return Row("products", key, _columns(state, "product_id"))
        case Price() as price:
            key = ObjectKey(state.key.account, state.key.livemode, price.price_id)
            return Row("prices", key, _columns(state, "price_id"))
        case _:
            return None  # `observe` lets nothing else in


def _columns(state: ObjectState, id_column: str) -> dict[str, Any]:
    columns = fields_of(state.data, without=frozenset({id_column})) | last_event_of((state,))
    columns["last_event_type"] = state.last_event_type
    # Stripe's last word on a deleted object may be that it is active: what it was when it went.
    return columns | {"deleted": True, "active": False} if is_deleted(state) else columns


CATALOG: Final = Catalog()
