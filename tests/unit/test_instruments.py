"""Children that are found fast and forgotten when they are removed; exemplars that cost little."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from service.telemetry import instruments
from service.telemetry.instruments import EXEMPLAR_SECONDS, at_zero, counter, exemplar, gauge, histogram
from service.telemetry.metric import ANY, Declaring

DECLARING = Declaring("receiver")
EVENTS = DECLARING.counter("things_total", "Things.", endpoint=ANY, outcome=("good", "bad"))
CLOSED = DECLARING.counter("closed_total", "Things.", color=("red", "green"), outcome=("good", "bad"))
MANY = DECLARING.counter("many_total", "Things.", event_type=tuple(f"type.{number}" for number in range(41)))
OF_ONE = DECLARING.counter("mine_total", "Things.", projection=("payments", "refunds"))
STATE = DECLARING.gauge("state", "A state.", endpoint=ANY)
TOOK = DECLARING.histogram("took_seconds", "How long.", (0.1, 1.0), exemplars=True, endpoint=ANY)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def series(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_a_child_is_found_again_however_it_is_asked_for(registry: CollectorRegistry) -> None:
    made = counter(EVENTS, registry)

    made.labels("shop", "good").inc()
    made.labels("shop", "good").inc()
    made.labels(endpoint="shop", outcome="good").inc()

    assert series(registry, "stripe_ingest_things_total") == {("shop", "good"): 3}


def test_a_child_that_was_removed_begins_anew(registry: CollectorRegistry) -> None:
    made = gauge(STATE, registry)
    for name in ("shop", "other"):
        made.labels(name).set(1)

    made.remove("shop")
    assert series(registry, "stripe_ingest_state") == {("other",): 1}
    made.labels("shop").inc()
    assert series(registry, "stripe_ingest_state") == {("other",): 1, ("shop",): 1}
    made.remove_by_labels({"endpoint": "other"})
    made.labels("other").set(5)
    assert series(registry, "stripe_ingest_state") == {("other",): 5, ("shop",): 1}
    made.clear()
    made.labels("shop").set(7)
    assert series(registry, "stripe_ingest_state") == {("shop",): 7}


def test_a_counter_whose_labels_are_known_begins_at_zero(registry: CollectorRegistry) -> None:
    counter(EVENTS, registry)
    counter(CLOSED, registry)
    counter(MANY, registry)
    counter(OF_ONE, registry)

    assert series(registry, "stripe_ingest_closed_total") == dict.fromkeys(
        [("red", "good"), ("red", "bad"), ("green", "good"), ("green", "bad")], 0
    )
    for name in ("things", "many", "mine"):
        assert series(registry, f"stripe_ingest_{name}_total") == {}


def test_with_one_label_known_the_others_begin_at_zero(registry: CollectorRegistry) -> None:
    at_zero(counter(EVENTS, registry), EVENTS, endpoint="shop")

    assert series(registry, "stripe_ingest_things_total") == {("shop", "good"): 0, ("shop", "bad"): 0}


def test_what_is_declared_as_one_kind_is_not_made_as_another(registry: CollectorRegistry) -> None:
    with pytest.raises(TypeError, match="declared as a counter"):
        gauge(EVENTS, registry)
    with pytest.raises(TypeError, match="declared as a gauge"):
        histogram(STATE, registry)


def test_a_bucket_names_another_trace_once_a_second(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 1000.0
    monkeypatch.setattr(instruments, "time", SimpleNamespace(monotonic=lambda: seconds))
    made = histogram(TOOK, registry)

    def traces() -> dict[str, str | None]:
        return {
            sample.labels["le"]: sample.exemplar.labels["trace_id"] if sample.exemplar else None
            for family in registry.collect()
            for sample in family.samples
            if sample.name.endswith("_bucket")
        }

    made.labels("shop").observe(0.05, exemplar("first"))
    made.labels("shop").observe(0.1, exemplar("too soon"))
    made.labels("shop").observe(0.5, exemplar("slow"))
    made.labels("shop").observe(5, exemplar("slowest"))
    made.labels("shop").observe(5, exemplar(None))
    assert traces() == {"0.1": "first", "1.0": "slow", "+Inf": "slowest"}

    seconds += EXEMPLAR_SECONDS
    made.labels("shop").observe(0.1, exemplar("next"))
    assert traces() == {"0.1": "next", "1.0": "slow", "+Inf": "slowest"}
    assert series(registry, "stripe_ingest_took_seconds_count") == {("shop",): 6}
