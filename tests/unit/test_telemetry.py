"""What is said seldom, how little is told of an exception that nobody foresaw, and what observers make of what they see."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.consumer.lag import Lag
from service.consumer.latency import Latency
from service.consumer.observer import BatchReport
from service.errors import BrokerUnavailable
from service.events import Partition, Record
from service.ports import Applied
from service.telemetry.catalogue import EVENT_LOOP_LAG
from service.telemetry.instruments import histogram
from service.telemetry.loop_lag import measure_loop_lag
from service.telemetry.metrics import ConsumerMetrics, PublisherMetrics, ReceiverMetrics
from service.telemetry.observers import ConsumerMetricsObserver, DedupeMetricsObserver, MeteredPublisher
from service.telemetry.seldom import Seldom
from service.telemetry.traces import CAUSES_MAX, FRAMES_MAX, traced
from tests.support.receiving import ScriptedPublisher
from tests.support.waiting import eventually

FIRST, SECOND = Partition("stripe.payments", 0), Partition("stripe.payments", 1)
TRACE_ID = "0123456789abcdef0123456789abcdef"


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_one_message_comes_through_in_its_time_and_those_between_are_counted() -> None:
    clock = Hands()
    seldom = Seldom(60, monotonic=clock)

    assert [seldom.due() for _ in range(4)] == [0, None, None, None]
    clock.seconds = 59.9
    assert seldom.due() is None
    clock.seconds = 60
    assert [seldom.due(), seldom.due()] == [4, None]


def test_a_bug_of_the_dedupe_store_is_always_counted_seldom_told_and_never_quoted() -> None:
    metrics = ReceiverMetrics(CollectorRegistry())
    clock = Hands()
    observer = DedupeMetricsObserver(metrics, seldom=Seldom(60, monotonic=clock))

    with capture_logs() as lines:
        for _ in range(5):
            observer.unforeseen("claim", KeyError("planted"))
        clock.seconds = 60
        observer.unforeseen("claim", KeyError("planted"))

    assert metrics.dedupe_unforeseen.labels("claim")._value.get() == 6
    assert [(line["event"], line["error"], line["unsaid"]) for line in lines] == [
        ("dedupe.unforeseen", "KeyError", 0),
        ("dedupe.unforeseen", "KeyError", 4),
    ]
    assert "planted" not in str(lines)


def test_an_exception_is_told_by_its_types_and_its_innermost_frames() -> None:
    def deep(frames: int) -> None:
        if frames:
            deep(frames - 1)
        try:
            raise KeyError("planted")
        except KeyError as error:
            raise ValueError("planted too") from error

    with pytest.raises(ValueError, match="planted too") as raised:
        deep(50)
    told = traced(raised.value)

    assert told["error"] == "ValueError"
    causes, frames = told["causes"], told["frames"]
    assert isinstance(causes, list)
    assert isinstance(frames, list)
    assert causes[0] == "KeyError"
    assert len(causes) <= CAUSES_MAX
    assert len(frames) == FRAMES_MAX
    assert frames[-1].endswith(" deep")
    assert "planted" not in str(told)


def exemplars(registry: CollectorRegistry, name: str) -> list[str]:
    """The traces that a histogram's buckets name."""
    return [
        sample.exemplar.labels["trace_id"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"{name}_bucket" and sample.exemplar is not None
    ]


async def test_a_publish_is_timed_by_outcome_and_names_the_trace_of_its_record() -> None:
    registry = CollectorRegistry()
    inner = ScriptedPublisher()
    publisher = MeteredPublisher(inner, PublisherMetrics(registry))
    traceparent = f"00-{TRACE_ID}-0123456789abcdef-01".encode()
    record = Record("stripe.payments", b"key", b"value", (("ce_id", b"evt_1"), ("traceparent", traceparent)))

    await publisher.publish(record, deadline=0)
    inner.failures.append(BrokerUnavailable("away"))
    with pytest.raises(BrokerUnavailable):
        await publisher.publish(Record("stripe.payments", b"key", b"value", ()), deadline=0)

    name = "stripe_ingest_publish_duration_seconds"
    assert registry.get_sample_value(f"{name}_count", {"outcome": "acknowledged"}) == 1
    assert registry.get_sample_value(f"{name}_count", {"outcome": "broker_unavailable"}) == 1
    assert exemplars(registry, name) == [TRACE_ID]


class Consuming:
    """A consumer's observer, and what it shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.clock = Hands()
        self.observer = ConsumerMetricsObserver("payments", ConsumerMetrics(self.registry), now=self.clock)

    def shows(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"stripe_ingest_{name}", {"projection": "payments", **labels})

    def lag(self, partition: Partition) -> tuple[float | None, float | None]:
        """In records and seconds."""
        labels = {"topic": partition.topic, "partition": str(partition.number)}
        return self.shows("consumer_lag_records", **labels), self.shows("consumer_lag_seconds", **labels)


def test_lag_in_seconds_grows_though_nothing_is_told_any_more() -> None:
    world = Consuming()
    world.clock.seconds = 1000

    world.observer.lag({FIRST: Lag(3, 990.0), SECOND: Lag(0, None)})
    assert (world.lag(FIRST), world.lag(SECOND)) == ((3, 10), (0, 0))
    world.clock.seconds = 1600
    assert (world.lag(FIRST), world.lag(SECOND)) == ((3, 610), (0, 0))
    world.observer.lag({FIRST: Lag(1, 1590.0), SECOND: Lag(0, None)})
    assert world.lag(FIRST) == (1, 10)
    world.clock.seconds = 1500
    assert world.lag(FIRST) == (1, 0), "a clock that was set back makes no lag below nothing"


def test_a_partition_that_is_no_longer_ours_shows_nothing_and_begins_anew_when_it_comes_back() -> None:
    world = Consuming()

    world.observer.lag({FIRST: Lag(3, 0.0), SECOND: Lag(1, 0.0)})
    world.observer.lag({SECOND: Lag(1, 0.0)})
    assert (world.lag(FIRST), world.lag(SECOND)) == ((None, None), (1, 0))
    world.clock.seconds = 5
    world.observer.lag({FIRST: Lag(2, 1.0)})
    assert (world.lag(FIRST), world.lag(SECOND)) == ((2, 4), (None, None))


def test_each_known_problem_is_shown_as_one_or_zero() -> None:
    world = Consuming()

    def shown() -> set[str]:
        tags = ("starting", "store_unavailable", "broker_unavailable", "dead_letter_limit")
        found = {tag: world.shows("consumer_problem", problem=tag) for tag in tags}
        assert None not in found.values()
        return {tag for tag, value in found.items() if value}

    assert (shown(), world.shows("consumer_ready")) == ({"starting"}, 0)
    world.observer.problems({"store_unavailable", "dead_letter_limit"})
    assert (shown(), world.shows("consumer_ready")) == ({"store_unavailable", "dead_letter_limit"}, 0)
    assert world.observer.not_ready() == ("dead_letter_limit", "store_unavailable")
    world.observer.problems(())
    assert (shown(), world.shows("consumer_ready")) == (set(), 1)


def test_what_can_be_counted_is_there_before_it_happens() -> None:
    world = Consuming()

    assert world.shows("dead_letters_total", reason="not_json") == 0
    assert world.shows("records_total", outcome="dead_lettered") == 0
    assert (world.shows("fences_lost_total"), world.shows("rebalances_total")) == (0, 0)
    world.observer.rebalanced()
    assert world.shows("rebalances_total") == 1
    assert world.registry.get_sample_value("stripe_ingest_rebalances_total", {"projection": "refunds"}) is None


def test_the_way_of_each_new_event_is_timed_to_its_end() -> None:
    world = Consuming()
    report = BatchReport(
        records=3,
        applied=Applied(applied=2, already_applied=1, refolded=0, undecided=0),
        ignored=0,
        fetch_seconds=0.1,
        apply_seconds=0.2,
        oldest_seconds=9.0,
        latencies=(Latency(0.4, TRACE_ID), Latency(7.0, None)),
    )

    world.observer.batch_applied(report)

    assert world.shows("end_to_end_seconds_count") == 2
    assert world.shows("end_to_end_seconds_sum") == pytest.approx(7.4)
    assert exemplars(world.registry, "stripe_ingest_end_to_end_seconds") == [TRACE_ID]


async def test_a_loop_that_was_held_up_is_seen_to_be_late() -> None:
    registry = CollectorRegistry()
    lag = histogram(EVENT_LOOP_LAG, registry)

    def later_than(seconds: str) -> float:
        name = "stripe_ingest_event_loop_lag_seconds"
        count = registry.get_sample_value(f"{name}_count")
        soon = registry.get_sample_value(f"{name}_bucket", {"le": seconds})
        assert count is not None
        assert soon is not None
        return count - soon

    measuring = asyncio.create_task(measure_loop_lag(lag, every_seconds=0.01))
    try:
        await eventually(
            lambda: registry.get_sample_value("stripe_ingest_event_loop_lag_seconds_count"), what="it is measured"
        )
        before = later_than("0.1")
        until = time.perf_counter() + 0.3
        while time.perf_counter() < until:
            pass  # nobody else has a turn
        await eventually(lambda: later_than("0.1") > before, what="it was late")
    finally:
        measuring.cancel()
        await asyncio.wait([measuring])
