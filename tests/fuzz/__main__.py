"""`python -m tests.fuzz [--inputs N] [--seconds S] [--seed K]`: fuzz the pure path, and print what it came to."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz import growth, running
from tests.fuzz.tally import Tally

GUIDED_PERCENT = 20
"""How many of a hundred inputs are guided by coverage."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all of it; 1 where there was a fault, or time grows faster than size."""
    options = _options(arguments)
    started = time.monotonic()
    until = started + options.seconds
    guided_inputs = options.inputs * GUIDED_PERCENT // 100
    with _progress() as progress, tempfile.TemporaryDirectory(prefix="stripe-ingest-fuzz-") as scratch:
        seeded = progress.add_task("structure, seeded", total=options.inputs - guided_inputs)
        guiding = progress.add_task("bytes, guided by coverage", total=guided_inputs)
        tally = running.run_seeded(
            options.inputs - guided_inputs,
            options.seed,
            processes=options.processes,
            until=until,
            advanced=lambda count: progress.advance(seeded, count),
        )
        guided = running.run_guided(
            guided_inputs,
            options.seed,
            Path(scratch),
            processes=options.processes,
            until=until,
            advanced=lambda count: progress.advance(guiding, count),
        )
        tally.add(guided.tally)
        growing = progress.add_task("growth", total=len(growth.FAMILIES))
        points = growth.table(lambda _: progress.advance(growing))
    faster = [family for family in growth.FAMILIES if growth.ratio(points, family) > growth.RATIO_MAX]
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    _show(console, tally, guided)
    console.print(growth.show(points), soft_wrap=True)
    console.print(f"faster than linear: {', '.join(faster) or 'none'}")
    console.print(
        f"{tally.inputs.total():,} inputs, seed {options.seed}, {time.monotonic() - started:.0f} s, "
        f"{sum(times for times, _, _ in tally.faults.values()):,} faults"
    )
    return 1 if tally.faults or faster else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the pure path.")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many in all (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no longer than this (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the seeded inputs depend on it alone (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="(%(default)s)")
    return parser.parse_args(arguments)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


def _show(console: Console, tally: Tally, guided: running.Guided) -> None:
    inputs = Table("inputs", "count", title=None, box=None)
    for kind, count in tally.inputs.most_common():
        inputs.add_row(kind, f"{count:,}")
    inputs.add_row("in all", f"{tally.inputs.total():,}")
    console.print(inputs)
    console.print(f"guided: {guided.edges:,} edges reached, {guided.corpus:,} inputs kept for reaching something new\n")

    outcomes = Table("outcome", "", "count", box=None)
    for (kind, detail), count in sorted(tally.outcomes.items()):
        outcomes.add_row(kind, detail, f"{count:,}")
    outcomes.add_row("(event)", "with a NUL in a text: Postgres refuses it", f"{tally.unstorable:,}")
    console.print(outcomes)

    sizes = Table("\nsize up to", "\ninputs", "mean\nµs", "worst\nms", "\nµs/KiB", box=None)
    for bits, row in sorted(tally.sizes.items()):
        per_kib = f"{row.cpu_ns / 1e3 / row.size_bytes * 1024:.1f}" if bits > 10 else ""
        sizes.add_row(
            f"{2**bits:,}",
            f"{row.inputs:,}",
            f"{row.cpu_ns / row.inputs / 1e3:.0f}",
            f"{row.worst_ns / 1e6:.2f}",
            per_kib,
        )
    console.print(sizes)
    worst = tally.worst
    console.print(
        f"worst process CPU time: {worst.cpu_ns / 1e6:.2f} ms for {len(worst.body):,} bytes ({worst.kind}: {worst.outcome})\n"
    )
    for where, (times, text, body) in tally.faults.items():
        console.print(f"FAULT, {times:,} times: {where}", markup=False, style="bold red")
        console.print(text, markup=False)
        console.print(f"{body[:2000]!r}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
