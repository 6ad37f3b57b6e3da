"""Stripe's side: the endpoints there, their secrets and certificates, what was sent and what was missed."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.frame import Row, Variable, dashboard_of
from deploy.grafana.panels import About, Levels, Query, counts, lines, listing
from deploy.grafana.promql import highest, increase, matching, or_none, rate, since, total

_RECEIVER: Final = matching("job")
_ENDPOINT: Final = matching("job", "endpoint")
_ACCEPTED: Final = 'outcome="accepted"'
_DAY_SECONDS: Final = 86_400


def stripe_accounts() -> Dashboard:
    """The dashboard."""
    return dashboard_of(
        "stripe-ingest-stripe",
        "stripe-ingest / Stripe accounts",
        "Endpoints at Stripe, secrets, certificates, event types, missed events, reconciliation.",
        [
            Variable("job", "stripe_ingest_in_flight_limit"),
            Variable("endpoint", 'stripe_ingest_last_event_timestamp_seconds{job=~"$job"}'),
        ],
        [_endpoints(), _secrets(), _event_types(), _reconciliation()],
    )


def _endpoints() -> Row:
    problems = _ENDPOINT.of("endpoint_problem")
    return Row(
        "Endpoints",
        [
            listing(
                "Endpoints",
                About(
                    "Since the last event (or since the receiver serves it), what is wrong with it at Stripe, and what"
                    " Stripe could not deliver in 24 hours. Normal is 0 in the last two.",
                    ("StripeIngestNoEvents", "StripeIngestEndpointQuiet", "StripeIngestUndeliveredEvents"),
                ),
                [
                    (
                        "Since last event",
                        "s",
                        Query(since(_ENDPOINT.of("last_event_timestamp_seconds"), "endpoint")),
                    ),
                    (
                        "Taken in 24 h",
                        "short",
                        Query(f"sum by (endpoint) (increase({_ENDPOINT.of('deliveries_total', _ACCEPTED)}[24h]))"),
                    ),
                    (
                        "Problems",
                        "short",
                        Query(f"sum by (endpoint) ({highest(problems, 'endpoint', 'problem')})"),
                    ),
                    (
                        "Undelivered",
                        "short",
                        Query(highest(_ENDPOINT.of("endpoint_undelivered_events"), "endpoint")),
                    ),
                ],
                width=14,
                levels={"Problems": Levels(red=1), "Undelivered": Levels(orange=1)},
            ),
            lines(
                "Problems at Stripe",
                About(
                    "1 for what was wrong when a receiver last looked. `stripe-ingest endpoints status` says each in a"
                    " sentence, with the way out.",
                    ("StripeIngestEndpointBroken", "StripeIngestEndpointProblem"),
                ),
                "short",
                Query(
                    or_none(f"{highest(problems, 'endpoint', 'problem')} > 0", "problem"), "{{endpoint}} {{problem}}"
                ),
                width=10,
                levels=Levels(red=1),
            ),
            lines(
                "Since the last event",
                About(
                    "Saw-teeth that hug the ground; a line that climbs is an endpoint that has gone quiet.",
                    ("StripeIngestNoEvents", "StripeIngestEndpointQuiet"),
                ),
                "s",
                Query(since(_ENDPOINT.of("last_event_timestamp_seconds"), "endpoint"), "{{endpoint}}"),
            ),
            counts(
                "Looks at the endpoints, by outcome",
                About(
                    "How many, and when: one done for each account every stripe.watch_interval_seconds. A tag in its"
                    " place says what Stripe, or the key, would not do.",
                    ("StripeIngestEndpointWatchStale",),
                ),
                Query(
                    or_none(
                        increase(_RECEIVER.of("endpoint_watch_runs_total"), "account", "mode", "outcome"), "outcome"
                    ),
                    "{{account}} {{mode}} {{outcome}}",
                ),
            ),
            lines(
                "Since every endpoint was looked at",
                About(
                    "By receiver: each looks for itself. Below stripe.watch_interval_seconds (900) and a little.",
                    ("StripeIngestEndpointWatchStale",),
                ),
                "s",
                Query(
                    # 0 is the gauge of a process that never looked (it has no key, or has only just begun).
                    f"time() - ({highest(_RECEIVER.of('endpoint_watched_timestamp_seconds'), 'instance')} > 0)",
                    "{{instance}}",
                ),
            ),
        ],
    )


def _secrets() -> Row:
    secrets = _ENDPOINT.of("active_secrets")
    return Row(
        "Secrets and certificates",
        [
            lines(
                "Deliveries verified, by secret",
                About(
                    "By the fingerprint of the signing secret. One line for each endpoint; two while a secret is being"
                    " rolled, until the new one has all.",
                    ("StripeIngestSecretRollUnfinished", "StripeIngestSecretWrong"),
                ),
                "reqps",
                Query(rate(_ENDPOINT.of("verified_total"), "endpoint", "secret"), "{{endpoint}} {{secret}}"),
                width=10,
            ),
            listing(
                "Secrets in use",
                About(
                    "How many receivers verify with each secret: all of them. A row with 0 and no fingerprint is an"
                    " endpoint that has none and refuses everything.",
                    ("StripeIngestEndpointWithoutSecret", "StripeIngestSecretRollUnfinished"),
                ),
                [
                    ("Receivers", "short", Query(f"sum by (endpoint, secret) ({secrets})")),
                    (
                        "Verified in range",
                        "short",
                        Query(total(_ENDPOINT.of("verified_total"), "endpoint", "secret")),
                    ),
                ],
                width=8,
                levels={"Receivers": Levels(red=1, falling=True)},
                descending=False,
            ),
            listing(
                "Certificates",
                About(
                    "Days until they expire: endpoint/<name> as seen from outside, kafka/ca and kafka/client as loaded."
                    " Renewed weeks before; none is listed where nothing uses TLS.",
                    (
                        "StripeIngestCertificateExpiring",
                        "StripeIngestCertificateExpiresSoon",
                        "StripeIngestCertificateExpired",
                    ),
                ),
                [
                    (
                        "Days left",
                        "short",
                        Query(
                            "(min by (certificate) (stripe_ingest_certificate_not_after_timestamp_seconds) - time())"
                            f" / {_DAY_SECONDS}"
                        ),
                    )
                ],
                width=6,
                levels={"Days left": Levels(orange=21, red=7, falling=True)},
                descending=False,
            ),
        ],
    )


def _event_types() -> Row:
    return Row(
        "Events",
        [
            listing(
                "Event types",
                About(
                    "The 20 most frequent in the time range; other are types that this version does not know. A type"
                    " that should be here and is not is one that the endpoint does not take (`endpoints plan`)."
                ),
                [
                    (
                        "Events",
                        "short",
                        Query(f"topk(20, {total(_RECEIVER.of('events_total'), 'category', 'event_type')} > 0)"),
                    )
                ],
                width=8,
            ),
            counts(
                "Unlisted event types",
                About(
                    "How many, and when: events whose type is in no catalogue that this version knows. They go their"
                    " family's way; an upgrade may know them.",
                    ("StripeIngestUnknownEventTypes",),
                ),
                Query(increase(_ENDPOINT.of("unlisted_events_total"), "endpoint"), "{{endpoint}}"),
            ),
            counts(
                "Missed events, by type",
                About(
                    "How many, and when: events that Stripe lists and nobody had received; they are published now. 0,"
                    " but after an outage; otherwise an endpoint is switched off, or does not take that type.",
                    ("StripeIngestMissedEvents",),
                ),
                Query(
                    or_none(f"{increase(_RECEIVER.of('missed_events_total'), 'event_type')} > 0", "event_type"),
                    "{{event_type}}",
                ),
                levels=Levels(orange=1),
            ),
        ],
    )


def _reconciliation() -> Row:
    return Row(
        "Reconciliation",
        [
            counts(
                "Runs, by outcome",
                About(
                    "How many, and when: done, or held by another receiver, every reconcile.interval_seconds. A tag in"
                    " its place says what Stripe, or the key, would not do.",
                    ("StripeIngestReconcileFailing",),
                ),
                Query(
                    or_none(increase(_RECEIVER.of("reconcile_runs_total"), "account", "mode", "outcome"), "outcome"),
                    "{{account}} {{mode}} {{outcome}}",
                ),
            ),
            lines(
                "Known to be complete up to",
                About(
                    "How long ago. Up to then every event that Stripe lists has been received: a grace of 15 minutes"
                    " and the interval, half an hour as a rule.",
                    ("StripeIngestReconciledUntilOld",),
                ),
                "s",
                Query(
                    since(_RECEIVER.of("reconciled_until_timestamp_seconds"), "account", "mode"), "{{account}} {{mode}}"
                ),
                levels=Levels(orange=3600, red=21_600),
            ),
            lines(
                "Undelivered at Stripe",
                About(
                    "Events of the last 24 hours that Stripe could not deliver to every endpoint that takes them. 0;"
                    " they are reconciled, but something refuses them.",
                    ("StripeIngestUndeliveredEvents",),
                ),
                "short",
                Query(highest(_ENDPOINT.of("endpoint_undelivered_events"), "endpoint"), "{{endpoint}}"),
                levels=Levels(orange=1),
            ),
        ],
    )
