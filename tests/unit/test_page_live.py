"""What two samples of a process's metrics come to, and what the page tells of it."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.events import Endpoint, Secret
from service.page.live import (
    BYPASSED,
    CLOCK_SKEW,
    DELIVERIES,
    DURATION,
    EVERY_SECONDS,
    IN_FLIGHT,
    LAST_EVENT,
    LOOP_LAG,
    MINUTE_POINTS,
    POINTS_MAX,
    QUIET_SECONDS_MIN,
    UNUSUAL_SECONDS,
    VERIFIED,
    Live,
    Sample,
    Series,
    between,
    increases,
    is_quiet,
    quantile,
    read,
)
from service.signature import fingerprint
from service.telemetry.metrics import EndpointMetrics, EventLogMetrics, ReceiverMetrics, registry

SHOP = Endpoint("shop", "/webhooks/shop", (Secret("whsec_0123456789"),), mode="live", account="acct_1")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class World:
    """A process's metrics, and the figures that are made of them."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.clock = Hands()
        self.registry = registry()
        self.metrics = ReceiverMetrics(self.registry)
        self.problems: list[str] = []
        self.endpoints: Sequence[Endpoint] = endpoints or (SHOP,)
        self.live = Live(self.registry, self.clock, endpoints=lambda: self.endpoints, problems=lambda: self.problems)

    def deliver(self, outcome: str, count: int = 1, *, endpoint: str = "shop") -> None:
        self.metrics.deliveries.labels(endpoint, outcome).inc(count)
        if outcome == "accepted":
            self.metrics.last_event.labels(endpoint).set(self.clock.now().timestamp())

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.seconds += EVERY_SECONDS
            self.live.sample()

    def of(self, name: str = "shop") -> dict[str, object]:
        listed = self.live.document()["endpoints"]
        assert isinstance(listed, list)
        return dict(next(each for each in listed if each["name"] == name))


def sample(at: float, **metrics: Series) -> Sample:
    return Sample(at, at, metrics)


counters = st.dictionaries(
    st.sampled_from([(("endpoint", e), ("outcome", o)) for e in "ab" for o in ("accepted", "duplicate", "in_flight")]),
    st.integers(0, 10**6).map(float),
)


@given(counters, counters)
def test_increases_are_never_negative_and_add_up(first: Series, second: Series) -> None:
    grown = increases(first, second)

    assert grown.keys() == second.keys()
    assert all(value >= 0 for value in grown.values())
    later = {labels: value + second.get(labels, 0) for labels, value in first.items()} | dict(second)
    monotone = {labels: max(later[labels], first.get(labels, 0.0)) for labels in later}
    assert increases(first, monotone) == {labels: value - first.get(labels, 0.0) for labels, value in monotone.items()}


def test_a_counter_that_was_reset_has_grown_from_zero() -> None:
    labels = (("endpoint", "shop"),)

    assert increases({labels: 100.0}, {labels: 7.0}) == {labels: 7.0}
    assert increases({}, {labels: 7.0}) == {labels: 7.0}
    assert increases({labels: 7.0}, {}) == {}


BOUNDS = (0.001, 0.01, 0.1, 1.0, math.inf)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_within_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in BOUNDS}

    found = quantile(share, buckets)

    true = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    above = min(bound for bound in BOUNDS if true <= bound)
    below = max((bound for bound in BOUNDS if bound < above), default=0.0)
    assert found is not None
    if above == math.inf:
        assert found == BOUNDS[-2]
    else:
        assert below <= found <= above + 1e-9


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile(0.5, {}) is None
    assert quantile(0.5, dict.fromkeys(BOUNDS, 0.0)) is None
    assert quantile(0.5, {1.0: 10.0, math.inf: 10.0}) == pytest.approx(0.5)


@given(counters, counters, st.floats(0.1, 100))
def test_rates_come_to_what_was_counted(first: Series, second: Series, seconds: float) -> None:
    point = between(sample(0.0, **{DELIVERIES: first}), sample(seconds, **{DELIVERIES: second}))

    counted = sum(increases(first, second).values())
    assert sum(point.outcomes.values()) * point.seconds == pytest.approx(counted)
    assert sum(sum(each.values()) for each in point.endpoints.values()) == pytest.approx(counted)
    assert (point.p50_ms, point.p99_ms, point.loop_lag_ms, point.in_flight) == (None, None, None, 0)


