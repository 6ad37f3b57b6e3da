"""Alerts, runbooks, their tests and the metrics: each names only what is there, and nothing is left out."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final, get_type_hints

import click
import msgspec
import pytest
import yaml

from service.cli import cli
from service.config import Config
from service.telemetry.catalogue import METRICS
from tests.support.alert_rules import (
    DEPLOY,
    RUNBOOKS,
    TESTS,
    LabelError,
    alerts,
    labels_of,
    metrics_in,
    recordings,
    runbooks,
)

SEVERITIES: Final = ("critical", "warning", "info")
SERVICE: Final = Path(__file__).parents[2] / "service"
DASHBOARDS: Final = DEPLOY / "grafana" / "dashboards"
PAGE: Final = SERVICE / "page" / "static"

NOT_ALERTED: Final[Mapping[str, str]] = {
    "stripe_ingest_events_total": "what arrives, by type: a shop's business",
    "stripe_ingest_pings_total": "Stripe's own tests",
    "stripe_ingest_verified_total": "which secret is in use: an answer, not a fault",
    "stripe_ingest_dedupe_claims_total": "what claims met: each of it is as it should be",
    "stripe_ingest_dedupe_keys_total": "how well round trips are shared",
    "stripe_ingest_records_total": "what consumers do; what they do not do is lag, and dead letters",
    "stripe_ingest_batch_duration_seconds": "slow batches show as lag and as late events",
    "stripe_ingest_refolds_total": "late events and ties: what folding is there for",
    "stripe_ingest_tie_reads_total": "what settles StripeIngestTiesUndecided",
    "stripe_ingest_endpoint_watch_runs_total": "why StripeIngestEndpointWatchStale fires",
    "stripe_ingest_page_replays_total": "whoever replays on the page sees what came of it",
}
"""Metric → why no alert is made of it."""


def test_each_alert_has_a_runbook_and_a_test_and_each_of_these_an_alert() -> None:
    names = set(alerts())

    assert names == set(runbooks())
    assert names == {file.stem for file in TESTS.glob("*.yml")}
    assert all(re.fullmatch(r"StripeIngest[A-Z]\w+", name) for name in names)


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_says_how_bad_it_is_what_happened_and_where_to_read_on(name: str) -> None:
    alert, runbook = alerts()[name], runbooks()[name]

    assert dict(alert.labels) == {"severity": runbook.severity}
    assert runbook.severity in SEVERITIES
    assert runbook.alert == name
    assert set(alert.annotations) == {"summary", "description", "runbook_url", "dashboard"}
    assert alert.annotations["runbook_url"] == '{{ or $externalLabels.runbooks "deploy/runbooks" }}/' + name + ".md"
    assert f"# {name}\n" in runbook.text
    assert f"**{runbook.severity}: " in runbook.text


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_uses_metrics_labels_and_values_that_there_are(name: str) -> None:
    alert = alerts()[name]
    labels = labels_of(alert.expr)

    for text in alert.annotations.values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels.keys()
    said = set(re.findall(r"\$labels\.(\w+)", alert.annotations["summary"] + alert.annotations["description"]))
    # Two alerts of one name are told apart by what they say. An instance has one job.
    assert {label for label, values in labels.items() if len(values) != 1} - {"job"} <= said
    assert "job" not in labels or "instance" in said or "job" in said


@pytest.mark.parametrize("name", sorted(recordings()))
def test_a_recording_rule_uses_metrics_labels_and_values_that_there_are_and_is_used(name: str) -> None:
    assert re.fullmatch(r"stripe_ingest:[a-z_]+:(count|(increase|ratio_rate)\d+[mhd])", name)
    labels_of(recordings()[name].expr)
    asked = [rule.expr for rule in alerts().values()] + [file.read_text("utf-8") for file in DASHBOARDS.glob("*.json")]
    assert any(re.search(rf"{name}\b", text) for text in asked)


GROWN: Final = [name for name, rule in recordings().items() if "unless" in rule.expr]


@pytest.mark.parametrize("name", GROWN)
def test_a_counter_that_was_not_there_before_counts_with_its_whole_value(name: str) -> None:
    """All of these rules are one form: see the head of the file."""
    expression = " ".join(recordings()[name].expr.split())
    found = re.fullmatch(r"sum(?: by \([\w, ]+\))? \( \((.+?) unless .*", expression)
    assert found
    counter, window = found[1], name.rpartition("increase")[2]

    assert expression.partition(" ( ")[2] == (
        f"({counter} unless {counter} offset {window}) > 0"
        f" and on (job, instance) (up offset {window} == 1 or time() - process_start_time_seconds < {window})"
        f" or increase({counter}[{window}]) > 0 )"
    )


def test_every_counter_of_an_alert_that_waits_for_a_first_one_is_of_that_form() -> None:
    """`increase` does not see the first value of a series: an alert on a small count must not use it as it is."""
    plain = [
        name
        for name, rule in alerts().items()
        if re.search(r"increase\((?!stripe_ingest_\w+_(count|bucket)\b)", rule.expr)
    ]

    assert not plain
    assert len(GROWN) >= 20


def test_every_metric_is_watched_by_an_alert_or_there_is_a_reason() -> None:
    watched = {name for alert in alerts().values() for name in metrics_in(alert.expr)}
    unwatched = {name for name, metric in METRICS.items() if watched.isdisjoint(metric.samples)}

    assert unwatched == set(NOT_ALERTED)


@pytest.mark.parametrize("name", sorted(runbooks()))
def test_a_runbook_names_queries_and_metrics_that_there_are(name: str) -> None:
    text = runbooks()[name].text

    for query in runbooks()[name].queries:
        labels_of(query)
    known = {sample for metric in METRICS.values() for sample in metric.samples} | METRICS.keys()
    assert set(re.findall(r"\bstripe_ingest_\w+", text)) <= known
    assert set(re.findall(r"\bstripe_ingest:[\w:]+", text)) <= recordings().keys()
    assert runbooks()[name].queries, "how to look is the first that somebody needs"


@pytest.mark.parametrize(
    ("name", "command"), [(name, command) for name in sorted(runbooks()) for command in runbooks()[name].commands]
)
def test_a_runbook_names_commands_that_there_are(name: str, command: str) -> None:
    given = re.sub(r"<[\w ]+>", "shop", command)
    group: click.Command = cli
    context = click.Context(cli, info_name="stripe-ingest")
    arguments = shlex.split(given)[1:]
    while isinstance(group, click.Group) and arguments:
        word, found, arguments = group.resolve_command(context, arguments)
        assert found is not None, (name, word)
        group, context = found, click.Context(found, parent=context, info_name=word)
    if not isinstance(group, click.Group):
        group.make_context(context.info_name, arguments, parent=context.parent)  # raises where there is no such option


@pytest.mark.parametrize("name", sorted(runbooks()))
def test_a_runbook_names_settings_and_log_lines_that_there_are(name: str) -> None:
    sections = {
        section: set(hint.__struct_fields__)
        for section, hint in get_type_hints(Config).items()
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct)
    }
    source = "\n".join(file.read_text("utf-8") for file in SERVICE.rglob("*.py"))

    for word in re.findall(r"`([a-z_]+\.[a-z_]+)(?: = [^`]*)?`", runbooks()[name].text):
        section, _, key = word.partition(".")
        is_setting = key.removesuffix("_file") in sections.get(section, set())
        assert is_setting or f'"{word}"' in source, word
    for route in re.findall(r"<admin>/(#/[\w-]*)", runbooks()[name].text):
        assert any(route in file.read_text("utf-8") for file in [*PAGE.glob("*.js"), *PAGE.glob("*.html")]), route


@pytest.mark.parametrize("name", sorted(runbooks()))
def test_a_runbook_names_the_alerts_that_may_fire_with_it_and_pages_that_there_are(name: str) -> None:
    runbook = runbooks()[name]
    _, _, with_it = runbook.text.partition("**What may fire with it.**")

    assert set(runbook.consequences) <= alerts().keys() - {name}
    assert len(set(runbook.consequences)) == len(runbook.consequences)
    assert tuple(re.findall(r"\((\w+)\.md\)", with_it)) == runbook.consequences
    for link in re.findall(r"\]\(([^)]+)\)", runbook.text):
        assert (RUNBOOKS / link).is_file(), link


def test_the_index_lists_each_runbook_once_under_its_severity() -> None:
    text = (RUNBOOKS / "README.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (\w+): .*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))

    for severity in SEVERITIES:
        listed = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\)", sections[severity], re.MULTILINE)
        assert all(name == link for name, link in listed)
        assert sorted(name for name, _ in listed) == sorted(
            name for name, runbook in runbooks().items() if runbook.severity == severity
        )


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_is_shown_firing_and_not_firing(name: str) -> None:
    tree = yaml.safe_load((TESTS / f"{name}.yml").read_text("utf-8"))
    checks = [check for test in tree["tests"] for check in test["alert_rule_test"]]
    fires = [expected for check in checks for expected in check["exp_alerts"]]

    assert {check["alertname"] for check in checks} == {name}
    assert fires
    assert all(expected["exp_annotations"] for expected in fires)
    assert name == "StripeIngestWatchdog" or not all(check["exp_alerts"] for check in checks)
    assert len({test["name"] for test in tree["tests"]}) == len(tree["tests"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("stripe_ingest_nothing_total", "no such metric"),
        ("stripe_ingest_dead_letters_total{endpoint='shop'}", "has no label endpoint"),
        ("stripe_ingest_deliveries_total{outcome='lost'}", "outcome is never lost"),
        ("stripe_ingest_deliveries_total{outcome=~'accepted|lost'}", "outcome is never"),
        ("stripe_ingest_event_age_seconds_bucket{le='301.0'}", "le is never 301"),
        ("sum by (endpoint) (rate(stripe_ingest_dead_letters_total[5m]))", "endpoint: not among"),
        (
            "sum by (projection) (stripe_ingest:dead_letters:increase1h) / on (reason) stripe_ingest_up",
            "no such metric",
        ),
        ("sum by (projection) (stripe_ingest:dead_letters:increase1h) unless on (reason) up", "reason: not among"),
        ("histogram_quantile(0.9, sum(rate(stripe_ingest_event_age_seconds_bucket[5m])))", "le: not among"),
    ],
)
def test_a_query_that_names_what_is_not_there_is_found(query: str, said: str) -> None:
    with pytest.raises(LabelError, match=re.escape(said)):
        labels_of(query)
