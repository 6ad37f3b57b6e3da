"""Live figures of one process: a sample of its own metrics every two seconds, and what the last ten minutes come to.

What a point says is a pure function of two samples. Metrics are read by their names, from the registry that `/metrics`
shows: whatever counts a delivery need not know that somebody looks.

An endpoint's health:

problem  something of its `problems` is so.
quiet    no event was accepted for longer than is usual here: ten times the mean interval between the events that this
         process has accepted, and a quarter of an hour at least; of fewer than ten events there is nothing usual, and a
         day has to pass. It may be night: this is no alarm.
ok       neither.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import structlog
from prometheus_client import CollectorRegistry

from service.errors import DeliveryRefused
from service.events import Endpoint
from service.ports import Clock
from service.signature import fingerprint
from service.telemetry.seldom import Seldom
from service.telemetry.traces import traced

EVERY_SECONDS: Final = 2
POINTS_MAX: Final = 300
"""Ten minutes."""
MINUTE_POINTS: Final = 60 // EVERY_SECONDS

QUIET_SECONDS_MIN: Final = 15 * 60.0
QUIET_INTERVALS: Final = 10
USUAL_EVENTS_MIN: Final = 10
UNUSUAL_SECONDS: Final = 24 * 3600.0

SIGNATURES_REFUSED: Final = "signatures_refused"
"""The problem of an endpoint at which all signed deliveries of the last ten minutes, three at least, were refused: most
often a wrong secret, or a wrong clock. What comes without a signature is anybody's, and no problem of the endpoint."""
SIGNATURES_REFUSED_MIN: Final = 3
NO_SECRET: Final = "secret_unknown"  # noqa: S105 -- a tag
"""The problem of an endpoint that has no signing secret: it refuses every delivery."""

DELIVERIES: Final = "stripe_ingest_deliveries_total"
DURATION: Final = "stripe_ingest_delivery_duration_seconds_bucket"
IN_FLIGHT: Final = "stripe_ingest_in_flight_deliveries"
LOOP_LAG: Final = "stripe_ingest_event_loop_lag_seconds_bucket"
LAST_EVENT: Final = "stripe_ingest_last_event_timestamp_seconds"
CLOCK_SKEW: Final = "stripe_ingest_clock_skew_seconds"
VERIFIED: Final = "stripe_ingest_verified_total"
BYPASSED: Final = "stripe_ingest_dedupe_bypassed_total"
PROBLEM: Final = "stripe_ingest_endpoint_problem"
UNDELIVERED: Final = "stripe_ingest_endpoint_undelivered_events"
LOGGED: Final = "stripe_ingest_event_log_arrivals_total"
NAMES: Final = (
    DELIVERIES, DURATION, IN_FLIGHT, LOOP_LAG, LAST_EVENT, CLOCK_SKEW, VERIFIED, BYPASSED, PROBLEM, UNDELIVERED,
    LOGGED,
)  # fmt: skip
"""What is read; one that is not there, such as what nobody watches, reads as nothing."""
_OF_ENDPOINTS: Final = (DELIVERIES, LAST_EVENT, CLOCK_SKEW, VERIFIED, PROBLEM, UNDELIVERED)

_SAFE: Final = frozenset({"accepted", "duplicate", "quarantined"})
_SIGNATURE_WRONG: Final = frozenset({"signature_mismatch", "timestamp_outside_tolerance"})

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""A series' labels, in the metric's own order."""
Series: TypeAlias = Mapping[Labels, float]
Its: TypeAlias = Sequence[tuple[Mapping[str, str], float]]
"""A metric's series of one endpoint."""
ByEndpoint: TypeAlias = Mapping[str, Its]

_log: Final = structlog.get_logger("service.page")


@dataclass(frozen=True, slots=True)
class Sample:
    """The metrics at one moment: `at` in Unix time, `monotonic` in seconds for what lies between two samples."""

    at: float
    monotonic: float
    metrics: Mapping[str, Series] = field(repr=False)

    def series(self, name: str) -> Series:
        """A metric's series; none where the process does not have it."""
        return self.metrics.get(name, {})


@dataclass(frozen=True, slots=True)
class Point:
    """What happened between two samples. Rates are per second; times in milliseconds, None where nothing was timed."""

    at: float
    seconds: float
    outcomes: Mapping[str, float]
    endpoints: Mapping[str, Mapping[str, float]]
    """Endpoint → outcome → deliveries; only what there was."""
    p50_ms: float | None
    p99_ms: float | None
    in_flight: float
    loop_lag_ms: float | None
    bypassed: float
    """Deliveries that were published without asking the dedupe store."""
    unlogged: float
    """Arrivals that the event log has not got."""


def read(registry: CollectorRegistry, clock: Clock) -> Sample:
    """The metrics as they are now."""
    metrics: defaultdict[str, dict[Labels, float]] = defaultdict(dict)
    for family in registry.restricted_registry(NAMES).collect():
        for sample in family.samples:
            metrics[sample.name][tuple(sample.labels.items())] = sample.value
    return Sample(clock.now().timestamp(), clock.monotonic(), metrics)


