"""The corpus judged: by API version and field what is filled, absent in the source, or lost.

python -m tests.oracle.report [FOLDER …] [--json] [--markdown FILE]
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import track
from rich.table import Table as RichTable

from service.contract import Event, Other
from tests.oracle.judge import FAULTS, Judgement, Verdict, judge
from tests.oracle.samples import Sample, outcome_of, own_samples, samples_below
from tests.oracle.tree import dotted
from tests.support.corpus import CORPUS

FAMILIES: Final = (
    ("2018", "≤2018"),
    ("2020-08-26", "≤2020-03"),
    ("2022-11-14", "2020-08"),
    ("2024-09-29", "2022-11"),
    ("2025-03-30", "acacia"),
    ("2025-09-29", "basil"),
    ("2026-03-24", "clover"),
    ("2026-09-29", "dahlia"),
    ("9999", "endive"),
)
"""The last day of a family of API versions, and its name."""
NO_VERSION: Final = "none"
OWN: Final = "own"
COLUMNS: Final = (NO_VERSION, *(name for _, name in FAMILIES), OWN)


def family(sample: Sample) -> str:
    """The column of a sample: what renders its version's shapes; the project's own are apart."""
    if sample.path is None:
        return OWN
    version = sample.api_version
    return NO_VERSION if version is None else next(name for last, name in FAMILIES if version[: len(last)] <= last)


@dataclass
class Report:
    """What has been judged so far."""

    counts: dict[tuple[str, str, str], Counter[Verdict]] = field(default_factory=dict)
    """Object type, field, family → how many of each verdict."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    faults: list[tuple[str, Judgement]] = field(default_factory=list)
    unexplained: list[tuple[str, Judgement]] = field(default_factory=list)
    events: int = 0

    def add(self, sample: Sample) -> None:
        """Judge one more event."""
        outcome = outcome_of(sample.tree)
        if not isinstance(outcome, Event):
            self.refused.append((sample.name, f"{outcome.reason}: {outcome.detail}"))
            return
        self.events += 1
        for judgement in judge(sample.tree, outcome):
            where = (_block(outcome, judgement), judgement.field, family(sample))
            self.counts.setdefault(where, Counter())[judgement.verdict] += 1
            if judgement.verdict in FAULTS:
                self.faults.append((sample.name, judgement))
            if judgement.unexplained and sample.path is not None:
                self.unexplained.append((sample.name, judgement))

    @property
    def totals(self) -> Counter[Verdict]:
        """How many of each verdict, over everything."""
        return sum(self.counts.values(), Counter())

    def blocks(self) -> Mapping[str, Mapping[str, Mapping[str, Counter[Verdict]]]]:
        """Object type → field → family → how many of each verdict."""
        blocks: dict[str, dict[str, dict[str, Counter[Verdict]]]] = {}
        for (object_type, name, column), counted in self.counts.items():
            blocks.setdefault(object_type, {}).setdefault(name, {})[column] = counted
        return dict(sorted(blocks.items()))


def _block(event: Event, judgement: Judgement) -> str:
    if judgement.field.startswith("event."):
        return "event"
    return "other" if isinstance(event.data, Other) else event.object_type


def report_on(samples: Iterable[Sample]) -> Report:
    """Judge all of them."""
    report = Report()
    for sample in samples:
        report.add(sample)
    return report


def cell(counted: Counter[Verdict] | None, column: str) -> str:
    """`12`: filled each time; `5/12`: in five of twelve, absent in the source else; `·`: absent each time; `lost:1`.

    Most events of our own say one fact each: of those the filled ones are all there is to tell.
    """
    if not counted:
        return ""
    filled, total = counted[Verdict.FILLED], counted.total()
    text = "·" if not filled else str(filled) if filled == total or column == OWN else f"{filled}/{total}"
    faults = {verdict: counted[verdict] for verdict in FAULTS if counted[verdict]}
    return " ".join([text, *(f"{verdict.value}:{many}" for verdict, many in sorted(faults.items()))])


