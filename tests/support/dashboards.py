"""The committed dashboards, as tests read them: their panels, and their queries as Grafana would send them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.grafana.generating import FOLDER

_VARIABLES: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
RATE_INTERVAL: Final = "10s"
"""Four scrapes and more at the interval of tests (1 s): what Grafana takes for $__rate_interval, on a short range."""
_BUILT_IN: Final[Mapping[str, str]] = {"__rate_interval": RATE_INTERVAL, "__interval": "1s", "__range": "5m"}


@dataclass(frozen=True)
class Target:
    """One query of a panel."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    instant: bool
    exemplars: bool

    @property
    def query(self) -> str:
        """With every variable filled in: all of its values."""
        return substituted(self.expr)

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel} [{self.ref}]"


def substituted(expr: str) -> str:
    """A query with Grafana's own variables as a short range has them, and a dashboard's as "All" has them."""
    return _VARIABLES.sub(lambda found: _BUILT_IN.get(found[1] or found[2], ".*"), expr)


def dashboards() -> Mapping[str, Any]:
    """Each file's content, by its name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Its panels, without the headings of rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets() -> Sequence[Target]:
    """Every query of every panel of every dashboard."""
    return [
        Target(
            dashboard=name,
            panel=panel["title"],
            ref=target["refId"],
            expr=target["expr"],
            instant=target.get("instant", False),
            exemplars=target.get("exemplar", False),
        )
        for name, dashboard in dashboards().items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
