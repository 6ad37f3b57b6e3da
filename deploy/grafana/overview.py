"""The overview: are the promises kept, and where to look when they are not."""

from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.frame import Row, Variable, dashboard_of
from deploy.grafana.panels import RUNBOOKS, About, Levels, Query, lines, listing, number
from deploy.grafana.processes import versions
from deploy.grafana.promql import EVERYWHERE, highest, matching, rate, since, total

_JOB: Final = matching("job")
_FIRING: Final = ('alertname=~"StripeIngest.*"', 'alertstate="firing"')


def overview() -> Dashboard:
    """The dashboard."""
    return dashboard_of(
        "stripe-ingest-overview",
        "stripe-ingest / Overview",
        "The promises and what is left of their error budgets, alerts, deliveries, lag, endpoints.",
        [Variable("job", "stripe_ingest_build_info")],
        [_promises(), _now(), _flow(), _parts()],
    )


@dataclass(frozen=True)
class _Promise:
    """An objective over 30 days: the share that may go wrong, and the shares that do."""

    title: str
    text: str
    allowed: float
    recorded: str
    """Of the shares over shorter times, which deploy/prometheus/recording.yml has."""
    wrong: str
    """What went wrong in 30 days, and of how much; by what they have in common. They are asked once, not recorded."""
    of: str
    alerts: tuple[str, ...]

    def burn(self, window: str) -> str:
        """How many times as fast as allowed the budget is used up."""
        return f"max(stripe_ingest:{self.recorded}:ratio_rate{window}) / {self.allowed:g}"

    @property
    def left(self) -> str:
        """Which share of the budget of 30 days is left."""
        return f"1 - max(({self.wrong}) / ({self.of} > 0)) / {self.allowed:g}"


def _month(selector: str, *by: str) -> str:
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (increase({selector}[30d]))"


_ANSWERS: Final = "delivery_duration_seconds_count"
_UNAVAILABLE: Final = _month(EVERYWHERE.of(_ANSWERS, 'result="unavailable"'))
_OURS: Final = _month(EVERYWHERE.of(_ANSWERS, 'result=~"safe|unavailable"'))
_SAFE: Final = _month(EVERYWHERE.of(_ANSWERS, 'result="safe"'))
_IN_TIME: Final = _month(EVERYWHERE.of("delivery_duration_seconds_bucket", 'result="safe"', 'le="0.3"'))
_APPLIED: Final = _month(EVERYWHERE.of("end_to_end_seconds_count"), "projection")
_FRESH: Final = _month(EVERYWHERE.of("end_to_end_seconds_bucket", 'le="5.0"'), "projection")
_PROMISES: Final = (
    _Promise(
        "Deliveries taken",
        "99.95 % of signed deliveries are answered 200, over 30 days.",
        0.0005,
        "deliveries_unavailable",
        f"{_UNAVAILABLE} or vector(0)",
        _OURS,
        ("StripeIngestErrorBudgetBurnFast", "StripeIngestErrorBudgetBurnSlow"),
    ),
    _Promise(
        "Answers within 300 ms",
        "99 % of safe answers take less than 300 ms, over 30 days.",
        0.01,
        "answers_slow",
        f"{_SAFE} - {_IN_TIME}",
        _SAFE,
        ("StripeIngestLatencyBudgetBurnFast", "StripeIngestLatencyBudgetBurnSlow"),
    ),
    _Promise(
        "In the tables within 5 s",
        "99 % of events are in the tables within 5 s, over 30 days; of the projection that does worst.",
        0.01,
        "applied_late",
        f"{_APPLIED} - {_FRESH}",
        _APPLIED,
        ("StripeIngestFreshnessBudgetBurnFast", "StripeIngestFreshnessBudgetBurnSlow"),
    ),
)


def _promises() -> Row:
    left = [
        number(
            f"{promise.title}: budget left",
            About(
                f"{promise.text} 1: nothing went wrong; 0: the budget of 30 days is used up, and what is risky waits;"
                " below 0 the promise is broken.",
                promise.alerts,
            ),
            "percentunit",
            Query(promise.left),
            width=8,
            once=True,
            levels=Levels(orange=0.5, red=0.1, falling=True),
        )
        for promise in _PROMISES
    ]
    burning = [
        lines(
            f"{promise.title}: burn rate",
            About(
                f"{promise.text} How many times as fast as allowed the budget is used up. Below 1. 14.4 over 1 h and"
                " 5 m, or 6 over 6 h and 30 m, is an alert that pages.",
                promise.alerts,
            ),
            "none",
            *(Query(promise.burn(window), window) for window in ("5m", "1h", "6h", "3d")),
            levels=Levels(orange=1, red=6),
        )
        for promise in _PROMISES
    ]
    return Row("Promises", [*left, *burning])