def increases(before: Series, after: Series) -> Mapping[Labels, float]:
    """By how much counters have grown; what has become smaller was set to 0 in between, and has grown from there."""
    grown = ((labels, value, before.get(labels, 0.0)) for labels, value in after.items())
    return {labels: value - old if value >= old else value for labels, value, old in grown}


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value below which this share of observations lies, read off cumulative buckets as Prometheus does.

    Inside a bucket they are taken as evenly spread; above the last bound it is that bound. None of no observations.
    """
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    rank, low, below = share * total, 0.0, 0.0
    for bound in sorted(buckets):
        count = buckets[bound]
        if count >= rank and count > below:
            return low if bound == float("inf") else low + (bound - low) * (rank - below) / (count - below)
        if bound != float("inf"):
            low, below = bound, max(below, count)
    return low


def between(before: Sample, after: Sample) -> Point:
    """What happened between two samples of one process."""
    seconds = max(after.monotonic - before.monotonic, 0.001)
    endpoints: defaultdict[str, dict[str, float]] = defaultdict(dict)
    outcomes: defaultdict[str, float] = defaultdict(float)
    for labels, count in increases(before.series(DELIVERIES), after.series(DELIVERIES)).items():
        if count:
            named = dict(labels)
            endpoints[named["endpoint"]][named["outcome"]] = count
            outcomes[named["outcome"]] += count / seconds
    durations = _buckets(before, after, DURATION, where=_is_safe)
    return Point(
        at=after.at,
        seconds=seconds,
        outcomes=dict(outcomes),
        endpoints=dict(endpoints),
        p50_ms=_milliseconds(quantile(0.5, durations)),
        p99_ms=_milliseconds(quantile(0.99, durations)),
        in_flight=sum(after.series(IN_FLIGHT).values()),
        loop_lag_ms=_milliseconds(quantile(0.99, _buckets(before, after, LOOP_LAG))),
        bypassed=sum(increases(before.series(BYPASSED), after.series(BYPASSED)).values()),
        unlogged=sum(
            count
            for labels, count in increases(before.series(LOGGED), after.series(LOGGED)).items()
            if ("result", "dropped") in labels
        ),
    )


def is_quiet(*, now: float, since: float, accepted: float, last_event_at: float | None) -> bool:
    """Whether an endpoint that is served `since` then has had no event for longer than is usual (see above)."""
    if last_event_at is None or accepted < USUAL_EVENTS_MIN:
        return now - (last_event_at or since) > UNUSUAL_SECONDS
    usual_seconds = (last_event_at - since) / accepted
    return now - last_event_at > max(QUIET_SECONDS_MIN, QUIET_INTERVALS * usual_seconds)


def _buckets(
    before: Sample, after: Sample, name: str, where: Callable[[Mapping[str, str]], bool] = lambda _: True
) -> Mapping[float, float]:
    """What all of a histogram's series have got, by upper bound."""
    total: defaultdict[float, float] = defaultdict(float)
    for labels, count in increases(before.series(name), after.series(name)).items():
        named = dict(labels)
        if where(named):
            total[float(named["le"])] += count
    return total


def _is_safe(labels: Mapping[str, str]) -> bool:
    """Whether deliveries were answered with 200: refusals are fast, and strangers' to make."""
    return labels.get("result", "safe") == "safe"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _refused_tags(kind: type[DeliveryRefused] = DeliveryRefused) -> Iterator[str]:
    yield kind.tag
    for below in kind.__subclasses__():
        yield from _refused_tags(below)


_REFUSED: Final = frozenset(_refused_tags()) - {DeliveryRefused.tag}
"""The outcomes that are answered with a 4xx. What is neither these nor safe was answered 503."""


