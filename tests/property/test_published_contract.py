"""Whatever is published is as the contract says, however strange the event it was made of."""

from collections.abc import Iterator, MutableMapping, MutableSequence
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.contract import Event
from service.normalize import normalize
from service.records import Topics, encode, marked
from service.signature import verify
from service.simulator.events import SAMPLE_EVENT_TYPES, sample
from tests.support.published_contract import complaints
from tests.support.signing import NOW, signed_delivery

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**63 - 1, -(2**63), 2**63, 1.0, 1.5, 253_402_300_799]),
    st.sampled_from(["", "x", "2020-01-01T00:00:00Z", "\0", "é", "9" * 600]),
    st.builds(list),
    st.builds(dict),
    st.builds(lambda value: {"id": value, "data": [{"id": value}]}, st.sampled_from(["x", None, 1])),
)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a tree with each of its keys or indexes."""
    if isinstance(tree, MutableMapping | MutableSequence):
        for name in tree if isinstance(tree, MutableMapping) else range(len(tree)):
            yield tree, name
            yield from places(tree[name])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(event_type=st.sampled_from(sorted(SAMPLE_EVENT_TYPES)), data=st.data())
def test_a_record_of_a_spoilt_event_is_as_the_contract_says(event_type: str, data: st.DataObject) -> None:
    event = sample(event_type, seed=1, created=1_790_000_000)
    found = list(places(event["data"]))
    for index in data.draw(st.lists(st.integers(0, len(found) - 1), min_size=1, max_size=4)):
        container, name = found[index]
        container[name] = data.draw(VALUES)

    taken = normalize(verify(signed_delivery(orjson.dumps(event)), now=NOW, tolerance_seconds=300))

    if isinstance(taken, Event):
        made = encode(taken, topics=Topics("stripe"), ingest_source="webhook", include_raw=False, traceparent="00")
        assert complaints(marked(made, "checked")) == []