def _now() -> Row:
    return Row(
        "Now",
        [
            number(
                "Deliveries",
                About(
                    "A second, whatever they are answered. Its course is the business's; 0 is Stripe gone silent.",
                    ("StripeIngestNoEvents",),
                ),
                "reqps",
                Query(rate(_JOB.of("deliveries_total"))),
            ),
            number(
                "Quarantined",
                About("In the time range: signed by Stripe, not usable here. 0.", ("StripeIngestQuarantineGrowing",)),
                "short",
                Query(total(_JOB.of("quarantined_total"))),
                levels=Levels(orange=1),
            ),
            number(
                "Dead letters",
                About("In the time range: records that could not be applied. 0.", ("StripeIngestDeadLetters",)),
                "short",
                Query(total(_JOB.of("dead_letters_total"))),
                levels=Levels(red=1),
            ),
            number(
                "Missed",
                About(
                    "In the time range: found by reconciliation, received by nobody. 0; they are there now.",
                    ("StripeIngestMissedEvents",),
                ),
                "short",
                Query(total(_JOB.of("missed_events_total"))),
                levels=Levels(orange=1),
            ),
            number(
                "Behind",
                About(
                    "The oldest record that a consumer has not applied. 0, or a second.", ("StripeIngestConsumerLag",)
                ),
                "s",
                Query(highest(_JOB.of("consumer_lag_seconds"))),
                levels=Levels(orange=5, red=60),
            ),
            number(
                "Not ready",
                About(
                    "Consumers through which no batch goes, and processes without a producer. 0.",
                    ("StripeIngestConsumerNotReady", "StripeIngestProducerDown"),
                ),
                "short",
                Query(f"count({_JOB.of('consumer_ready')} == 0 or {_JOB.of('producer_up')} == 0) or vector(0)"),
                levels=Levels(red=1),
            ),
        ],
    )


def _flow() -> Row:
    return Row(
        "Flow",
        [
            lines(
                "Deliveries a second, by result",
                About(
                    "safe: answered 200, in Kafka. refused: not shown to be Stripe's. unavailable: nothing durable"
                    " could take them; Stripe sends them again.",
                    ("StripeIngestErrorBudgetBurnFast", "StripeIngestDeliveriesRefused"),
                ),
                "reqps",
                Query(rate(_JOB.of("delivery_duration_seconds_count"), "result"), "{{result}}"),
                stacked=True,
            ),
            lines(
                "Records applied a second",
                About(
                    "By projection. It follows the deliveries at a second's distance; a gap between them is lag.",
                    ("StripeIngestConsumerStuck",),
                ),
                "recps",
                Query(
                    rate(_JOB.of("records_total", 'outcome=~"applied|already_applied"'), "projection"), "{{projection}}"
                ),
            ),
            lines(
                "Behind, by projection",
                About(
                    "Seconds that the oldest unapplied record has waited: the tables are that old. Below 5 s.",
                    ("StripeIngestConsumerLag",),
                ),
                "s",
                Query(highest(_JOB.of("consumer_lag_seconds"), "projection"), "{{projection}}"),
                levels=Levels(orange=5, red=60),
            ),
        ],
    )


def _parts() -> Row:
    return Row(
        "Alerts and endpoints",
        [
            listing(
                "Alerts",
                About(
                    "What fires now. StripeIngestWatchdog always does: it shows that alerts are evaluated. Each alert's"
                    " name leads to its runbook, which says what to do."
                ),
                [
                    (
                        "Firing",
                        "short",
                        Query(f"count by (alertname, severity) ({EVERYWHERE.of_any('ALERTS', *_FIRING)})"),
                    )
                ],
                width=8,
                links={"alertname": f"{RUNBOOKS}/${{__value.raw}}.md"},
            ),
            listing(
                "Endpoints by silence",
                About(
                    "Since each endpoint's last event, the longest first. What is long for a shop that sells every"
                    " minute is short for one that sells once a day.",
                    ("StripeIngestNoEvents", "StripeIngestEndpointQuiet"),
                ),
                [
                    (
                        "Since last event",
                        "s",
                        Query(since(_JOB.of("last_event_timestamp_seconds"), "endpoint")),
                    )
                ],
                width=8,
            ),
            listing(
                "Processes by version",
                About(
                    "One version, but while it is being replaced. Consumers of different versions are upgraded"
                    " together.",
                    ("StripeIngestVersionsDiffer",),
                ),
                [("Processes", "short", versions(_JOB))],
                width=8,
            ),
        ],
    )
