"""Kinds of panels: each has a unit, and a description that says what is normal and what to do where it is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import dashboard as dashboard_builder
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATA_SOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOKS: Final = "${runbooks}"
"""Where the runbooks are read; a variable of each dashboard, since every company has its own place."""

_LETTERS: Final = "ABCDEFGH"
"""What Grafana calls the queries of a panel."""

GREEN, ORANGE, RED = "green", "orange", "red"
Panel: TypeAlias = timeseries.Panel | stat.Panel | table.Panel | heatmap.Panel
_P = TypeVar("_P", timeseries.Panel, stat.Panel, table.Panel, heatmap.Panel)


@dataclass(frozen=True)
class Query:
    """One query of a panel; `legend` names its series by their labels (`{{endpoint}}`)."""

    expr: str
    legend: str = "__auto"
    exemplars: bool = False


@dataclass(frozen=True)
class Levels:
    """From which value on something is worth a look, and from which it is wrong."""

    orange: float | None = None
    red: float | None = None
    falling: bool = False
    """Low values are the bad ones: below `orange`, and below `red`."""


@dataclass(frozen=True)
class About:
    """What a panel's description says: what it shows and what is normal; `alerts` name the runbooks for when it is not.

    Where no alert belongs to it, `text` says itself what to do.
    """

    text: str
    alerts: tuple[str, ...] = ()

    @property
    def markdown(self) -> str:
        """As Grafana shows it."""
        links = ", ".join(f"[{name}]({RUNBOOKS}/{name}.md)" for name in self.alerts)
        return f"{self.text}\n\nWhat to do: {links}" if links else self.text


def lines(
    title: str,
    about: About,
    unit: str,
    *queries: Query,
    width: int = 8,
    stacked: bool = False,
    logarithmic: bool = False,
    signed: bool = False,
    levels: Levels | None = None,
) -> timeseries.Panel:
    """Values over time."""
    panel = timeseries.Panel().legend(
        common_builder.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    panel.tooltip(
        common_builder.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    panel.color_scheme(_colours(dashboard.FieldColorModeId.PALETTE_CLASSIC))
    panel.fill_opacity(30 if stacked else 8).show_points(common.VisibilityMode.NEVER)
    if stacked:
        panel.stacking(common_builder.StackingConfig().mode(common.StackingMode.NORMAL))
    if logarithmic:
        panel.scale_distribution(common_builder.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))
    elif not signed:
        panel.min(0)
    if levels is not None:
        panel.thresholds(_thresholds(levels)).thresholds_style(
            common_builder.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    for letter, query in zip(_LETTERS, queries, strict=False):
        panel.with_target(_range(query, letter))
    return _described(panel.span(width).height(8), title, about, unit)


def counts(title: str, about: About, *queries: Query, width: int = 8, levels: Levels | None = None) -> timeseries.Panel:
    """How often something seldom happened, and when: bars that a rate would flatten to nothing.

    A minute apart at least: with a point at each scrape, four of them would count the same.
    """
    panel = lines(title, about, "short", *queries, width=width, levels=levels).interval("1m")
    return panel.draw_style(common.GraphDrawStyle.BARS).fill_opacity(60)


def number(
    title: str,
    about: About,
    unit: str,
    query: Query,
    *,
    width: int = 4,
    levels: Levels | None = None,
    once: bool = False,
) -> stat.Panel:
    """The present value, with its course behind it; with `once` without, for a query too costly to be asked for it."""
    panel = stat.Panel().color_mode(common.BigValueColorMode.VALUE)
    panel.graph_mode(common.BigValueGraphMode.NONE if once else common.BigValueGraphMode.AREA)
    panel.reduce_options(common_builder.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.color_scheme(_colours(dashboard.FieldColorModeId.THRESHOLDS)).thresholds(_thresholds(levels or Levels()))
    panel.with_target(_instant(query) if once else _range(query))
    return _described(panel.span(width).height(5), title, about, unit)


def listing(
    title: str,
    about: About,
    columns: Sequence[tuple[str, str, Query]],
    *,
    width: int = 12,
    levels: Mapping[str, Levels] | None = None,
    links: Mapping[str, str] | None = None,
    descending: bool = True,
) -> table.Panel:
    """A table of the present: a row for each set of labels, a column (its name, unit, query) for each value.

    It is sorted by its first value. `links` are where a label's cells lead to; `${__value.raw}` is what a cell says.
    """
    panel = table.Panel().color_scheme(_colours(dashboard.FieldColorModeId.THRESHOLDS))
    names: dict[str, object] = {}
    for letter, (name, unit, query) in zip(_LETTERS, columns, strict=False):
        panel.with_target(_instant(query, letter).format(PromQueryFormat.TABLE))
        names[f"Value #{letter}" if len(columns) > 1 else "Value"] = name
        properties = [dashboard.DynamicConfigValue("unit", unit)]
        chosen = (levels or {}).get(name)
        if chosen is not None:
            properties += [
                dashboard.DynamicConfigValue("thresholds", _thresholds(chosen).build()),
                dashboard.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
            ]
        panel.override_by_name(name, properties)
    for label, url in (links or {}).items():
        panel.override_by_name(label, [dashboard.DynamicConfigValue("links", [{"title": "Open", "url": url}])])
    panel.with_transformation(dashboard.DataTransformerConfig("merge", options={}))
    panel.with_transformation(
        dashboard.DataTransformerConfig(
            "organize", options={"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": names}
        )
    )
    panel.sort_by([common_builder.TableSortByFieldState().display_name(columns[0][0]).desc(descending)])
    return _described(panel.span(width).height(8), title, about, columns[0][1])


def heat(title: str, about: About, unit: str, spread: Query, *, width: int = 8) -> heatmap.Panel:
    """How a histogram's values are spread, over time; `spread` is a query by `le`."""
    panel = heatmap.Panel().calculate(False)
    panel.y_axis(heatmap.YAxisConfig().unit(unit))
    panel.cell_values(heatmap.CellValues().unit("short"))
    panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
    panel.with_target(_range(spread).format(PromQueryFormat.HEATMAP))
    return _described(panel.span(width).height(8), title, about, unit)


def _described(panel: _P, title: str, about: About, unit: str) -> _P:
    panel.title(title).description(about.markdown).datasource(DATA_SOURCE).unit(unit)
    return panel


def _instant(query: Query, letter: str = _LETTERS[0]) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(letter).instant().datasource(DATA_SOURCE)
    return target.legend_format(query.legend)


def _range(query: Query, letter: str = _LETTERS[0]) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(letter).range().datasource(DATA_SOURCE)
    target.legend_format(query.legend)
    return target.exemplar(True) if query.exemplars else target


def _colours(mode: dashboard.FieldColorModeId) -> dashboard_builder.FieldColor:
    return dashboard_builder.FieldColor().mode(mode)


def _thresholds(levels: Levels) -> dashboard_builder.ThresholdsConfig:
    steps = [dashboard.Threshold(None, RED if levels.falling and levels.red is not None else GREEN)]
    if levels.falling:
        if levels.red is not None:
            steps.append(dashboard.Threshold(levels.red, ORANGE if levels.orange is not None else GREEN))
        if levels.orange is not None:
            steps.append(dashboard.Threshold(levels.orange, GREEN))
    else:
        if levels.orange is not None:
            steps.append(dashboard.Threshold(levels.orange, ORANGE))
        if levels.red is not None:
            steps.append(dashboard.Threshold(levels.red, RED))
    return dashboard_builder.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)
