"""The facts that a shop's story ends with are the rows, in whatever order its events arrive."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from service.contract import Event
from service.normalize import normalize
from service.projections import PROJECTIONS
from service.signature import verify
from service.simulator.events import render
from service.simulator.shop import deliveries, shop
from tests.support.histories import oracle_rows
from tests.support.signing import NOW, signed_delivery

TABLES = ("payments", "refunds", "subscriptions", "invoices", "products", "prices")
OPENING = datetime(2026, 3, 1, tzinfo=UTC)


def normalized(bodies: Iterable[dict[str, Any]]) -> list[Event]:
    """The events as the receiver publishes them."""
    events = [normalize(verify(signed_delivery(render(body)), now=NOW, tolerance_seconds=300)) for body in bodies]
    assert all(isinstance(event, Event) for event in events)
    return [event for event in events if isinstance(event, Event)]


def facts(events: Iterable[Event]) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """All projections' rows, by table and id."""
    arrived = list(events)
    return {
        (table, key.object_id): columns
        for projection in PROJECTIONS.values()
        for (table, key), columns in oracle_rows(projection, arrived).items()
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_rows_are_what_happened_at_the_shop(seed: int) -> None:
    story = shop(seed, OPENING)
    rows = facts(normalized(deliveries(story, seed)))
    assert rows == facts(normalized(story.events))
    for table in TABLES:
        assert story.expected[table]
        for row_id, expected in story.expected[table].items():
            row = rows[table, row_id]
            assert {name: row[name] for name in expected} == dict(expected), (table, row_id)