class Live:
    """The figures of one process: `run` takes samples, `document` tells what they come to."""

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: Clock,
        *,
        endpoints: Callable[[], Iterable[Endpoint]],
        problems: Callable[[], Sequence[str]],
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._endpoints = endpoints
        self._problems = problems
        self._last = read(registry, clock)
        self._points: deque[Point] = deque(maxlen=POINTS_MAX)
        self._since: dict[str, float] = {}
        """Endpoint → since when it is served, as far as this has seen."""
        self._told: tuple[Sample, Mapping[str, object]] | None = None
        """What came of a sample: worked out once, however many ask."""
        self._seldom = Seldom()
        self._note_endpoints()

    async def run(self) -> None:
        """Take a sample every two seconds, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                self.sample()
            except Exception as error:  # noqa: BLE001 -- a figure is missing; deliveries are received, and the next one comes
                if (unsaid := self._seldom.due()) is not None:
                    _log.error("page.not_sampled", unsaid=unsaid, **traced(error))

    def sample(self) -> None:
        """Take one now."""
        now = read(self._registry, self._clock)
        self._points.append(between(self._last, now))
        self._last = now
        self._note_endpoints()

    def document(self) -> Mapping[str, object]:
        """All of it, as `/api/live` tells it."""
        if self._told is None or self._told[0] is not self._last:
            self._told = (self._last, self._figures())
        problems = list(self._problems())
        return {
            "now": self._clock.now().timestamp(),
            "every_seconds": EVERY_SECONDS,
            **self._told[1],
            "ready": not problems,
            "problems": problems,
        }

    def _figures(self) -> Mapping[str, object]:
        """What follows from the samples alone."""
        points = list(self._points)
        tags = sorted({tag for point in points for tag in point.outcomes} | _SAFE)
        by_endpoint = {name: _by_endpoint(self._last.series(name)) for name in _OF_ENDPOINTS}
        return {
            "at": [point.at for point in points],
            "outcomes": {tag: [round(point.outcomes.get(tag, 0.0), 3) for point in points] for tag in tags},
            "p50_ms": [point.p50_ms for point in points],
            "p99_ms": [point.p99_ms for point in points],
            "in_flight": [point.in_flight for point in points],
            "loop_lag_ms": [point.loop_lag_ms for point in points],
            "endpoints": [self._endpoint(endpoint, by_endpoint) for endpoint in self._endpoints()],
            "totals": _totals(self._last),
            "recent": {
                "bypassed": int(sum(point.bypassed for point in points)),
                "unlogged": int(sum(point.unlogged for point in points)),
            },
        }

    def _note_endpoints(self) -> None:
        served = {endpoint.name for endpoint in self._endpoints()}
        self._since = {name: self._since.get(name, self._last.at) for name in served}

    def _endpoint(self, endpoint: Endpoint, by_endpoint: Mapping[str, ByEndpoint]) -> Mapping[str, object]:
        name = endpoint.name
        its = {metric: found.get(name, ()) for metric, found in by_endpoint.items()}
        accepted = sum(value for labels, value in its[DELIVERIES] if labels["outcome"] == "accepted")
        # Before its first event the gauge says since when the endpoint is served.
        last_event_at = _one(its[LAST_EVENT]) if accepted else None
        now = self._last.at
        quiet = is_quiet(now=now, since=self._since.get(name, now), accepted=accepted, last_event_at=last_event_at)
        problems = self._problems_of(endpoint, its[PROBLEM])
        minute = list(self._points)[-MINUTE_POINTS:]
        verified = {labels["secret"]: value for labels, value in its[VERIFIED]}
        undelivered = _one(its[UNDELIVERED])
        return {
            "name": name,
            "path": endpoint.path,
            "mode": endpoint.mode,
            "account": endpoint.account,
            "last_event_at": last_event_at,
            "per_minute": _per_minute(minute, name, lambda tag: tag in _SAFE),
            "refused_per_minute": _per_minute(minute, name, lambda tag: tag in _REFUSED),
            "clock_skew_seconds": _one(its[CLOCK_SKEW]),
            "secrets": [
                {"fingerprint": each, "verified": int(verified.get(each, 0))}
                for each in map(fingerprint, endpoint.secrets)
            ],
            "problems": problems,
            "undelivered": None if undelivered is None else int(undelivered),
            "health": "problem" if problems else "quiet" if quiet else "ok",
        }

    def _problems_of(self, endpoint: Endpoint, seen: Its) -> Sequence[str]:
        found = {labels["problem"] for labels, value in seen if value}
        if not endpoint.secrets:
            found.add(NO_SECRET)
        counts: defaultdict[str, float] = defaultdict(float)
        for point in self._points:
            for tag, count in point.endpoints.get(endpoint.name, {}).items():
                counts[tag] += count
        wrong = sum(counts[tag] for tag in _SIGNATURE_WRONG)
        if wrong >= SIGNATURES_REFUSED_MIN and not any(counts[tag] for tag in _SAFE):
            found.add(SIGNATURES_REFUSED)
        return sorted(found)


def _by_endpoint(series: Series) -> ByEndpoint:
    """In one pass: to look through all series for each endpoint is work of the order of their square."""
    found: defaultdict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
    for labels, value in series.items():
        named = dict(labels)
        found[named["endpoint"]].append((named, value))
    return found


def _one(its: Its) -> float | None:
    """An endpoint's gauge; None where it has never been set."""
    return its[0][1] if its else None


def _per_minute(points: Sequence[Point], endpoint: str, counts: Callable[[str], bool]) -> float:
    seconds = sum(point.seconds for point in points)
    if not seconds:
        return 0.0
    tags = (item for point in points for item in point.endpoints.get(endpoint, {}).items())
    return round(60 * sum(count for tag, count in tags if counts(tag)) / seconds, 3)


def _totals(sample: Sample) -> Mapping[str, int]:
    """Deliveries since the process began."""
    totals = dict.fromkeys(("accepted", "duplicate", "quarantined", "refused", "unavailable"), 0)
    for labels, value in sample.series(DELIVERIES).items():
        tag = dict(labels)["outcome"]
        totals[tag if tag in _SAFE else "refused" if tag in _REFUSED else "unavailable"] += int(value)
    return {**totals, "bypassed": int(sum(sample.series(BYPASSED).values()))}
