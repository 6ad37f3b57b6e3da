"""Subscriptions, their items and their invoices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from service.contract import Category, Event, Invoice, Subscription
from service.projections.columns import fields_of, last_event_of
from service.projections.model import Links, ObjectKey, ObjectState, Observation, Row, RowSet
from service.projections.observing import observe_object
from service.projections.ordering import is_deleted

_ITEMS_OWNER: Final = {"subscription_items": "subscription_id"}


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """The tables `subscriptions`, `subscription_items` and `invoices`.

    Subscriptions and invoices are each their own and only root; a subscription owns its items' rows, so that an item
    that Stripe drops is dropped here.
    """

    name: str = "subscriptions"
    ledger: str = "subscription_events"
    categories: tuple[Category, ...] = ("subscription",)

    def observe(self, event: Event) -> tuple[Observation, ...]:
        """See `Projection.observe`. The preview in `invoice.upcoming` has no id and is nobody's state."""
        return tuple(observe_object(event, ("subscription", "invoice")))

    def links(self, observation: Observation) -> Links:
        """See `Projection.links`."""
        return Links(roots=frozenset({observation.key.object_id}), refs=frozenset(), via=None)

    def rows(self, root: ObjectKey, states: Sequence[ObjectState]) -> RowSet:
        """See `Projection.rows`."""
        rows: list[Row] = []
        owned: dict[str, str] = {}
        for state in states:
            match state.data:
                case Subscription() as subscription:
                    rows += _subscription_rows(root, state, subscription)
                    owned = _ITEMS_OWNER
                case Invoice() as invoice:
                    rows.append(_invoice_row(root, state, invoice))
                case _:
                    pass  # `observe` lets nothing else in
        return RowSet(tuple(rows), owned)


def _subscription_rows(root: ObjectKey, state: ObjectState, subscription: Subscription) -> Iterator[Row]:
    last_event = last_event_of((state,))
    columns = fields_of(subscription, without=frozenset({"subscription_id", "items", "pending_update"})) | last_event
    coupons = None if subscription.coupon_ids is None else list(subscription.coupon_ids)
    lists = {"discount_ids": list(subscription.discount_ids), "coupon_ids": coupons}
    yield Row("subscriptions", root, columns | lists)
    for item in subscription.items:
        columns = fields_of(item, without=frozenset({"subscription_item_id"})) | last_event
        # What has no id of its own (2013) is the one item of what this row set is about.
        key = ObjectKey(root.account, root.livemode, item.subscription_item_id or root.object_id)
        yield Row("subscription_items", key, {"subscription_id": root.object_id} | columns)


def _invoice_row(root: ObjectKey, state: ObjectState, invoice: Invoice) -> Row:
    columns = fields_of(invoice, without=frozenset({"invoice_id", "lines"})) | last_event_of((state,))
    # Stripe deletes drafts, and says "draft" to the last.
    return Row("invoices", root, columns | {"status": "deleted"} if is_deleted(state) else columns)


SUBSCRIPTIONS: Final = Subscriptions()