def test_times_are_those_of_safe_deliveries() -> None:
    def buckets(result: str, upto: float) -> Series:
        return {
            (("endpoint", "shop"), ("result", result), ("le", str(bound))): float(10 if bound >= upto else 0)
            for bound in (0.005, 0.01, 1.0, math.inf)
        }

    metrics: Mapping[str, Series] = {
        DURATION: {**buckets("safe", 0.01), **buckets("refused", 0.005)},
        IN_FLIGHT: {(): 3.0},
        LOOP_LAG: {(("le", "0.1"),): 99.0, (("le", "+Inf"),): 100.0},
    }
    point = between(sample(0.0), sample(2.0, **metrics))

    assert point.p50_ms == pytest.approx(7.5)
    assert point.p99_ms == pytest.approx(9.95)
    assert point.loop_lag_ms == pytest.approx(100)
    assert point.in_flight == 3


def test_the_metrics_are_read_by_the_names_they_have() -> None:
    world = World()
    world.deliver("accepted")
    world.metrics.clock_skew.labels("shop").set(-1.5)
    world.metrics.in_flight.set(2)
    world.metrics.secret_used.labels("shop", "f").inc()
    world.metrics.dedupe_bypassed.inc()

    names = read(world.registry, world.clock).metrics

    assert {DELIVERIES, LAST_EVENT, CLOCK_SKEW, IN_FLIGHT, VERIFIED, BYPASSED} <= names.keys()


def test_the_last_ten_minutes_are_kept() -> None:
    world = World()
    world.tick(POINTS_MAX + 10)
    world.deliver("accepted", 4)
    world.deliver("signature_mismatch", 2)
    world.metrics.dedupe_bypassed.inc(3)
    world.tick()

    told = world.live.document()
    assert told["every_seconds"] == EVERY_SECONDS
    at, outcomes = told["at"], told["outcomes"]
    assert isinstance(at, list)
    assert isinstance(outcomes, dict)
    assert len(at) == POINTS_MAX
    assert at[-1] - at[0] == (POINTS_MAX - 1) * EVERY_SECONDS
    assert {name: (len(rates), sum(rates)) for name, rates in outcomes.items()} == {
        "accepted": (POINTS_MAX, 4 / EVERY_SECONDS),
        "duplicate": (POINTS_MAX, 0),
        "quarantined": (POINTS_MAX, 0),
        "signature_mismatch": (POINTS_MAX, 2 / EVERY_SECONDS),
    }
    assert told["totals"] == {
        "accepted": 4, "duplicate": 0, "quarantined": 0, "refused": 2, "unavailable": 0, "bypassed": 3,
    }  # fmt: skip
    assert (told["ready"], told["problems"]) == (True, [])
    assert told["recent"] == {"bypassed": 3, "unlogged": 0}
    log = EventLogMetrics(world.registry)
    log.arrivals.labels("written").inc(9)
    log.arrivals.labels("dropped").inc(2)
    world.tick()
    assert world.live.document()["recent"] == {"bypassed": 3, "unlogged": 2}
    world.tick(POINTS_MAX)
    assert world.live.document()["recent"] == {"bypassed": 0, "unlogged": 0}
    world.problems.append("kafka is away")
    assert world.live.document()["ready"] is False


def test_a_sample_is_worked_out_once_for_all_who_look() -> None:
    world, looks = World(), 0

    def endpoints() -> Sequence[Endpoint]:
        nonlocal looks
        looks += 1
        return (SHOP,)

    live = Live(world.registry, world.clock, endpoints=endpoints, problems=lambda: world.problems)
    live.sample()
    looks = 0
    for _ in range(5):
        live.document()
    assert looks == 1
    live.sample()
    looks = 0
    live.document()
    assert looks == 1


