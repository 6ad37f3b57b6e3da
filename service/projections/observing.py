"""From events to observations: which objects an event speaks of."""

from collections.abc import Collection, Iterator

from service.contract import Charge, Event, Invoice, Other
from service.projections.model import ObjectKey, Observation


def observe_object(event: Event, object_types: Collection[str]) -> Iterator[Observation]:
    """The event's own object, if it is of one of the types and has an id. `previous` belongs to it alone."""
    if event.object_id is None or event.object_type not in object_types or isinstance(event.data, Other):
        return
    if isinstance(event.data, Invoice) and event.data.invoice_id is None:
        return
    yield Observation(
        key=ObjectKey(event.account, event.livemode, event.object_id),
        object_type=event.object_type,
        event_id=event.event_id,
        event_type=event.event_type,
        created_at=event.created_at,
        api_version=event.api_version,
        data=event.data,
        previous=event.previous,
    )


def observe_embedded_refunds(event: Event) -> Iterator[Observation]:
    """The refunds inside a charge."""
    if isinstance(event.data, Charge):
        for refund in event.data.refunds:
            yield Observation(
                key=ObjectKey(event.account, event.livemode, refund.refund_id),
                object_type="refund",
                event_id=event.event_id,
                event_type=event.event_type,
                created_at=event.created_at,
                api_version=event.api_version,
                data=refund,
                previous=None,
            )
