"""Time compressed: the rules that are deployed, with every duration in them made short.

A minute is a few seconds and a month little more than one minute. The map is the same for all durations and never
changes their order, so what is compared with each other stays comparable; counts and ratios stay what they are.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

MINUTE: Final = 60.0
UNITS: Final = {"ms": 0.001, "s": 1.0, "m": MINUTE, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0}
_FIVE_MINUTES: Final = 300.0
_SECONDS_OF_FIVE_MINUTES: Final = 5.0
_EXPONENT: Final = 0.3

_DURATION: Final = re.compile(r"(?<![\w.:\"])((?:\d+(?:ms|[smhdwy]))+)(?![\w\"])")
_PART: Final = re.compile(r"(\d+)(ms|[smhdwy])")


def seconds_of(duration: str) -> float:
    """A duration of PromQL's, such as 1h30m, in seconds."""
    return sum(int(count) * UNITS[unit] for count, unit in _PART.findall(duration))


def compressed(seconds: float, stretch: float = 1.0) -> float:
    """How long a duration is in compressed time: 1 min → 3.1 s, 5 min → 5 s, 1 h → 11 s, 1 d → 27 s, 30 d → 76 s.

    Stretched, where a fault cannot be brought about so fast, it is so many times as long.
    """
    return stretch * _SECONDS_OF_FIVE_MINUTES * (seconds / _FIVE_MINUTES) ** _EXPONENT if seconds else 0.0


def compressed_text(text: str, stretch: float = 1.0) -> str:
    """An expression or a duration with every duration in it compressed."""

    def short(match: re.Match[str]) -> str:
        return f"{round(compressed(seconds_of(match[1]), stretch) * 1000)}ms"

    return _DURATION.sub(short, text)


def compressed_rules(files: Sequence[Path], folder: Path, stretch: float = 1.0) -> Sequence[Path]:
    """The rule files with compressed durations, in `folder`."""
    written = []
    for file in files:
        tree = yaml.safe_load(file.read_text("utf-8"))
        for group in tree["groups"]:
            group.pop("interval", None)  # as often as Prometheus is told to by its configuration
            for rule in group["rules"]:
                _compress(rule, stretch)
        made = folder / file.name
        made.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
        written.append(made)
    return written


def _compress(rule: dict[str, Any], stretch: float) -> None:
    for key in ("expr", "for", "keep_firing_for"):
        if key in rule:
            rule[key] = compressed_text(str(rule[key]), stretch)