def tables(report: Report) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of every table: a block per object type, then the fields of some versions only."""
    made = []
    some_only = []
    for object_type, fields in report.blocks().items():
        columns = [column for column in COLUMNS if any(column in counted for counted in fields.values())]
        rows = [[name, *(cell(counted.get(column), column) for column in columns)] for name, counted in fields.items()]
        made.append((object_type, ["field", *columns], rows))
        some_only += [
            [object_type, name, ", ".join(carrying), ", ".join(lacking)]
            for name, counted in fields.items()
            for carrying, lacking in [_carried(counted)]
            if carrying and lacking and object_type != "event"
        ]
    return [*made, ("fields that only some versions carry", ["object", "field", "carried in", "never in"], some_only)]


def _carried(counted: Mapping[str, Counter[Verdict]]) -> tuple[list[str], list[str]]:
    versions = [column for column in COLUMNS if column in counted and column not in (OWN, NO_VERSION)]
    carrying = [column for column in versions if counted[column][Verdict.FILLED]]
    return carrying, [column for column in versions if column not in carrying]


def summary(report: Report) -> str:
    """One line."""
    totals = report.totals
    said = ", ".join(f"{verdict.value} {totals[verdict]}" for verdict in Verdict)
    return (
        f"{report.events} events, {len(report.refused)} refused; fields: {said}; "
        f"to be looked at: {len(report.unexplained)}"
    )


LEGEND: Final = """\
By object type, field and API version: in how many payloads the field is filled, n/m where m have the object and the
source of the others says nothing, · where none says it; "name:n" is a fault. "own" are this project's own events.
"""


def print_report(report: Report, console: Console) -> None:
    """The tables, what is wrong, and the summary."""
    console.print(LEGEND, markup=False, highlight=False, style="dim")
    for title, columns, rows in tables(report):
        table = RichTable(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 or "only" in title else "right", overflow="fold")
        for row in rows:
            faulty = any(":" in text for text in row[1:])
            table.add_row(*row, style="red" if faulty else "dim" if set(row[1:]) <= {"·", ""} else "")
        console.print(table, "")
    for name, reason in report.refused:
        console.print(f"refused  {name}: {reason}", markup=False, highlight=False)
    for name, judgement in report.faults:
        console.print(f"FAULT    {name}: {judgement}", markup=False, highlight=False)
    for name, judgement in report.unexplained:
        places = ", ".join(dotted(leaf.path) for leaf in judgement.unexplained)
        console.print(f"look     {name}: {judgement.field} may be said at {places}", markup=False, highlight=False)
    console.print(summary(report), markup=False, highlight=False, style="bold red" if report.faults else "bold green")


def as_json(report: Report) -> dict[str, Any]:
    """For scripts."""
    return {
        "events": report.events,
        "totals": {verdict.value: report.totals[verdict] for verdict in Verdict},
        "fields": report.blocks(),
        "refused": [{"event": name, "reason": reason} for name, reason in report.refused],
        "faults": [
            {"event": name, "field": it.field, "verdict": it.verdict, "sources": [dotted(path) for path in it.sources]}
            for name, it in report.faults
        ],
        "unexplained": [
            {"event": name, "field": it.field, "paths": [dotted(leaf.path) for leaf in it.unexplained]}
            for name, it in report.unexplained
        ],
    }


def as_markdown(report: Report) -> str:
    """The tables as a document."""
    lines = ["# What the corpus says, and what is kept of it", "", summary(report), ""]
    lines += [
        "`12`: filled in all 12 events; `5/12`: in 5, absent in the payload of the others; `·`: absent in all.",
        "",
    ]
    for title, columns, rows in tables(report):
        lines += [f"## {title}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when nothing is lost, wrong or invented, else 1; 2 when a folder is not there."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.report", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="folders of events, a JSON file each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args(arguments)
    for folder in options.folders:
        if not folder.is_dir():
            parser.error(f"there is no folder {folder}")
    told = Console(stderr=True)
    if not options.folders and not CORPUS.is_dir():
        told.print(f"there are no payloads in {CORPUS}: only the project's own are judged", style="yellow")
    folders = options.folders or [CORPUS]
    samples = [*(sample for folder in folders for sample in samples_below(folder)), *own_samples()]
    report = report_on(track(samples, "judging", console=told, transient=True, disable=not told.is_terminal))
    if options.markdown is not None:
        options.markdown.write_text(as_markdown(report), encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else 160)
    if options.json:
        console.file.write(json.dumps(as_json(report), default=str, ensure_ascii=False) + "\n")
    else:
        print_report(report, console)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
