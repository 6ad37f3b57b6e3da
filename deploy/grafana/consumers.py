"""Kafka and the consumers: how far behind, how fast, and what they could not do."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.frame import Row, Variable, dashboard_of
from deploy.grafana.panels import About, Levels, Query, counts, heat, lines, listing
from deploy.grafana.processes import processes
from deploy.grafana.promql import EVERYWHERE, highest, increase, matching, or_none, quantile, rate, since

_PROCESS: Final = matching("job", "instance")
_PROJECTION: Final = matching("job", "instance", "projection")
_LAG: Final = ("StripeIngestConsumerLag",)
_FRESHNESS: Final = ("StripeIngestFreshnessBudgetBurnFast", "StripeIngestFreshnessBudgetBurnSlow")
_PARTITION: Final = ("projection", "topic", "partition")


def consumers() -> Dashboard:
    """The dashboard."""
    return dashboard_of(
        "stripe-ingest-consumers",
        "stripe-ingest / Kafka and consumers",
        "Lag by partition, what became of records, retries, fences, dead letters and quarantine.",
        [
            Variable("job", "stripe_ingest_consumer_ready"),
            Variable("instance", 'stripe_ingest_consumer_ready{job=~"$job"}'),
            Variable("projection", 'stripe_ingest_consumer_ready{job=~"$job"}'),
        ],
        [_lag(), _work(), _trouble(), _side_topics(), processes(_PROCESS)],
    )


def _lag() -> Row:
    return Row(
        "Lag",
        [
            lines(
                "Behind, in seconds",
                About(
                    "How long the oldest record that is not applied has been there. 0 most of the time, below 5 s"
                    " always: the tables are that old.",
                    _LAG,
                ),
                "s",
                Query(
                    highest(_PROJECTION.of("consumer_lag_seconds"), "projection", "topic"), "{{projection}} {{topic}}"
                ),
                levels=Levels(orange=5, red=60),
            ),
            lines(
                "Behind, in records",
                About(
                    "Records that wait. It jumps when much arrives at once, and falls again within seconds; a line"
                    " that only rises is a consumer that stands still or is too slow.",
                    _LAG,
                ),
                "short",
                Query(
                    f"sum by (projection, topic) ({_PROJECTION.of('consumer_lag_records')})",
                    "{{projection}} {{topic}}",
                ),
            ),
            lines(
                "Time since a batch was applied",
                About(
                    "Rises while nothing arrives, which is no harm; rising with lag beside it is a consumer that"
                    " stands still.",
                    ("StripeIngestConsumerStuck",),
                ),
                "s",
                Query(since(_PROJECTION.of("last_progress_timestamp_seconds"), "projection"), "{{projection}}"),
            ),
            listing(
                "Partitions",
                About(
                    "Lag of each partition that is read now. One partition far behind the others of its topic has"
                    " stopped, or has a key that gets most of the events.",
                    ("StripeIngestPartitionStopped",),
                ),
                [
                    ("Records behind", "short", Query(highest(_PROJECTION.of("consumer_lag_records"), *_PARTITION))),
                    ("Seconds behind", "s", Query(highest(_PROJECTION.of("consumer_lag_seconds"), *_PARTITION))),
                ],
                levels={"Seconds behind": Levels(orange=5, red=60)},
            ),
            listing(
                "Consumers",
                About(
                    "1: batches go through. 0: see the problems below, and /readyz of the process.",
                    ("StripeIngestConsumerNotReady", "StripeIngestConsumerDown", "StripeIngestConsumerAbsent"),
                ),
                [
                    ("Ready", "short", Query(f"min by (projection) ({_PROJECTION.of('consumer_ready')})")),
                    ("Processes", "short", Query(f"count by (projection) ({_PROJECTION.of('consumer_ready')})")),
                ],
                levels={"Ready": Levels(red=1, falling=True)},
                descending=False,
            ),
        ],
    )


def _work() -> Row:
    batches = _PROJECTION.of("batch_duration_seconds_bucket")
    fresh = _PROJECTION.of("end_to_end_seconds_bucket")
    return Row(
        "Work",
        [
            lines(
                "Records a second, by outcome",
                About(
                    "applied changed or confirmed a row, already_applied was a repetition, ignored is not for this"
                    " projection, dead_lettered could never be applied.",
                    ("StripeIngestDeadLetters",),
                ),
                "recps",
                Query(rate(_PROJECTION.of("records_total"), "projection", "outcome"), "{{projection}} {{outcome}}"),
                stacked=True,
            ),
            lines(
                "From the receiver to the row",
                About(
                    "Webhooks only, when first applied; dots are single events, with their trace. 99 % are to be below"
                    " 5 s.",
                    _FRESHNESS,
                ),
                "s",
                *(
                    Query(quantile(share, fresh, "projection"), f"p{share * 100:g} {{{{projection}}}}", exemplars=True)
                    for share in (0.5, 0.99)
                ),
                levels=Levels(orange=1, red=5),
            ),
            heat(
                "From the receiver to the row, spread",
                About(
                    "Most within tens of milliseconds. What is higher waited: compare with lag and retries.", _FRESHNESS
                ),
                "s",
                Query(rate(fresh, "le"), "{{le}}", exemplars=True),
            ),
            lines(
                "A batch's transaction",
                About(
                    "With its retries: milliseconds to some tenths of a second. When it grows, the database is slow:"
                    " look for locks, missing vacuum, a full disk.",
                    _LAG,
                ),
                "s",
                *(
                    Query(quantile(share, batches, "projection"), f"p{share * 100:g} {{{{projection}}}}")
                    for share in (0.5, 0.99)
                ),
            ),
            counts(
                "Refolds and undecided seconds",
                About(
                    "How many, and when: objects folded again from their ledger for a tie or a late event, and seconds"
                    " of an object whose order the events do not decide. Both are normal in small numbers; with an API"
                    " key the latter are read from Stripe.",
                    ("StripeIngestTiesUndecided",),
                ),
                Query(increase(_PROJECTION.of("refolds_total"), "projection"), "refolds {{projection}}"),
                Query(increase(_PROJECTION.of("undecided_total"), "projection"), "undecided {{projection}}"),
            ),
            counts(
                "Objects read to settle ties",
                About(
                    "How many, and when, by outcome. not_permitted: the endpoint's key may not read that object"
                    " (`stripe-ingest keys check`).",
                    ("StripeIngestTiesUndecided",),
                ),
                Query(
                    # These reads are the receivers': their job is another one than the consumers'.
                    or_none(increase(EVERYWHERE.of("tie_reads_total"), "outcome"), "outcome"),
                    "{{outcome}}",
                ),
            ),
        ],
    )


def _trouble() -> Row:
    return Row(
        "Trouble",
        [
            counts(
                "Batches tried again, by SQLSTATE",
                About(
                    "How many, and when. A few 40001 and 40P01 (serialization, deadlocks) are normal; 53xxx is a"
                    " database at its limits, 57xxx one that restarts, none one that does not answer.",
                    ("StripeIngestStoreRetries",),
                ),
                Query(
                    or_none(increase(_PROJECTION.of("store_retries_total"), "projection", "sqlstate"), "sqlstate"),
                    "{{projection}} {{sqlstate}}",
                ),
            ),
            counts(
                "Fences lost",
                About(
                    "How many, and when: batches given up since another process had moved their offsets. One or two at"
                    " a rebalance are normal and harmless; many say that two processes fight for partitions.",
                    ("StripeIngestFencesLost",),
                ),
                Query(increase(_PROJECTION.of("fences_lost_total"), "projection"), "{{projection}}"),
            ),
            counts(
                "Rebalances",
                About(
                    "How many, and when: times a consumer was given its partitions. One at each start or end of a"
                    " consumer; more: consumers are too slow to keep their place, or restart again and again.",
                    ("StripeIngestRebalanceStorm",),
                ),
                Query(increase(_PROJECTION.of("rebalances_total"), "projection"), "{{projection}}"),
            ),
            lines(
                "Problems",
                About(
                    "What keeps a consumer from being ready, as its /readyz says; 1 while it does. Only starting, for"
                    " some seconds, is normal.",
                    (
                        "StripeIngestConsumerNotReady",
                        "StripeIngestPartitionStopped",
                        "StripeIngestDeadLetterLimit",
                    ),
                ),
                "short",
                Query(
                    highest(_PROJECTION.of("consumer_problem"), "projection", "problem"), "{{projection}} {{problem}}"
                ),
                width=12,
            ),
            counts(
                "Producers replaced, by reason",
                About(
                    "How many, and when, of receivers and consumers (these publish dead letters). Now and then one,"
                    " when a broker restarts.",
                    ("StripeIngestProducerReplaced",),
                ),
                Query(
                    or_none(
                        "sum by (job, reason) (increase(stripe_ingest_producer_replacements_total[$__rate_interval]))",
                        "reason",
                    ),
                    "{{job}} {{reason}}",
                ),
                width=12,
            ),
        ],
    )


def _side_topics() -> Row:
    return Row(
        "Dead letters and quarantine",
        [
            counts(
                "Dead letters, by reason",
                About(
                    "How many, and when: records that could never be applied; they wait on the dead-letter topic. 0."
                    " `stripe-ingest dead-letter list` tells of each; `replay` once what was wrong is mended.",
                    ("StripeIngestDeadLetters", "StripeIngestDeadLetterLimit"),
                ),
                Query(
                    or_none(increase(_PROJECTION.of("dead_letters_total"), "projection", "reason"), "reason"),
                    "{{projection}} {{reason}}",
                ),
                width=12,
                levels=Levels(red=1),
            ),
            counts(
                "Quarantined by receivers, by reason",
                About(
                    "How many, and when: bodies that Stripe signed and nobody could normalize. 0."
                    " `stripe-ingest quarantine list` tells of each.",
                    ("StripeIngestQuarantineGrowing",),
                ),
                Query(
                    or_none(increase(EVERYWHERE.of("quarantined_total"), "reason"), "reason"),
                    "{{reason}}",
                ),
                width=12,
                levels=Levels(orange=1),
            ),
        ],
    )
