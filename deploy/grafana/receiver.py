"""The receiver: what Stripe sends, what it is answered, and what that takes."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.frame import Row, Variable, dashboard_of
from deploy.grafana.panels import About, Levels, Query, counts, heat, lines
from deploy.grafana.processes import processes
from deploy.grafana.promql import highest, increase, matching, or_none, quantile, rate, ratio

_PROCESS: Final = matching("job", "instance")
_ENDPOINT: Final = matching("job", "instance", "endpoint")
_SIGNATURE: Final = 'outcome=~"signature_.*|timestamp_outside_tolerance"'
_QUANTILES: Final = (0.5, 0.95, 0.99)
_ERRORS: Final = ("StripeIngestErrorBudgetBurnFast", "StripeIngestErrorBudgetBurnSlow")
_LATENCY: Final = ("StripeIngestLatencyBudgetBurnFast", "StripeIngestLatencyBudgetBurnSlow")


def receiver() -> Dashboard:
    """The dashboard."""
    return dashboard_of(
        "stripe-ingest-receiver",
        "stripe-ingest / Receiver",
        "Deliveries by endpoint: rate, errors, duration; signatures, deduplication, publishing, capacity.",
        [
            Variable("job", "stripe_ingest_in_flight_limit"),
            Variable("instance", 'stripe_ingest_in_flight_limit{job=~"$job"}'),
            Variable("endpoint", 'stripe_ingest_last_event_timestamp_seconds{job=~"$job"}'),
        ],
        [
            _deliveries(),
            _signatures(),
            _events(),
            _deduplication(),
            _publishing(),
            _capacity(),
            processes(_PROCESS),
        ],
    )


def _quantiles(buckets: str, *, exemplars: bool = False) -> list[Query]:
    return [Query(quantile(share, buckets), f"p{share * 100:g}", exemplars) for share in _QUANTILES]


def _deliveries() -> Row:
    ours = _ENDPOINT.of("delivery_duration_seconds_count", 'result=~"safe|unavailable"')
    unavailable = _ENDPOINT.of("delivery_duration_seconds_count", 'result="unavailable"')
    safe = _ENDPOINT.of("delivery_duration_seconds_bucket", 'result="safe"')
    return Row(
        "Deliveries",
        [
            lines(
                "Answers a second, by outcome",
                About(
                    "accepted is new and safe in Kafka, duplicate was there already, quarantined is safe but unusable;"
                    " everything else was not taken, and Stripe sends it again. Normal is accepted with a few"
                    " duplicates.",
                    _ERRORS,
                ),
                "reqps",
                Query(rate(_ENDPOINT.of("deliveries_total"), "outcome"), "{{outcome}}"),
                stacked=True,
            ),
            lines(
                "Not taken, of all that are ours to answer",
                About(
                    "Share answered 503, since nothing durable could take them; what is refused (4xx) is not among all."
                    " 0 is normal; the promise is below 0.05 % over 30 days.",
                    _ERRORS,
                ),
                "percentunit",
                Query(ratio(rate(unavailable), rate(ours)), "unavailable"),
                levels=Levels(orange=0.0005, red=0.01),
            ),
            lines(
                "Deliveries a second, by endpoint",
                About(
                    "What each endpoint gets, whatever it is answered. An endpoint that falls silent while its shop"
                    " sells is switched off at Stripe, or its URL leads elsewhere.",
                    ("StripeIngestNoEvents", "StripeIngestEndpointQuiet"),
                ),
                "reqps",
                Query(rate(_ENDPOINT.of("deliveries_total"), "endpoint"), "{{endpoint}}"),
            ),
            lines(
                "Time to a safe answer",
                About(
                    "From the request's headers to the 200, Kafka's acknowledgement included; dots are single"
                    " deliveries, with their trace. 99 % are to be below 300 ms.",
                    _LATENCY,
                ),
                "s",
                *_quantiles(safe, exemplars=True),
                levels=Levels(orange=0.3, red=1),
            ),
            heat(
                "Time to a safe answer, spread",
                About(
                    "Most deliveries in a few milliseconds. A second band higher up is what waits for something:"
                    " compare with publishing and deduplication below.",
                    _LATENCY,
                ),
                "s",
                Query(rate(safe, "le"), "{{le}}", exemplars=True),
            ),
            lines(
                "p99 by endpoint and result",
                About(
                    "All endpoints take the same way, so they should be alike; unavailable ones take up to"
                    " receiver.answer_timeout_seconds, since they wait as long as they may.",
                    _LATENCY,
                ),
                "s",
                Query(
                    quantile(0.99, _ENDPOINT.of("delivery_duration_seconds_bucket"), "endpoint", "result"),
                    "{{endpoint}} {{result}}",
                ),
            ),
        ],
    )


def _signatures() -> Row:
    refused = _ENDPOINT.of("deliveries_total", _SIGNATURE)
    return Row(
        "Signatures",
        [
            lines(
                "Signature failures a second, by reason",
                About(
                    "mismatch: another secret than ours; missing and malformed: not Stripe, or something in between"
                    " that drops headers; outside tolerance: a replay, or a clock. A few from scanners are normal,"
                    " and one missing at each look of the endpoint watch.",
                    ("StripeIngestSignatureFailures", "StripeIngestSecretWrong", "StripeIngestTimestampsRefused"),
                ),
                "reqps",
                Query(or_none(rate(refused, "endpoint", "outcome"), "outcome"), "{{endpoint}} {{outcome}}"),
            ),
            lines(
                "Clock skew",
                About(
                    "When the last delivery was signed, minus our clock: a few seconds below 0 (its journey). Further"
                    " from 0 a clock is wrong; past receiver.tolerance_seconds (300) deliveries are refused for it.",
                    ("StripeIngestClockSkew",),
                ),
                "s",
                # Both ends: of two receivers one may be ahead and the other behind.
                Query(f"min by (instance) ({_ENDPOINT.of('clock_skew_seconds')})", "{{instance}} lowest"),
                Query(highest(_ENDPOINT.of("clock_skew_seconds"), "instance"), "{{instance}} highest"),
                signed=True,
                levels=Levels(orange=30, red=120),
            ),
            counts(
                "Connections refused",
                About(
                    "How many, and when: closed at once, since too many were open. 0; otherwise somebody holds"
                    " connections open, or there are too few receivers.",
                    ("StripeIngestConnectionsRefused",),
                ),
                Query(increase(_PROCESS.of("connections_refused_total"), "instance"), "{{instance}}"),
            ),
        ],
    )


def _events() -> Row:
    return Row(
        "Events",
        [
            lines(
                "Age on arrival",
                About(
                    "Received less created: seconds. Minutes to days mean that Stripe had to send again, since we, or"
                    " the way to us, failed before.",
                    ("StripeIngestEventsArriveLate",),
                ),
                "s",
                *_quantiles(_ENDPOINT.of("event_age_seconds_bucket"), exemplars=True),
                logarithmic=True,
            ),
            heat(
                "Age when signed: first attempts and resends",
                About(
                    "Stripe signs each attempt anew, so this is how long after its making an event was sent: seconds"
                    " for a first attempt, minutes to three days for a resend. Resends without an outage of ours say"
                    " that something before us answers for us.",
                    ("StripeIngestResends",),
                ),
                "s",
                Query(rate(_ENDPOINT.of("resend_age_seconds_bucket"), "le"), "{{le}}"),
            ),
            lines(
                "Events a second, by category",
                About("What was accepted, by topic. Its course is that of the business; compare with a week ago."),
                "eps",
                Query(rate(_PROCESS.of("events_total"), "category"), "{{category}}"),
                stacked=True,
            ),
            counts(
                "Quarantined, by reason",
                About(
                    "How many, and when: signed by Stripe, but not usable here. 0; a reason says what (another mode's"
                    " event, an unknown shape). Nothing is lost: `stripe-ingest quarantine list`, then `replay`.",
                    ("StripeIngestQuarantineGrowing",),
                ),
                Query(or_none(increase(_PROCESS.of("quarantined_total"), "reason"), "reason"), "{{reason}}"),
                levels=Levels(orange=1),
            ),
            counts(
                "News: unknown types, values, pings",
                About(
                    "How many, and when: event types and enumeration values that this version does not know; they go"
                    " their way, but an upgrade may know more of them. Pings are Stripe trying an event destination.",
                    ("StripeIngestUnknownEventTypes", "StripeIngestUnknownValues"),
                ),
                Query(increase(_ENDPOINT.of("unlisted_events_total")), "unlisted types"),
                Query(
                    or_none(increase(_PROCESS.of("unknown_values_total"), "field"), "field"), "unknown value: {{field}}"
                ),
                Query(f"{increase(_ENDPOINT.of('pings_total'))} or vector(0)", "pings"),
            ),
            lines(
                "Event log",
                About(
                    "Arrivals a second that were written to event_log for the operator's page, or dropped since the"
                    " database was too slow or away. Dropped ones are missing on the page only.",
                    ("StripeIngestEventLogDropping",),
                ),
                "eps",
                Query(rate(_PROCESS.of("event_log_arrivals_total"), "result"), "{{result}}"),
            ),
        ],
    )


def _deduplication() -> Row:
    trips = _PROCESS.of("dedupe_duration_seconds_count")
    failed = _PROCESS.of("dedupe_duration_seconds_count", 'outcome="failed"')
    return Row(
        "Deduplication",
        [
            lines(
                "Claims a second, by what was known",
                About(
                    "new are most. done and recent are duplicates; joined waited for the same event beside them;"
                    " in_flight were with another process. A jump of done: Stripe, or a replay, sends again."
                ),
                "reqps",
                Query(rate(_PROCESS.of("dedupe_claims_total"), "state"), "{{state}}"),
                stacked=True,
            ),
            lines(
                "Round trips, p99",
                About(
                    "Far below dedupe.timeout_seconds (0.1): what takes longer is given up, and the event published"
                    " unchecked (or refused, by dedupe.on_error).",
                    ("StripeIngestDedupeSlow",),
                ),
                "s",
                Query(quantile(0.99, _PROCESS.of("dedupe_duration_seconds_bucket"), "operation"), "{{operation}}"),
                levels=Levels(orange=0.05, red=0.1),
            ),
            lines(
                "Round trips that failed, of all",
                About("0; otherwise the store is away or too slow.", ("StripeIngestDedupeFailing",)),
                "percentunit",
                Query(ratio(rate(failed), rate(trips)), "failed"),
                levels=Levels(orange=0.01, red=0.1),
            ),
            counts(
                "Bypassed",
                About(
                    "How many, and when: published without the store's word, confirmations that never reached it,"
                    " failures nobody foresaw. 0; each may cost a duplicate record, which consumers absorb, never an"
                    " event.",
                    (
                        "StripeIngestDedupeBypassed",
                        "StripeIngestDedupeConfirmsLost",
                        "StripeIngestDedupeUnforeseen",
                    ),
                ),
                Query(increase(_PROCESS.of("dedupe_bypassed_total")), "bypassed"),
                Query(increase(_PROCESS.of("dedupe_confirms_lost_total")), "confirmations lost"),
                Query(f"{increase(_PROCESS.of('dedupe_unforeseen_total'))} or vector(0)", "unforeseen"),
                levels=Levels(orange=1),
            ),
            lines(
                "Ids in a round trip",
                About("What arrives together goes to the store together: more than 1 under load, and that is good."),
                "short",
                Query(
                    f"{rate(_PROCESS.of('dedupe_keys_total'), 'operation')} / {rate(trips, 'operation')}",
                    "{{operation}}",
                ),
            ),
        ],
    )


def _publishing() -> Row:
    return Row(
        "Publishing",
        [
            lines(
                "Time to the acknowledgement",
                About(
                    "From handing a record to the producer to the answer of all in-sync replicas: milliseconds. It is"
                    " most of what an answer takes; when it grows, look at the brokers.",
                    ("StripeIngestPublishSlow",),
                ),
                "s",
                *_quantiles(_PROCESS.of("publish_duration_seconds_bucket", 'outcome="acknowledged"'), exemplars=True),
                levels=Levels(orange=0.2, red=1),
            ),
            lines(
                "Publishing failures a second, by tag",
                About(
                    "0. broker_unavailable: no acknowledgement in time; publish_refused and record_too_large: the"
                    " broker said no.",
                    ("StripeIngestPublishFailing",),
                ),
                "reqps",
                Query(
                    or_none(
                        rate(_PROCESS.of("publish_duration_seconds_count", 'outcome!="acknowledged"'), "outcome"),
                        "outcome",
                    ),
                    "{{outcome}}",
                ),
            ),
            lines(
                "Producers connected",
                About("1 for each process; 0 where none is connected.", ("StripeIngestProducerDown",)),
                "short",
                Query(highest(_PROCESS.of("producer_up"), "instance"), "{{instance}}"),
                width=4,
            ),
            counts(
                "Producers replaced",
                About(
                    "How many, and when, by reason. Now and then one, when a broker restarts; many: brokers refuse or"
                    " lose their leaders.",
                    ("StripeIngestProducerReplaced",),
                ),
                Query(or_none(increase(_PROCESS.of("producer_replacements_total"), "reason"), "reason"), "{{reason}}"),
                width=4,
            ),
        ],
    )


def _capacity() -> Row:
    return Row(
        "Capacity and the operator's page",
        [
            lines(
                "In flight, of what is allowed",
                About(
                    "Deliveries being worked on, of receiver.max_in_flight; at 1 new ones are answered 503 at once."
                    " Below a quarter.",
                    ("StripeIngestInFlightHigh", "StripeIngestOverloaded"),
                ),
                "percentunit",
                Query(
                    f"{highest(_PROCESS.of('in_flight_deliveries'), 'instance')}"
                    f" / {highest(_PROCESS.of('in_flight_limit'), 'instance')}",
                    "{{instance}}",
                ),
                levels=Levels(orange=0.5, red=0.8),
            ),
            counts(
                "Configuration read again",
                About(
                    "How many, and when. refused: the new one is wrong and the old one goes on; failed: it could not be"
                    " read. The log line `configuration.refused` names the key.",
                    ("StripeIngestReloadRefused",),
                ),
                Query(or_none(increase(_PROCESS.of("reloads_total"), "outcome"), "outcome"), "{{outcome}}"),
            ),
            counts(
                "Sign-ins and replays by the page",
                About(
                    "How many, and when. Refused or throttled sign-ins that are nobody's mistyping are somebody trying"
                    " tokens: see who reaches the admin port, and change admin.token.",
                    ("StripeIngestSignInsRefused",),
                ),
                Query(
                    or_none(increase(_PROCESS.of("page_sign_ins_total"), "outcome"), "outcome"), "sign-in {{outcome}}"
                ),
                Query(
                    or_none(increase(_PROCESS.of("page_replays_total"), "topic", "outcome"), "outcome"),
                    "replay {{topic}} {{outcome}}",
                ),
            ),
        ],
    )
