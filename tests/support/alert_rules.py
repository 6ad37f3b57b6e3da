"""The alerts and recording rules that are deployed, their runbooks, and which labels a query's result has."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import promql_parser as promql
import yaml

from service.telemetry.catalogue import METRICS, PYTHON_METRICS

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
RECORDING: Final = DEPLOY / "prometheus" / "recording.yml"
ALERTS: Final = DEPLOY / "prometheus" / "alerts"
TESTS: Final = DEPLOY / "prometheus" / "tests"
RUNBOOKS: Final = DEPLOY / "runbooks"

Labels: TypeAlias = Mapping[str, frozenset[str]]
"""Label → all values that it may have; none, where nobody knows them."""

TARGET: Final[Labels] = {
    "job": frozenset({"stripe-ingest-receiver", "stripe-ingest-consumer"}),
    "instance": frozenset(),
}
"""What Prometheus adds to whatever it scrapes."""

_ANY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a file, by the alert's or the recorded series' name."""

    name: str
    file: Path
    expr: str
    hold: str | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Runbook:
    """A page, with what stands before it and what it shows."""

    file: Path
    alert: str
    severity: str
    consequences: tuple[str, ...]
    text: str

    @property
    def queries(self) -> list[str]:
        """What stands in its blocks of PromQL, a query a line."""
        return self._lines("promql")

    @property
    def commands(self) -> list[str]:
        """Each `stripe-ingest …` that is more than the program's name, in blocks of shell and in the text."""
        inline = re.findall(r"`(stripe-ingest [^`]+)`", self.text)
        return [line for line in self._lines("sh") + inline if line.startswith("stripe-ingest ")]

    def _lines(self, language: str) -> list[str]:
        blocks = re.findall(rf"^```{language}\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)
        return [line for block in blocks for line in block.splitlines()]


class LabelError(AssertionError):
    """A query names a metric or a label that is not there."""


@cache
def alerts() -> Mapping[str, Rule]:
    """All alerts."""
    return {rule.name: rule for file in sorted(ALERTS.glob("*.yml")) for rule in _rules(file, "alert")}


@cache
def recordings() -> Mapping[str, Rule]:
    """All recording rules."""
    return {rule.name: rule for rule in _rules(RECORDING, "record")}


def _rules(file: Path, kind: str) -> Iterator[Rule]:
    for group in yaml.safe_load(file.read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            yield Rule(
                rule[kind],
                file,
                str(rule["expr"]),
                rule.get("for"),
                rule.get("labels", {}),
                rule.get("annotations", {}),
            )


@cache
def runbooks() -> Mapping[str, Runbook]:
    """All runbooks, by the file's name."""
    return {file.stem: _runbook(file) for file in sorted(RUNBOOKS.glob("*.md")) if file.stem != "README"}


def _runbook(file: Path) -> Runbook:
    _, front, text = file.read_text("utf-8").split("---\n", 2)
    said = yaml.safe_load(front)
    return Runbook(file, said["alert"], said["severity"], tuple(said["consequences"]), text)


def metrics_in(query: str) -> frozenset[str]:
    """The names of all series in a query, those of recording rules replaced by what these are made of."""
    found: set[str] = set()

    def visit(node: Any) -> bool:
        if isinstance(node, promql.VectorSelector):
            name = node.name or ""
            found.update(metrics_in(recordings()[name].expr) if name in recordings() else {name})
        elif isinstance(node, promql.MatrixSelector):
            promql.walk(node.vector_selector, visit)
        return True

    promql.walk(promql.parse(query), visit)
    return frozenset(found)


def labels_of(query: str) -> Labels:
    """The labels that the result of a query may have. Raises `LabelError` where it names one that is not there."""
    return _of(promql.parse(query))


def _of(node: Any) -> Labels:
    match node:
        case promql.VectorSelector():
            return _selected(node)
        case promql.MatrixSelector():
            return _selected(node.vector_selector)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _of(node.expr)
        case promql.AggregateExpr():
            return _aggregated(node)
        case promql.BinaryExpr():
            return _combined(node)
        case promql.Call():
            return _called(node)
        case promql.NumberLiteral() | promql.StringLiteral():
            return {}
        case _:
            raise LabelError(f"a kind of expression that nobody has thought of: {node}")


def _series(name: str) -> Labels:
    if name == "up":
        return TARGET
    if name in recordings():
        return labels_of(recordings()[name].expr)
    for metric in (*METRICS.values(), *PYTHON_METRICS.values()):
        if name in metric.samples:
            own = {label: frozenset(values) for label, values in metric.values.items()}
            bounds = {"le": frozenset(f"{bound:g}" for bound in metric.buckets)} if name.endswith("_bucket") else {}
            return {**own, **bounds, **TARGET}
    raise LabelError(f"{name}: there is no such metric and no such recording rule")


def _selected(node: Any) -> Labels:
    labels = dict(_series(node.name or ""))
    for matcher in node.matchers.matchers:
        if matcher.name not in labels:
            raise LabelError(f"{node.name} has no label {matcher.name}; it has {', '.join(sorted(labels))}")
        known = labels[matcher.name]
        if not known:
            continue
        if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
            wanted = {f"{float(matcher.value):g}" if matcher.name == "le" else matcher.value}
            chosen = known & wanted
        else:
            # A pattern may be more than a list of values; then it must match some.
            wanted = set(matcher.value.split("|")) if re.fullmatch(r"[\w|]+", matcher.value) else set()
            chosen = frozenset(value for value in known if re.fullmatch(matcher.value, value))
        if not wanted <= known or not chosen:
            raise LabelError(f"{node.name}: {matcher.name} is never {matcher.value}; it is {', '.join(sorted(known))}")
        is_positive = matcher.op in (promql.MatchOp.Equal, promql.MatchOp.Re)
        labels[matcher.name] = chosen if is_positive else known - chosen
    return labels


def _aggregated(node: Any) -> Labels:
    inner = _of(node.expr)
    if node.modifier is None:
        return {}
    named = node.modifier.labels
    _must_have(inner, named, node)
    if node.modifier.type == promql.AggModifierType.By:
        return {name: inner[name] for name in named}
    return {name: values for name, values in inner.items() if name not in named}


def _combined(node: Any) -> Labels:
    left, right = _of(node.lhs), _of(node.rhs)
    operator = str(node.op)
    matching = node.modifier.matching if node.modifier is not None else None
    if matching is not None:
        for side in (left, right):
            # What has no labels at all matches by none: a constant, or a sum over everything.
            _must_have(side, matching.labels, node)
    if operator == "or":
        return {name: left.get(name, _ANY) | right.get(name, _ANY) for name in {*left, *right}}
    if operator in ("and", "unless") or _is_scalar(node.rhs):
        return left
    if _is_scalar(node.lhs):
        return right
    if matching is None or node.modifier.card == promql.VectorMatchCardinality.ManyToOne:
        return left
    if matching.type == promql.LabelModifierType.Include:
        return {name: left[name] for name in matching.labels}
    return {name: values for name, values in left.items() if name not in matching.labels}


def _called(node: Any) -> Labels:
    if node.func.name in ("absent", "absent_over_time", "vector", "time"):
        for argument in node.args:
            _of(argument)
        return {}
    inner = [_of(argument) for argument in node.args]
    labels = inner[-1] if inner else {}
    if node.func.name == "histogram_quantile":
        _must_have(labels, ["le"], node)
        return {name: values for name, values in labels.items() if name != "le"}
    return labels


def _is_scalar(node: Any) -> bool:
    if isinstance(node, promql.ParenExpr | promql.UnaryExpr):
        return _is_scalar(node.expr)
    if isinstance(node, promql.BinaryExpr):
        return _is_scalar(node.lhs) and _is_scalar(node.rhs)
    return isinstance(node, promql.NumberLiteral) or (isinstance(node, promql.Call) and node.func.name == "time")


def _must_have(labels: Labels, named: list[str], node: Any) -> None:
    if lacking := set(named) - labels.keys():
        raise LabelError(
            f"{', '.join(sorted(lacking))}: not among {', '.join(sorted(labels)) or 'no labels'} in {node.prettify()}"
        )
