"""What is said of a metric before there is one: name, kind, help, unit, labels, and a label's values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

PREFIX: Final = "stripe_ingest_"

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Unit: TypeAlias = Literal["seconds", "timestamp", "bytes", "count", "flag"]
"""Seconds; seconds since 1970; bytes; a number of things; 1 or 0."""
Part: TypeAlias = Literal["receiver", "recovery", "endpoints", "page", "publisher", "consumer", "process"]
"""Who exposes it: receivers the first four, receivers and consumers the last two of the others."""

Values: TypeAlias = tuple[str, ...]
ANY: Final[Values] = ()
"""The values of a label that are configured (endpoints, topics, accounts), or few and not known to the code
(partitions, SQLSTATEs, fingerprints, versions)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, by the name that it is exposed with."""

    name: str
    kind: Kind
    part: Part
    unit: Unit
    help: str
    values: Mapping[str, Values] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """Label → all values that the code may give it, or `ANY`."""
    buckets: tuple[float, ...] = ()
    """Of a histogram: the upper bounds, in its unit."""
    exemplars: bool = False
    """Whether its buckets name traces, where they are asked for as OpenMetrics."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels."""
        return tuple(self.values)

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its series in queries."""
        if self.kind == "histogram":
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Declaring:
    """Declares the metrics of one part. Names are given without the prefix; the keywords are the labels."""

    part: Part

    def counter(self, name: str, help: str, /, **labels: Values) -> Metric:  # noqa: A002 -- Prometheus' word
        """What only grows."""
        return Metric(PREFIX + name, "counter", self.part, "count", help, MappingProxyType(labels))

    def gauge(self, name: str, help: str, /, **labels: Values) -> Metric:  # noqa: A002
        """What goes up and down."""
        return Metric(PREFIX + name, "gauge", self.part, _unit(name), help, MappingProxyType(labels))

    def flag(self, name: str, help: str, /, **labels: Values) -> Metric:  # noqa: A002
        """What is so (1) or not (0)."""
        return Metric(PREFIX + name, "gauge", self.part, "flag", help, MappingProxyType(labels))

    def histogram(
        self,
        name: str,
        help: str,  # noqa: A002
        buckets: tuple[float, ...],
        /,
        *,
        exemplars: bool = False,
        **labels: Values,
    ) -> Metric:
        """How often something was how much."""
        return Metric(
            PREFIX + name, "histogram", self.part, _unit(name), help, MappingProxyType(labels), buckets, exemplars
        )


def _unit(name: str) -> Unit:
    if name.endswith("_timestamp_seconds"):
        return "timestamp"
    return "seconds" if name.endswith("_seconds") else "count"
