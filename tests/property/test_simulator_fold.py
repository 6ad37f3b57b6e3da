"""Whatever arrives, in whatever order: the folds come to the facts that the story states."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import Event
from service.normalize import normalize
from service.projections import PROJECTIONS
from service.projections.linking import Known, grow, observe
from service.projections.model import ObjectKey, Observation, Projection
from service.projections.ordering import fold
from service.signature import verify
from service.simulator.events import render
from service.simulator.objects import Object
from service.simulator.shop import deliveries, shop
from tests.support.signing import NOW, signed_delivery

SEEDS = st.integers(min_value=0, max_value=2**63 - 1)
TABLES = {
    "payments": ("payments",),
    "refunds": ("refunds",),
    "subscriptions": ("subscriptions", "invoices"),
    "catalog": ("products", "prices"),
}


def normalized(event: Object) -> Event:
    taken = normalize(verify(signed_delivery(render(event)), now=NOW, tolerance_seconds=300))
    assert isinstance(taken, Event)
    return taken


def project(projection: Projection, events: Iterable[Event]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Table → id → columns, from all events at once and nothing stored."""
    observed = observe(projection, [event for event in events if event.category in projection.categories])
    by_object: defaultdict[ObjectKey, list[Observation]] = defaultdict(list)
    for observation, _ in observed:
        by_object[observation.key].append(observation)
    growth = grow(observed, Known())
    tables: defaultdict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for root in growth.roots:
        members = {member for member, of_root in growth.links if of_root == root}
        states = [fold(by_object[member]).state for member in sorted(members) if member in by_object]
        for row in projection.rows(root, states).rows:
            tables[row.table][row.key.object_id] = row.columns
    return tables


@pytest.mark.parametrize("name", sorted(PROJECTIONS))
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, arrival_seed=SEEDS)
def test_folding_a_story_in_any_order_of_arrival_gives_its_facts(name: str, seed: int, arrival_seed: int) -> None:
    story = shop(seed, NOW - timedelta(days=120))
    tables = project(PROJECTIONS[name], [normalized(event) for event in deliveries(story, arrival_seed)])
    for table in TABLES[name]:
        assert tables[table].keys() == story.expected[table].keys()
        for object_id, facts in story.expected[table].items():
            row = tables[table][object_id]
            assert {column: row[column] for column in facts} == facts, table
