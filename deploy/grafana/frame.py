"""What every dashboard has around its panels: a uid for ever, variables, links to the others, a grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.models import dashboard

from deploy.grafana.panels import DATA_SOURCE, Panel

TAG: Final = "stripe-ingest"
DEFAULT_RUNBOOKS: Final = "/runbooks"
"""Until somebody sets the variable: below the Grafana that shows the dashboard."""
_GRID_WIDTH: Final = 24


@dataclass(frozen=True)
class Variable:
    """A choice of one label's values, all of them at first; the values are those of a metric's series."""

    name: str
    values_of: str
    """The selector whose label of that name is listed."""


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


def dashboard_of(
    uid: str, title: str, description: str, variables: Sequence[Variable], rows: Sequence[Row]
) -> dashboard.Dashboard:
    """A whole dashboard."""
    made = (
        builder.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("utc")
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            builder.DashboardLink("stripe-ingest")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(builder.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in variables:
        made.with_variable(
            builder.QueryVariable(variable.name)
            .query(f"label_values({variable.values_of}, {variable.name})")
            .datasource(DATA_SOURCE)
            .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(dashboard.VariableSort.NATURAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
        )
    made.with_variable(
        builder.TextBoxVariable("runbooks")
        .label("Runbooks at")
        .description("Where deploy/runbooks is published: what panels' links begin with.")
        .default_value(DEFAULT_RUNBOOKS)
    )
    _place(made, rows)
    return made.build()


def _place(made: builder.Dashboard, rows: Sequence[Row]) -> None:
    """Put each row's panels side by side, in as many lines as they need. Ids count up from 1: they are linked to."""
    y, number = 0, 0
    for row in rows:
        number += 1
        heading = builder.Row(row.title).id(number).grid_pos(dashboard.GridPos(h=1, w=_GRID_WIDTH, x=0, y=y))
        made.with_row(heading)
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            size = panel.build().grid_pos
            if size is None:
                msg = f"a panel of {row.title!r} has no size"
                raise ValueError(msg)
            if x + size.w > _GRID_WIDTH:
                x, y, height = 0, y + height, 0
            number += 1
            made.with_panel(panel.id(number).grid_pos(dashboard.GridPos(h=size.h, w=size.w, x=x, y=y)))
            x, height = x + size.w, max(height, size.h)
        y += height
