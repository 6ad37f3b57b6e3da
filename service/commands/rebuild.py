"""`rebuild`: a projection's tables held against its ledger, and put right."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from service.bootstrap import kafka as bootstrap_kafka
from service.bootstrap import rebuild as bootstrap_rebuild
from service.commands.options import new_console, run_async, with_config
from service.config import Config
from service.ports import RebuildPage, RecordLog
from service.projections import PROJECTIONS
from service.projections.differences import Difference
from service.records import Topics, decode_for
from service.recovery.rebuild import FromTopics, Tally, records_in
from service.recovery.rebuild import rebuild as walk
from service.stopping import stop_signals

SHOWN_MAX: Final = 200
"""More differences than this are counted for people, not listed; `--json` lists all."""
VALUE_CHARACTERS_MAX: Final = 60
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT
_COUNTED: Final = {"topic": "records", "objects": "objects", "rows": "rows"}
"""What is looked at, by walk."""


@click.command()
@click.argument("projection", type=click.Choice(sorted(PROJECTIONS)))
@click.option("--dry-run", is_flag=True, help="Say what differs and change nothing. Exit 1 where something does.")
@click.option("--from-topic", is_flag=True, help="First put into the ledger what the topics have and it lacks.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: each difference, then a summary.")
@with_config
def rebuild(config: Config, projection: str, dry_run: bool, from_topic: bool, as_json: bool) -> None:
    """Fold every object of a projection anew from its ledger, and correct what its tables say otherwise.

    Consumers, and other rebuilds, may run meanwhile. What was corrected stays when this is interrupted; run again, it
    begins anew and comes to the same end.

    --from-topic reads the projection's topics from their first record to their present end, as nobody's consumer group.
    Ledger entries that are missing come back, those that differ from their record are corrected, and none is removed:
    the ledger may go further back than the topics. What no consumer has come to yet is left to it.
    """
    listing = _Lines() if as_json else _Listing()
    outcome = _Outcome()
    try:
        run_async(lambda: _rebuild(config, projection, outcome, listing.add, dry_run=dry_run, from_topic=from_topic))
    finally:
        # Also where it failed: what was corrected by then no other run will find.
        if outcome.ended or outcome.tally.looked_at:
            listing.end(outcome, dry_run=dry_run)
        if outcome.tally.looked_at and not outcome.ended:
            click.echo(f"stopped after {outcome.where()}; run again, it goes over all of it", err=True)
    if not outcome.ended:
        raise click.exceptions.Exit(EXIT_INTERRUPTED)
    if dry_run and outcome.tally.differences:
        raise click.exceptions.Exit(1)


@dataclass(slots=True)
class _Outcome:
    """What a run came to so far."""

    tally: Tally = field(default_factory=Tally)
    ended: bool = False
    """Whether it came to its end: it was neither interrupted, nor did it fail."""

    def where(self) -> str:
        """How far it was."""
        looked_at = ", ".join(f"{count} {_COUNTED[walk]}" for walk, count in self.tally.looked_at.items())
        reached = self.tally.reached
        return looked_at if reached is None else f"{looked_at}, at {reached.object_id}"


async def _rebuild(
    config: Config,
    name: str,
    outcome: _Outcome,
    show: Callable[[Difference], None],
    *,
    dry_run: bool,
    from_topic: bool,
) -> None:
    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stop_signals())
        store = await stack.enter_async_context(bootstrap_rebuild.rebuild_store(config, name, dry_run=dry_run))
        totals = dict(await store.totals())
        topics: FromTopics | None = None
        if from_topic:
            topics = _from_topics(config, name, await stack.enter_async_context(bootstrap_kafka.record_log(config)))
            totals["topic"] = await records_in(topics)
        with _progress(totals) as advance:
            async for page in walk(store, stop, topics=topics):
                outcome.tally.add(page)
                for difference in page.differences:
                    show(difference)
                advance(page)
        outcome.ended = not stop.is_set()


def _from_topics(config: Config, name: str, log: RecordLog) -> FromTopics:
    topics = Topics(config.kafka.topic_prefix)
    names = [topics.of(category) for category in PROJECTIONS[name].categories]
    return FromTopics(log, names, partial(decode_for, consumer_group=topics.group(name)))


@contextmanager
def _progress(totals: Mapping[str, int]) -> Iterator[Callable[[RebuildPage], None]]:
    """A bar for each walk, on a terminal only; what it gives wants to be told of every page."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        tasks = {
            walk: bars.add_task(counted, total=totals[walk]) for walk, counted in _COUNTED.items() if walk in totals
        }
        yield lambda page: bars.advance(tasks[page.walk], page.looked_at)


