"""The few forms that the dashboards' queries have."""

from dataclasses import dataclass
from typing import Final

PREFIX: Final = "stripe_ingest_"


@dataclass(frozen=True)
class Scope:
    """What a dashboard's variables choose: matchers that each of its queries carries."""

    matchers: tuple[str, ...]

    def of(self, metric: str, *more: str) -> str:
        """A selector of a metric of ours (named without its prefix), narrowed further by `more` matchers."""
        return self.of_any(PREFIX + metric, *more)

    def of_any(self, metric: str, *more: str) -> str:
        """A selector of any metric, such as what every Python process shows."""
        matchers = ", ".join((*self.matchers, *more))
        return f"{metric}{{{matchers}}}" if matchers else metric

    def within(self, *more: str) -> "Scope":
        """A narrower scope."""
        return Scope((*self.matchers, *more))


EVERYWHERE: Final = Scope(())
"""Every process, whatever is chosen: for what another job shows than the dashboard's."""


def matching(*variables: str) -> Scope:
    """The scope of dashboard variables that are named like the labels which they choose."""
    return Scope(tuple(f'{name}=~"${name}"' for name in variables))


def rate(selector: str, *by: str) -> str:
    """A counter's rate a second, summed over everything but the labels `by`."""
    return f"sum{_by(by)} (rate({selector}[$__rate_interval]))"


def increase(selector: str, *by: str) -> str:
    """How much a counter grows from one point of a panel to the next."""
    return f"sum{_by(by)} (increase({selector}[$__rate_interval]))"


def total(selector: str, *by: str) -> str:
    """How much a counter has grown in the dashboard's time range; for tables, and numbers of the present."""
    return f"sum{_by(by)} (increase({selector}[$__range]))"


def quantile(share: float, buckets: str, *by: str) -> str:
    """A quantile of a histogram, whose `_bucket` selector is given."""
    return f"histogram_quantile({share:g}, {rate(buckets, 'le', *by)})"


def highest(selector: str, *by: str) -> str:
    """The highest of the gauges that share the labels `by`."""
    return f"max{_by(by)} ({selector})"


def since(selector: str, *by: str) -> str:
    """Seconds since the latest of the times that share the labels `by`."""
    return f"time() - {highest(selector, *by)}"


def ratio(part: str, whole: str) -> str:
    """A share of two sums; 0, and not 0/0, where there is nothing of the whole."""
    return f"({part}) / ({whole} > 0) or vector(0)"


def or_none(query: str, label: str) -> str:
    """The query, or where it gives nothing the value 0 of a series called "none": nothing has happened is an answer."""
    return f'({query}) or on () label_replace(vector(0), "{label}", "none", "", "")'


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
