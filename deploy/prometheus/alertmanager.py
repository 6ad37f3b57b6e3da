"""`python -m deploy.prometheus.alertmanager`: an Alertmanager configuration that calls for causes, not for effects.

Which alert comes of which, the runbooks say (`consequences`). Two that come of each other would silence each other, and
nobody be called; so of every two only the one that comes first in one order of all alerts may silence the other: the
more severe one, then the one that more comes of.

What is about one endpoint, projection or process silences only what is about the same one: it may fire for long, and
would hide what comes of the others.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

PROMETHEUS: Final = Path(__file__).parent
RUNBOOKS: Final = PROMETHEUS.parent / "runbooks"
FILE: Final = PROMETHEUS / "alertmanager.example.yml"

SEVERITIES: Final = ("critical", "warning", "info")
SUBJECTS: Final = ("account", "certificate", "endpoint", "instance", "mode", "projection")
"""Labels that say what an alert is about."""

HEAD: Final = """\
# An example for Alertmanager. Put your own receivers in; the rest can stay as it is.
# Printed by `python -m deploy.prometheus.alertmanager` from the runbooks' `consequences`; do not edit.

route:
  receiver: today
  group_by: [alertname]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 12h
  routes:
    # To something outside of all this that calls somebody when it hears nothing for some minutes.
    - receiver: dead-man
      matchers: ['alertname="StripeIngestWatchdog"']
      group_wait: 0s
      group_interval: 1m
      repeat_interval: 50s # shorter, or it would be every two minutes
    - {receiver: page, matchers: ['severity="critical"'], repeat_interval: 1h}
    - {receiver: none, matchers: ['severity="info"']}

receivers:
  - name: page
    # webhook_configs: [{url: "https://pager.example.com/alert"}]
  - name: today
    # webhook_configs: [{url: "https://chat.example.com/alert"}]
  - name: dead-man
    # webhook_configs: [{url: "https://dead-man.example.com/stripe-ingest"}]
  - name: none

"""


@dataclass(frozen=True, slots=True)
class Alert:
    """What a runbook says before it begins, and what its alert is about."""

    name: str
    severity: str
    consequences: tuple[str, ...]
    subjects: frozenset[str]

    @property
    def rank(self) -> tuple[int, int, str]:
        """Its place in the order of all."""
        return SEVERITIES.index(self.severity), -len(self.consequences), self.name


def alerts() -> Mapping[str, Alert]:
    """All alerts."""
    return {alert.name: alert for alert in _alerts()}


def _alerts() -> Iterator[Alert]:
    for file in sorted(PROMETHEUS.glob("alerts/*.yml")):
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                _, front, _ = (RUNBOOKS / f"{rule['alert']}.md").read_text("utf-8").split("---\n", 2)
                said = yaml.safe_load(front)
                # An alert's texts name each label that tells it from others of its name.
                texts = rule["annotations"]["summary"] + rule["annotations"]["description"]
                subjects = frozenset(re.findall(r"\$labels\.(\w+)", texts)) & frozenset(SUBJECTS)
                yield Alert(rule["alert"], said["severity"], tuple(said["consequences"]), subjects)


def silenced(cause: Alert, known: Mapping[str, Alert]) -> Sequence[str]:
    """What a cause silences, where it is about the same."""
    others = (known[name] for name in cause.consequences)
    return sorted(other.name for other in others if cause.rank < other.rank and cause.subjects <= other.subjects)


def configuration() -> str:
    """The whole file."""
    known = alerts()
    lines = ["inhibit_rules:"]
    for name in sorted(known):
        if targets := silenced(known[name], known):
            lines += [
                f"  - source_matchers: ['alertname=\"{name}\"']",
                f"    target_matchers: ['alertname=~\"{'|'.join(targets)}\"']",
            ]
            if equal := sorted(known[name].subjects):
                lines.append(f"    equal: [{', '.join(equal)}]")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(configuration(), end="")  # noqa: T201 -- what the command is for