class _Lines:
    """For scripts: a line as soon as a difference is found."""

    def add(self, difference: Difference) -> None:
        _echo_json(as_json(difference))

    def end(self, outcome: _Outcome, *, dry_run: bool) -> None:
        tally = outcome.tally
        found = [
            {"table": table, "what": what, "count": count} for (table, what), count in sorted(tally.differences.items())
        ]
        summary = {
            "kind": "summary",
            "looked_at": dict(tally.looked_at),
            "differences": found,
            "corrected": 0 if dry_run else tally.differences.total(),
            "invalid_records": dict(tally.invalid),
            "ahead_of_consumers": tally.ahead,
            "interrupted": not outcome.ended,
        }
        _echo_json(summary)


class _Listing:
    """For people: a table of differences at the end, and what they come to."""

    def __init__(self) -> None:
        self._shown: list[Difference] = []

    def add(self, difference: Difference) -> None:
        if len(self._shown) < SHOWN_MAX:
            self._shown.append(difference)

    def end(self, outcome: _Outcome, *, dry_run: bool) -> None:
        console, tally = new_console(), outcome.tally
        found = tally.differences.total()
        if self._shown:
            console.print(self._table())
            if found > len(self._shown):
                console.print(f"… and {found - len(self._shown)} more: --json lists all\n")
            console.print(_counts(tally))
        for reason, count in sorted(tally.invalid.items()):
            console.print(f"{count} records are poison ({reason}): passed over")
        if tally.ahead:
            console.print(f"{tally.ahead} events are ahead of the consumers: left to them")
        said = "no differences" if not found else f"{found} differences" + ("" if dry_run else ", corrected")
        console.print(f"{tally.looked_at['objects']} objects: {said}", highlight=False)

    def _table(self) -> Table:
        table = Table("table", "account", "mode", "id", "what", "stands", "should be", box=None, header_style="bold")
        for difference in self._shown:
            key, event_id = difference.key, difference.event_id
            cells = (
                difference.table,
                key.account,
                "live" if key.livemode else "test",
                key.object_id if event_id is None else f"{key.object_id} {event_id}",
                difference.kind if difference.column is None else difference.column,
                shortened(difference.stands),
                shortened(difference.should_be),
            )
            # No markup: ids and values say what they say.
            table.add_row(*(Text(_printable(cell)) for cell in cells))
        return table


def _counts(tally: Tally) -> Table:
    table = Table("table", "what", "differences", box=None, header_style="bold")
    for (name, what), count in sorted(tally.differences.items()):
        table.add_row(name, what, str(count))
    return table


def as_json(difference: Difference) -> dict[str, Any]:
    """A difference for scripts, its values in full."""
    return {
        "kind": difference.kind,
        "table": difference.table,
        "account": difference.key.account,
        "livemode": difference.key.livemode,
        "id": difference.key.object_id,
        "event_id": difference.event_id,
        "column": difference.column,
        "stands": difference.stands,
        "should_be": difference.should_be,
    }


def shortened(value: Any) -> str:
    """A value for people, on one line that is no longer than a table can bear."""
    if value is None:
        return "-"
    text = _printable(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 1] + "…"


def _printable(text: str) -> str:
    """The text, escaped where a terminal would do something else than print it: who pays may have written it."""
    return text if text.isprintable() else repr(text)


def _echo_json(value: Any) -> None:
    """A line of JSON. Numbers may be of any size: what stands in a table may be wrong in any way."""
    click.echo(msgspec.json.encode(value))
