"""The dashboards: what is committed is what the code says, and every query asks for what there is."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml

from deploy.grafana.generating import FOLDER, generated, write
from service.telemetry.catalogue import METRICS, PYTHON_METRICS
from tests.support.dashboards import Target, dashboards, panels, substituted, targets

DEPLOY: Final = FOLDER.parents[1]
RECORDING: Final = DEPLOY / "prometheus" / "recording.yml"
GRID_WIDTH: Final = 24
UIDS: Final = {
    "overview": "stripe-ingest-overview",
    "receiver": "stripe-ingest-receiver",
    "kafka-consumers": "stripe-ingest-consumers",
    "stripe-accounts": "stripe-ingest-stripe",
}
"""People's bookmarks and the alerts' annotations hold these."""

SCRAPED: Final = {"job", "instance"}
"""What Prometheus adds to every series that it scrapes."""
OF_PROMETHEUS: Final[Mapping[str, frozenset[str]]] = {"ALERTS": frozenset({"alertname", "alertstate", "severity"})}


def labels_of(rule: Mapping[str, Any]) -> frozenset[str]:
    """The labels that a recording rule's series may have: those that its expression sums by."""
    found: set[str] = set()

    def visit(expr: promql_parser.Expr) -> None:
        if isinstance(expr, promql_parser.AggregateExpr) and expr.modifier is not None:
            found.update(expr.modifier.labels)

    promql_parser.walk(promql_parser.parse(rule["expr"]), visit)
    return frozenset(found)


def recorded() -> Mapping[str, frozenset[str]]:
    groups = yaml.safe_load(RECORDING.read_text("utf-8"))["groups"]
    return {rule["record"]: labels_of(rule) for group in groups for rule in group["rules"]}


@cache
def known() -> Mapping[str, frozenset[str]]:
    """Every series that a query may ask for, and its labels."""
    scraped = {
        sample: frozenset(metric.labels) | SCRAPED | ({"le"} if sample.endswith("_bucket") else set())
        for metric in (*METRICS.values(), *PYTHON_METRICS.values())
        for sample in metric.samples
    }
    return {**scraped, **OF_PROMETHEUS, **recorded()}


def values_of(name: str, label: str) -> tuple[str, ...]:
    """All the values that a label of a metric of ours may have; none where they are not the code's."""
    for metric in METRICS.values():
        if name in metric.samples:
            return metric.values.get(label, ())
    return ()


def may_match(selector: promql_parser.VectorSelector, matcher: promql_parser.Matcher) -> bool:
    """Whether a series can have what a matcher asks for."""
    values = values_of(selector.name or "", matcher.name)
    pattern = matcher.value if matcher.op == promql_parser.MatchOp.Re else re.escape(matcher.value)
    return not values or any(re.fullmatch(pattern, value) for value in values)


def selectors(expr: promql_parser.Expr) -> Iterator[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.VectorSelector):
            found.append(part)

    promql_parser.walk(expr, visit)
    yield from found


def aggregations(expr: promql_parser.Expr) -> Iterator[promql_parser.AggregateExpr]:
    found: list[promql_parser.AggregateExpr] = []

    def visit(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.AggregateExpr):
            found.append(part)

    promql_parser.walk(expr, visit)
    yield from found


def unknown_names(query: str) -> list[str]:
    """What a query asks for and nobody exposes: metrics, and labels of metrics."""
    there = known()
    expr = promql_parser.parse(query)
    wrong: list[str] = []
    for selector in selectors(expr):
        if selector.name is None or selector.name not in there:
            wrong.append(f"metric {selector.name}")
            continue
        wrong += [
            f"{selector.name}{{{matcher.name}}}"
            for matcher in selector.matchers.matchers
            if matcher.name not in there[selector.name] or not may_match(selector, matcher)
        ]
    for aggregation in aggregations(expr):
        below = [there.get(selector.name or "", frozenset[str]()) for selector in selectors(aggregation.expr)]
        if aggregation.modifier is not None:
            wrong += [
                f"by {label}" for label in aggregation.modifier.labels if not any(label in labels for labels in below)
            ]
    return wrong


