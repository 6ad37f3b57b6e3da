"""`python -m tests.simulation [--seeds N] [--first S] [--seed K]`: play histories full of faults, and print what came of it.

With `--seed` one history is played, and told line by line. Exit 1 where anything was found.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation.faults import Fault
from tests.simulation.running import Tally, play_in_processes
from tests.simulation.world import Outcome, play


def main(arguments: Sequence[str] | None = None) -> int:
    """Play them; 1 where a class is not empty."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if options.seed is not None:
        outcome = play(options.seed)
        _tell(console, outcome)
        return 1 if outcome.findings else 0
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    shown_on = Console(stderr=True)
    with Progress(*columns, console=shown_on, disable=not shown_on.is_terminal, transient=True) as progress:
        task = progress.add_task("histories", total=options.seeds)

        def advanced(tally: Tally) -> None:
            found = sum(tally.classes.values())
            progress.update(task, completed=tally.histories, description=f"histories, {found:,} findings")

        tally = play_in_processes(
            range(options.first, options.first + options.seeds), processes=options.processes, advanced=advanced
        )
    _show(console, tally, time.monotonic() - started)
    return 1 if tally.failing else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Play histories full of faults.")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many histories (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--seed", type=int, help="play this one, and tell it")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="(%(default)s)")
    return parser.parse_args(arguments)


def _tell(console: Console, outcome: Outcome) -> None:
    for line in outcome.lines:
        console.print(line, markup=False, soft_wrap=True)
    console.print()
    for fault, count in sorted(outcome.faults.items()):
        console.print(f"{count:>6}  {fault.value}", markup=False)
    console.print(f"\n{outcome.events} events, {outcome.attempts} attempts, {outcome.records} records, "
                  f"{outcome.doubled_records} of them doubled, history {outcome.digest[:16]}")  # fmt: skip
    for name, found in outcome.findings.items():
        for each in found:
            console.print(f"{name}: {each}", markup=False, soft_wrap=True, style="bold red")
    if not outcome.findings:
        console.print("nothing was found")


def _show(console: Console, tally: Tally, seconds: float) -> None:
    faults = Table("fault", "injected", box=None)
    for fault in Fault:
        faults.add_row(fault.value, f"{tally.faults[fault]:,}")
    faults.add_row("in all", f"{tally.faults.total():,}")
    faults.columns[1].justify = "right"
    console.print(faults)
    console.print()
    classes = Table("class", "histories in which it was found", box=None)
    for name, count in tally.classes.items():
        classes.add_row(name, f"{count:,}", style="bold red" if count else None)
    classes.columns[1].justify = "right"
    console.print(classes)
    console.print(
        f"\n{tally.histories:,} histories in {seconds:.0f} s ({tally.histories / seconds:.1f}/s), "
        f"{tally.virtual_seconds / 86_400:,.0f} simulated days: {tally.events:,} events, {tally.attempts:,} attempts, "
        f"{tally.records:,} records; {tally.doubled_records:,} of them were second records of their event, which the "
        "ledgers absorbed"
    )
    for seed, found in tally.failing:
        console.print(f"seed {seed}: {found}", markup=False, soft_wrap=True, style="bold red")
    if tally.failing:
        console.print(f"to see one: python -m tests.simulation --seed {tally.failing[0][0]}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
