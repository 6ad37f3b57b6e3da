"""`python -m tests.simulation.outages`: 72 hours with an outage of each part in turn, Stripe sending again every hour.

Every event must be applied once; printed is how long each recovery took: from the part's return until everything that
had happened by then was applied.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from service.projections import PROJECTIONS
from tests.simulation.faults import Chaos
from tests.simulation.loop import VirtualLoop, repeatable, run
from tests.simulation.processes import ConsumerProcess, ReceiverProcess
from tests.simulation.stories import HOUR, Story, story
from tests.simulation.stripe import HOURLY
from tests.simulation.twins import Server
from tests.simulation.world import Outcome, World, silence

HOURS: Final = 72
OUTAGE_SECONDS: Final = 6 * HOUR
STORIES: Final = 40


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of one part. Times in seconds."""

    part: str
    began: float
    seconds: float
    waiting: int
    """Events that Stripe still had, and records that a projection had not passed, when the part came back."""


@dataclass(frozen=True, slots=True)
class _Outage:
    part: str
    begin: Callable[[], None]
    end: Callable[[], None]


class Outages(World):
    """Three receivers, two consumers of each projection, and a timeline instead of chance."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        chance = repeatable(f"outages:{seed}")
        super().__init__(seed, chance, loop, Chaos.none(chance))
        stories = [
            story(seed * STORIES + n, chance, livemode=self.live, span=HOURS * HOUR, twins=lambda: False)
            for n in range(STORIES)
        ]
        self.story = Story(
            [told for each in stories for told in each.events],
            {
                table: {key: facts for each in stories for key, facts in each.facts.get(table, {}).items()}
                for table in {table for each in stories for table in each.facts}
            },
        )
        self.stripe.pauses = HOURLY
        self.receivers[:] = [ReceiverProcess(f"receiver-{n}", self.platform) for n in range(3)]
        self.consumers[:] = [
            ConsumerProcess(f"{name}-{n}", name, self.platform) for name in self.platform.databases for n in range(2)
        ]
        self.recoveries: list[Recovery] = []

    def _projections(self) -> Sequence[str]:
        return sorted(PROJECTIONS)

    async def _trouble(self) -> None:
        for number, outage in enumerate(self._outages()):
            await asyncio.sleep((4 + 13 * number) * HOUR - self.loop.time())
            began = self.loop.time()
            self.history.tell("world", f"{outage.part}: away")
            outage.begin()
            await asyncio.sleep(OUTAGE_SECONDS)
            outage.end()
            self.history.tell("world", f"{outage.part}: back")
            self.recoveries.append(await self._recovery(outage.part, began))
        self.healed_at = self.loop.time()
        self.chaos.healed = True

    async def _recovery(self, part: str, began: float) -> Recovery:
        back = self.loop.time()
        happened = {told.event_id for told in self.story.events if told.at <= back - 30}
        waiting = len(happened - self.stripe.accepted) + len(set(self.not_passed()))
        while (happened - self.stripe.accepted) or any(self.not_passed()):
            self.site.disturb()
            await asyncio.sleep(0.25)
        return Recovery(part, began, self.loop.time() - back, waiting)

    def _outages(self) -> Sequence[_Outage]:
        platform = self.platform

        def kafka(available: bool) -> None:
            platform.broker.down = not available
            platform.kafka.available = available
            platform.kafka.wake()

        def kill(processes: Sequence[ReceiverProcess | ConsumerProcess]) -> None:
            for process in processes:
                process.retired = True
                process.crash()

        def start(processes: Sequence[ReceiverProcess | ConsumerProcess]) -> None:
            for process in processes:
                process.retired = False
                process.start()

        def down(server: Server) -> None:
            server.down = True

        return (
            _Outage("Kafka", lambda: kafka(available=False), lambda: kafka(available=True)),
            _Outage("dedupe store", lambda: down(platform.dedupe_server), platform.dedupe_server.up),
            _Outage("database", lambda: down(platform.database_server), platform.database_server.up),
            _Outage("all receivers", lambda: kill(self.receivers), lambda: start(self.receivers)),
            _Outage("all consumers", lambda: kill(self.consumers), lambda: start(self.consumers)),
        )


def play_outages(seed: int) -> tuple[Outcome, Sequence[Recovery]]:
    """Play them, and judge what came of it."""
    worlds: list[Outages] = []

    async def main(loop: VirtualLoop) -> None:
        worlds.append(Outages(seed, loop))
        await worlds[0].play()

    with silence():
        run(main, repeatable(seed), shuffled=True)
        return worlds[0].outcome(()), worlds[0].recoveries


def main() -> int:
    """Print the table; 1 where something was found."""
    outcome, recoveries = play_outages(1)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    table = Table("away for 6 h", "from hour", "waiting", "recovered after", box=None)
    for each in recoveries:
        table.add_row(each.part, f"{each.began / HOUR:.0f}", f"{each.waiting}", f"{each.seconds:,.1f} s")
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
    console.print(
        f"\n{outcome.virtual_seconds / HOUR:.0f} simulated hours, {outcome.events} events in {outcome.attempts} attempts, "
        f"{outcome.records} records, {outcome.doubled_records} of them second ones"
    )
    for name, found in outcome.findings.items():
        console.print(f"{name}: {found[0]} ({len(found)})", markup=False, style="bold red")
    if not outcome.findings:
        console.print("every event was applied once")
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