def test_every_outcome_is_safe_refused_or_unavailable() -> None:
    world = World()
    for outcome in ("duplicate", "quarantined", "endpoint_unknown", "body_too_large", "client_gone"):
        world.deliver(outcome, endpoint="unmatched")
    for outcome in ("broker_unavailable", "dedupe_unavailable", "in_flight", "overloaded", "internal_error"):
        world.deliver(outcome)
    world.tick()

    assert world.live.document()["totals"] == {
        "accepted": 0, "duplicate": 1, "quarantined": 1, "refused": 3, "unavailable": 5, "bypassed": 0,
    }  # fmt: skip


def test_an_endpoint_is_told_with_what_it_gets() -> None:
    world = World()
    world.metrics.secret_used.labels("shop", fingerprint(SHOP.secrets[0])).inc(5)
    world.metrics.clock_skew.labels("shop").set(0.25)
    EndpointMetrics(world.registry).undelivered.labels("shop").set(7)
    world.tick(MINUTE_POINTS)
    world.deliver("accepted", 3)
    world.deliver("duplicate", 3)
    world.deliver("signature_missing", 1)
    world.tick()

    assert world.of() == {
        "name": "shop", "path": "/webhooks/shop", "mode": "live", "account": "acct_1",
        "last_event_at": (NOON + timedelta(seconds=60)).timestamp(), "per_minute": 6.0, "refused_per_minute": 1.0,
        "clock_skew_seconds": 0.25, "secrets": [{"fingerprint": fingerprint(SHOP.secrets[0]), "verified": 5}],
        "problems": [], "undelivered": 7, "health": "ok",
    }  # fmt: skip
    world.tick(MINUTE_POINTS)
    assert world.of()["per_minute"] == 0


def test_what_is_wrong_is_a_problem() -> None:
    bare = Endpoint("bare", "/webhooks/bare", ())
    world = World(SHOP, bare)
    endpoints = EndpointMetrics(world.registry)
    endpoints.problem.labels("shop", "disabled").set(1)
    endpoints.problem.labels("shop", "missing").set(0)
    world.tick()

    assert (world.of()["problems"], world.of()["health"]) == (["disabled"], "problem")
    assert (world.of("bare")["problems"], world.of("bare")["health"]) == (["secret_unknown"], "problem")
    endpoints.problem.labels("shop", "disabled").set(0)
    world.deliver("signature_mismatch", 2)
    world.deliver("signature_missing", 100)  # anybody's
    world.tick()
    assert world.of()["problems"] == []
    world.deliver("timestamp_outside_tolerance")
    world.tick()
    assert world.of()["problems"] == ["signatures_refused"]
    world.deliver("accepted")
    world.tick()
    assert world.of()["problems"] == []


@pytest.mark.parametrize(
    ("accepted", "span", "silence", "quiet"),
    [
        (0, 0.0, UNUSUAL_SECONDS - 1, False),
        (0, 0.0, UNUSUAL_SECONDS + 1, True),
        (9, 90.0, QUIET_SECONDS_MIN + 1, False),
        (9, 90.0, UNUSUAL_SECONDS + 1, True),
        (100, 100.0, QUIET_SECONDS_MIN - 1, False),
        (100, 100.0, QUIET_SECONDS_MIN + 1, True),
        (100, 100 * 3600.0, 9 * 3600.0, False),
        (100, 100 * 3600.0, 11 * 3600.0, True),
    ],
)
def test_quiet_is_longer_without_an_event_than_is_usual(
    accepted: int, span: float, silence: float, quiet: bool
) -> None:
    last = span if accepted else None

    assert is_quiet(now=span + silence, since=0.0, accepted=accepted, last_event_at=last) is quiet


def test_an_endpoint_that_comes_later_is_new() -> None:
    world = World()
    world.clock.seconds += 2 * UNUSUAL_SECONDS
    world.endpoints = (SHOP, Endpoint("late", "/webhooks/late", SHOP.secrets))
    world.tick()

    assert (world.of()["health"], world.of("late")["health"]) == ("quiet", "ok")
    assert world.of("late")["last_event_at"] is None
