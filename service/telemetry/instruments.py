"""What is declared, made to count: the client library's instruments, with what a hot path needs of them."""

import time
from bisect import bisect_left
from itertools import product
from math import prod
from typing import Any, Final, Self, TypeVar

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client import Counter as _Counter
from prometheus_client import Gauge as _Gauge
from prometheus_client import Histogram as _Histogram
from prometheus_client.metrics import MetricWrapperBase

from service.telemetry.metric import Metric

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series of each instrument, which nobody asks for

EXEMPLAR_SECONDS: Final = 1.0
"""A bucket names another trace so often at most: a scrape takes one, and each costs more than the observation."""

AT_ZERO_MAX: Final = 40
"""A counter whose children are so many at most has all of them from the start."""


class _Kept(MetricWrapperBase):
    """Finds a child again by its labels without the library's lock and conversions, twice the cost of counting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._kept: dict[tuple[str, ...], Self] = {}
        super().__init__(*args, **kwargs)

    def labels(self, *labelvalues: Any, **labelkwargs: Any) -> Self:
        """See prometheus_client."""
        child = self._kept.get(labelvalues)
        if child is None or labelkwargs:
            child = super().labels(*labelvalues, **labelkwargs)
            if not labelkwargs:
                self._kept[labelvalues] = child
        return child

    def remove(self, *labelvalues: Any) -> None:
        """See prometheus_client."""
        self._kept.clear()
        super().remove(*labelvalues)

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        """See prometheus_client."""
        self._kept.clear()
        super().remove_by_labels(labels)

    def clear(self) -> None:
        """See prometheus_client."""
        self._kept.clear()
        super().clear()


class Counter(_Kept, _Counter):
    """A counter."""


class Gauge(_Kept, _Gauge):
    """A gauge."""


class Histogram(_Kept, _Histogram):
    """A histogram. Of the exemplars that are given it takes one a second for each bucket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._bounds: tuple[float, ...] = tuple(kwargs["buckets"])
        self._due = [0.0] * (len(self._bounds) + 1)
        super().__init__(*args, **kwargs)

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """See prometheus_client."""
        if exemplar is not None:
            now, bucket = time.monotonic(), bisect_left(self._bounds, amount)
            if now < self._due[bucket]:
                exemplar = None
            else:
                self._due[bucket] = now + EXEMPLAR_SECONDS
        super().observe(amount, exemplar)


def exemplar(trace_id: str | None) -> dict[str, str] | None:
    """What names the trace of an observation."""
    return None if trace_id is None else {"trace_id": trace_id}


I = TypeVar("I", Counter, Gauge)  # noqa: E741 -- an instrument


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """A counter, all of whose children are there from the start where the code knows them.

    What is not there before it happens for the first time cannot be seen to increase. A process has one projection, and
    nothing to say of others.
    """
    made = _made(Counter, metric, registry)
    if (
        metric.labels
        and "projection" not in metric.labels
        and 0 < prod(map(len, metric.values.values())) <= AT_ZERO_MAX
    ):
        at_zero(made, metric)
    return made


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """A gauge."""
    return _made(Gauge, metric, registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """A histogram."""
    _check(metric, "histogram")
    return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


def at_zero(instrument: Counter | Gauge, metric: Metric, **known: str) -> None:
    """Have its children with these labels, for all values that its other labels may have."""
    for values in product(*((known[name],) if name in known else metric.values[name] for name in metric.labels)):
        instrument.labels(*values)


def _made(kind: type[I], metric: Metric, registry: CollectorRegistry) -> I:
    _check(metric, kind.__name__.lower())
    return kind(metric.name, metric.help, metric.labels, registry=registry)


def _check(metric: Metric, kind: str) -> None:
    if metric.kind != kind:
        raise TypeError(f"{metric.name} is declared as a {metric.kind}")
