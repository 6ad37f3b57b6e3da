"""`python -m tests.alerting [ALERT…]`: inject a fault for each alert, or for those named; show what fired."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import click
from rich.console import Console

from tests.alerting.running import Played, play, table
from tests.alerting.scenarios import SCENARIOS, Scenario
from tests.alerting.world import servers

SIDE_BY_SIDE = 2


@click.command()
@click.argument("alerts", nargs=-1)
@click.option("--output", type=click.Path(path_type=Path), help="Also write the table here.")
@click.option("--workers", default=SIDE_BY_SIDE, show_default=True, type=click.IntRange(1, 8))
def main(alerts: Sequence[str], output: Path | None, workers: int) -> None:
    """Play the scenarios of the alerts, some side by side; exit 1 where one does not fire, or too much does."""
    unknown = set(alerts) - {each.alert for each in SCENARIOS}
    if unknown:
        raise click.UsageError(f"no scenario for {', '.join(sorted(unknown))}")
    chosen = [each for each in SCENARIOS if not alerts or each.alert in alerts]
    played = asyncio.run(play_all(chosen, min(workers, len(chosen))))
    shown = table(played)
    click.echo(shown)
    if output is not None:
        output.write_text(shown + "\n", encoding="utf-8")
    sys.exit(not all(each.well for each in played))


async def play_all(chosen: Sequence[Scenario], workers: int) -> Sequence[Played]:
    """Play them, each worker on servers of its own."""
    console = Console(stderr=True)
    waiting = list(enumerate(chosen))
    played: list[Played] = []
    one_at_a_time = asyncio.Lock()

    async def work() -> None:
        with tempfile.TemporaryDirectory(prefix="alerting-servers-") as folder:
            async with AsyncExitStack() as stack:
                async with one_at_a_time:  # of migrations there can be one in a process
                    on = await stack.enter_async_context(servers(Path(folder)))
                while waiting:
                    number, each = waiting.pop(0)
                    began = time.monotonic()
                    outcome = await play(each, on, f"a{number}")
                    played.append(outcome)
                    mark = "[green]✓[/]" if outcome.well else "[red]✗[/]"
                    console.print(
                        f"{mark} {len(played)}/{len(chosen)} {each.alert}"
                        f" [dim]{time.monotonic() - began:.0f} s[/] {outcome.problem or ''}"
                        f"{' '.join(sorted(outcome.unlisted))}",
                        highlight=False,
                    )

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
    return played


if __name__ == "__main__":
    main()
