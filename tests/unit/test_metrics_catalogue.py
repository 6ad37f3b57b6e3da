"""What is exposed is what is declared, and Prometheus' own linter has nothing to say of it."""

import subprocess
from collections.abc import Callable, Iterable
from itertools import islice, product
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from service.adapters.kafka_publisher import Replacement
from service.consumer.dead_letter import LIMIT_REACHED, ROW_REFUSED
from service.contract import Category
from service.receiver.dedupe import Finding, Operation
from service.receiver.reloading import Outcome
from service.stripe_account.api_keys import KeyMode
from service.stripe_account.endpoint_problems import EndpointProblem
from service.telemetry import catalogue
from service.telemetry.catalogue import METRICS, PYTHON_METRICS, page
from service.telemetry.instruments import Counter, Gauge, Histogram, exemplar
from service.telemetry.metric import PREFIX, Metric
from service.telemetry.metrics import (
    ConsumerMetrics,
    EndpointMetrics,
    EventLogMetrics,
    PageMetrics,
    ProcessRegistry,
    PublisherMetrics,
    ReceiverMetrics,
    RecoveryMetrics,
)
from tests.tools import promtool

PAGE = Path(__file__).parents[2] / "deploy/prometheus/METRICS.md"

TRACE_ID = "0123456789abcdef0123456789abcdef"

RECEIVER: tuple[Callable[[CollectorRegistry], object], ...] = (
    ReceiverMetrics,
    EventLogMetrics,
    PageMetrics,
    RecoveryMetrics,
    EndpointMetrics,
    PublisherMetrics,
)
CONSUMER: tuple[Callable[[CollectorRegistry], object], ...] = (ConsumerMetrics, PublisherMetrics)


def populated(*groups: Callable[[CollectorRegistry], object]) -> ProcessRegistry:
    """A process's registry with a sample of every metric, and every value of every label but event types."""
    registry = ProcessRegistry()
    for owner in (registry, *(group(registry) for group in groups)):
        for instrument in vars(owner).values():
            if isinstance(instrument, Counter | Gauge | Histogram):
                for child in children(instrument):
                    touch(child, traced=declaration(instrument).exemplars)
    return registry


def children(instrument: Counter | Gauge | Histogram) -> Iterable[Counter | Gauge | Histogram]:
    declared = declaration(instrument)
    if not declared.labels:
        return [instrument]
    values = (declared.values[name] or ("x/1-y",) for name in declared.labels)
    return [instrument.labels(*each) for each in islice(product(*values), 200)]


def declaration(instrument: Counter | Gauge | Histogram) -> Metric:
    return METRICS[exposed_name(*instrument.describe())]


def touch(child: Counter | Gauge | Histogram, *, traced: bool) -> None:
    match child:
        case Counter():
            child.inc()
        case Gauge():
            child.set(1)
        case Histogram():
            child.observe(0.003, exemplar(TRACE_ID) if traced else None)


def exposed_name(family: Family) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


@pytest.fixture(params=[RECEIVER, CONSUMER], ids=["receiver", "consumer"])
def exposed(request: pytest.FixtureRequest) -> ProcessRegistry:
    return populated(*request.param)


def test_what_a_process_exposes_is_what_is_declared(exposed: ProcessRegistry) -> None:
    declared = {**METRICS, **PYTHON_METRICS}

    for family in exposed.collect():
        metric = declared[exposed_name(family)]
        assert (family.type, family.documentation) == (metric.kind, metric.help) or metric.name in PYTHON_METRICS
        for sample in family.samples:
            assert sample.name in metric.samples
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_every_metric_is_exposed_by_a_receiver_or_a_consumer() -> None:
    names = {exposed_name(family) for group in (RECEIVER, CONSUMER) for family in populated(*group).collect()}

    assert names == METRICS.keys() | PYTHON_METRICS.keys()


def test_the_linter_of_prometheus_has_nothing_to_say(exposed: ProcessRegistry) -> None:
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=generate_latest(exposed), capture_output=True, timeout=60, check=False
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_both_formats_can_be_read_and_only_openmetrics_has_exemplars(exposed: ProcessRegistry) -> None:
    text = generate_latest(exposed).decode()
    openmetrics = generate_openmetrics(exposed).decode()  # type: ignore[no-untyped-call]

    names = {family.name for family in parse_text(text)}
    families = list(parse_openmetrics(openmetrics))  # type: ignore[no-untyped-call]
    assert names == {family.name for family in families}
    assert TRACE_ID not in text
    traced = {family.name for family in families for sample in family.samples if sample.exemplar is not None}
    assert traced == {name for name, metric in METRICS.items() if metric.exemplars} & names


def test_nothing_tells_when_it_was_made(exposed: ProcessRegistry) -> None:
    assert "_created" not in generate_openmetrics(exposed).decode()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_recommends(metric: Metric) -> None:
    assert metric.name.startswith(PREFIX)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_seconds") == (metric.unit in {"seconds", "timestamp"})
    assert metric.name.endswith("_timestamp_seconds") == (metric.unit == "timestamp")
    assert (metric.buckets != ()) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.help.endswith(".")
    assert not set(metric.labels) & {"le", "job", "instance"}
    assert all(len(set(values)) == len(values) for values in metric.values.values())


def test_the_values_of_labels_are_those_of_the_code() -> None:
    def values(metric: Metric, label: str) -> set[str]:
        return set(metric.values[label])

    assert values(catalogue.ENDPOINT_PROBLEM, "problem") == {problem.value for problem in EndpointProblem}
    assert values(catalogue.PRODUCER_REPLACEMENTS, "reason") == set(get_args(Replacement))
    assert values(catalogue.DEDUPE_CLAIMS, "state") == set(get_args(Finding))
    assert values(catalogue.DEDUPE_DURATION, "operation") == set(get_args(Operation))
    assert values(catalogue.RELOADS, "outcome") == {outcome.value for outcome in Outcome}
    assert values(catalogue.RECONCILE_RUNS, "mode") == set(get_args(KeyMode))
    assert values(catalogue.EVENTS, "category") == set(get_args(Category))
    assert LIMIT_REACHED in values(catalogue.CONSUMER_PROBLEM, "problem")
    assert ROW_REFUSED in values(catalogue.DEAD_LETTERS, "reason")


def test_the_page_for_people_is_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"python -m service.telemetry.catalogue > {PAGE}"
