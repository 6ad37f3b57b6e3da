"""Refunds: a row per refund, those embedded in charges included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.contract import Category, Event
from service.projections.columns import fields_of, last_event_of
from service.projections.model import Links, ObjectKey, ObjectState, Observation, Row, RowSet
from service.projections.observing import observe_embedded_refunds, observe_object


@dataclass(frozen=True, slots=True)
class Refunds:
    """The table `refunds`. Each refund is its own and only root."""

    name: str = "refunds"
    ledger: str = "refund_events"
    categories: tuple[Category, ...] = ("refund",)

    def observe(self, event: Event) -> tuple[Observation, ...]:
        """See `Projection.observe`."""
        return (*observe_object(event, ("refund",)), *observe_embedded_refunds(event))

    def links(self, observation: Observation) -> Links:
        """See `Projection.links`."""
        return Links(roots=frozenset({observation.key.object_id}), refs=frozenset(), via=None)

    def rows(self, root: ObjectKey, states: Sequence[ObjectState]) -> RowSet:
        """See `Projection.rows`."""
        rows = (
            Row("refunds", root, fields_of(s.data, without=frozenset({"refund_id"})) | last_event_of((s,)))
            for s in states
        )
        return RowSet(tuple(rows), owned={})


REFUNDS: Final = Refunds()