def test_what_is_committed_is_what_the_code_says(tmp_path: Path) -> None:
    committed = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.json")}
    assert committed == generated(), "run: python -m deploy.grafana"

    (tmp_path / "stale.json").write_text("{}")
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(committed)


def test_uids_are_for_ever() -> None:
    assert {name: dashboard["uid"] for name, dashboard in dashboards().items()} == UIDS


@pytest.mark.parametrize("target", targets(), ids=str)
def test_a_query_parses_and_asks_for_what_there_is(target: Target) -> None:
    assert unknown_names(target.query) == []


def test_the_check_finds_what_is_not_there() -> None:
    wrong = 'sum by (tenant) (rate(stripe_ingest_deliveries_total{customer="x"}[1m])) / stripe_ingest_nothing'
    impossible = 'stripe_ingest_deliveries_total{outcome="acepted"}'

    assert unknown_names(impossible) == ["stripe_ingest_deliveries_total{outcome}"]
    assert unknown_names(wrong) == [
        "stripe_ingest_deliveries_total{customer}",
        "metric stripe_ingest_nothing",
        "by tenant",
    ]


@pytest.mark.parametrize("target", [target for target in targets() if target.exemplars], ids=str)
def test_exemplars_are_asked_of_histograms_that_have_them(target: Target) -> None:
    having = {f"{metric.name}_bucket" for metric in METRICS.values() if metric.exemplars}
    assert {selector.name for selector in selectors(promql_parser.parse(target.query))} <= having


@pytest.mark.parametrize("name", UIDS)
def test_a_panel_says_what_it_shows_in_which_unit_and_what_to_do(name: str) -> None:
    for panel in panels(dashboards()[name]):
        title = panel["title"]
        assert title
        assert len(panel["description"]) > 40, title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, title
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])]), title
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"]), title


def test_a_panel_links_to_runbooks_that_there_are() -> None:
    text = "\n".join(panel["description"] for dashboard in dashboards().values() for panel in panels(dashboard))
    linked = set(re.findall(r"\(\$\{runbooks\}/(\w+)\.md\)", text))
    assert linked
    assert {name for name in linked if not (DEPLOY / "runbooks" / f"{name}.md").is_file()} == set()


@pytest.mark.parametrize("name", UIDS)
def test_panels_do_not_overlap(name: str) -> None:
    dashboard = dashboards()[name]
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= GRID_WIDTH for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("name", UIDS)
def test_variables_list_labels_that_there_are_and_each_query_uses_only_them(name: str) -> None:
    dashboard = dashboards()[name]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for variable in variables.values():
        if variable["type"] != "query":
            continue
        listed = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert listed is not None
        (selector,) = selectors(promql_parser.parse(substituted(listed[1])))
        assert selector.name is not None
        assert listed[2] == variable["name"]
        assert listed[2] in known()[selector.name]
        assert set(re.findall(r"\$(\w+)", variable["query"])) < variables.keys()
    used = {
        found
        for panel in panels(dashboard)
        for target in panel["targets"]
        for found in re.findall(r"\$(\w+)", target["expr"])
        if not found.startswith("__")
    }
    assert used | {"datasource", "runbooks"} == set(variables)


def test_a_bar_counts_little_that_the_bar_before_it_has_counted() -> None:
    """$__rate_interval is four scrapes at least: with a point at each scrape, one dead letter would look like four."""
    for dashboard in dashboards().values():
        for panel in panels(dashboard):
            bars = panel["fieldConfig"]["defaults"].get("custom", {}).get("drawStyle") == "bars"
            assert panel.get("interval") == ("1m" if bars else None), panel["title"]


def test_dashboards_link_to_each_other() -> None:
    for dashboard in dashboards().values():
        assert [(link["type"], link["tags"]) for link in dashboard["links"]] == [("dashboards", dashboard["tags"])]
