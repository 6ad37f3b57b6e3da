"""`dead-letter` and `quarantine`: look at what is parked, and put it on its way again."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from service.bootstrap import kafka as bootstrap_kafka
from service.bootstrap.redrive import Side, body_step, dead_letter_step, dead_letters, quarantine
from service.commands.options import Command, new_console, run_async, with_config
from service.commands.record_json import record_line
from service.commands.times import Moment
from service.config import Config
from service.errors import ConfigurationError
from service.events import Endpoint
from service.recovery.redrive import WELL, Outcome, Parked, Redriven, Search, Selection, Step, redrive
from service.stopping import stop_signals

_COLUMNS: Final = ("id", "reason", "from", "place", "event type", "age")
ROWS_SHOWN_MAX: Final = 500
"""Of a table; all are counted, and `--json` has no end."""
UNASKED_MAX: Final = 100
"""How many records may be replayed without `--yes`."""
EXIT_WRONG: Final = 1
EXIT_TEMPORARY: Final = 75


def _several(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(values)


_OPTIONS: Final = (
    click.option(
        "--id",
        "ids",
        multiple=True,
        callback=_several,
        metavar="ID",
        help="An event's id, an object's (the record's key), or a place as `list` shows it. May be repeated, as may"
        " the next three.",
    ),
    click.option(
        "--type", "event_types", multiple=True, metavar="TYPE", help="An event type; `charge.*` for all of a kind."
    ),
    click.option(
        "--endpoint", "endpoints", multiple=True, callback=_several, metavar="NAME", help="The endpoint's name."
    ),
    click.option("--reason", "reasons", multiple=True, callback=_several, metavar="REASON", help="Why it is there."),
    click.option("--since", type=Moment(), help="Not parked before: 2026-11-20T10:00:00Z, or 24h, 7d ago."),
    click.option("--until", type=Moment(), help="Parked before."),
    click.option("--limit", type=click.IntRange(min=1), help="At most so many, the oldest of each partition first."),
)
_GROUP: Final = click.option(
    "--group", "consumer_groups", multiple=True, callback=_several, metavar="GROUP", help="The consumer group's name."
)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="For scripts: a line each, and one that counts.")
_DRY_RUN: Final = click.option("--dry-run", is_flag=True, help="Say what would become of them, and change nothing.")
_YES: Final = click.option(
    "--yes",
    is_flag=True,
    help=f"Also more than {UNASKED_MAX}. Without it a terminal is asked, and a script ends with 2.",
)


def _selecting(*more: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Add the options of a selection, and of more."""

    def add(command: Command) -> Command:
        for option in reversed((*_OPTIONS, *more)):
            command = option(command)
        return command

    return add


Stepping: TypeAlias = Callable[[], AbstractAsyncContextManager[Step]]
"""What is done with each record, with all that it needs, inside the block."""


@click.group("dead-letter")
def dead_letter_group() -> None:
    """Look at the records that a consumer could not apply, and replay them to it."""


@dead_letter_group.command("list")
@_selecting(_GROUP, _JSON)
@with_config
def dead_letter_list(config: Config, as_json: bool, **chosen: Any) -> None:
    """List dead letters, and count them by reason. One that was dead-lettered several times is one.

    Into a pipe, a line each with tabs between: id, reason, consumer group, place, event type, age.
    """
    run_async(lambda: _list(config, dead_letters(config), Selection(**chosen), as_json))


@dead_letter_group.command("show")
@click.argument("name", metavar="ID")
@with_config
def dead_letter_show(config: Config, name: str) -> None:
    """Show a dead letter, payload included: by its event's id, its key, or its place.

    A line of JSON for each that goes by this ID; exit code 1 where there is none.
    """
    run_async(lambda: _show(config, dead_letters(config), name))


@dead_letter_group.command("replay")
@_selecting(_GROUP, _DRY_RUN, _YES, _JSON)
@with_config
def dead_letter_replay(config: Config, dry_run: bool, yes: bool, as_json: bool, **chosen: Any) -> None:
    """Put dead letters back onto their topics, each for the one consumer group that could not apply it.

    Start the consumer that can apply them first, or they come back. Harmless when done twice: what a group has applied
    it does not apply again, and other groups pass over what is not for them. Exit code 1 where one was not replayed.
    """
    step = partial(dead_letter_step, config, dry_run=dry_run)
    _replay(config, dead_letters(config), Selection(**chosen), step, unasked=yes or dry_run, as_json=as_json)


@click.group("quarantine")
def quarantine_group() -> None:
    """Look at the bodies that could not be normalized, and take them to their topics after all."""


@quarantine_group.command("list")
@_selecting(_JSON)
@with_config
def quarantine_list(config: Config, as_json: bool, **chosen: Any) -> None:
    """List quarantined bodies, and count them by reason.

    Into a pipe, a line each with tabs between: id, reason, endpoint, place, event type, age.
    """
    run_async(lambda: _list(config, quarantine(config), Selection(**chosen), as_json))


@quarantine_group.command("show")
@click.argument("name", metavar="ID")
@with_config
def quarantine_show(config: Config, name: str) -> None:
    """Show a quarantined body: by its event's id or its place. Opened, where kafka.redact_key is configured.

    A line of JSON for each that goes by this ID; exit code 1 where there is none.
    """
    run_async(lambda: _show(config, quarantine(config), name))


@quarantine_group.command("replay")
@_selecting(_DRY_RUN, _YES, _JSON)
@click.option(
    "--endpoint-as",
    metavar="NAME",
    help="Take as this endpoint's what has none of its own any more, or was refused there for its mode or account.",
)
@with_config
def quarantine_replay(
    config: Config, dry_run: bool, yes: bool, as_json: bool, endpoint_as: str | None, **chosen: Any
) -> None:
    """Take quarantined bodies through the whole path of this version, as if they had just come.

    What is still unfit stays where it is. Harmless when done twice: the second time they are duplicates. Exit code 1
    where one was not replayed.
    """
    endpoints = {endpoint.name: endpoint for endpoint in config.webhook_endpoints()}
    step = partial(body_step, config, dry_run=dry_run, endpoint_as=_named(endpoints, endpoint_as))
    _replay(config, quarantine(config), Selection(**chosen), step, unasked=yes or dry_run, as_json=as_json)


def _named(endpoints: Mapping[str, Endpoint], name: str | None) -> Endpoint | None:
    if name is not None and name not in endpoints:
        raise ConfigurationError(f"there is no endpoint {name!r}; there are {', '.join(sorted(endpoints))}")
    return None if name is None else endpoints[name]


async def _list(config: Config, side: Side, selection: Selection, as_json: bool) -> None:
    counts: Counter[str] = Counter()
    console = new_console()
    table = Table(*_COLUMNS, box=None, header_style="bold")
    now = datetime.now(UTC)
    async with side.searching(config, selection) as found:
        async for parked in found.found():
            counts[parked.reason] += 1
            if as_json:
                _say_json(_as_json(parked))
            elif not console.is_terminal:
                click.echo("\t".join(_row(parked, now)))
            elif table.row_count < ROWS_SHOWN_MAX:
                # As they are: there are event types with brackets in them, which rich would take for markup.
                table.add_row(*map(Text, _row(parked, now)))
    if as_json:
        _say_json({"total": counts.total(), "reasons": dict(counts)})
        return
    if table.row_count:
        console.print(table)
    if 0 < table.row_count < counts.total():
        click.echo(f"and {counts.total() - table.row_count} more: say which, or use --json", err=True)
    told = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    # Beside what a pipe reads.
    click.echo(f"{counts.total()} in all: {told}" if counts else "There is nothing.", err=not console.is_terminal)


def _row(parked: Parked, now: datetime) -> tuple[str, ...]:
    source = parked.consumer_group or parked.endpoint or "-"
    # The group stands in a column of its own.
    place = parked.place.removeprefix(f"{parked.consumer_group}/")
    return (parked.id or "-", parked.reason, source, place, parked.event_type or "-", _age(now - parked.parked_at))


def _age(duration: timedelta) -> str:
    seconds = max(0, int(duration.total_seconds()))
    for unit, its in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * its:
            return f"{seconds // its}{unit}"
    return f"{seconds}s"


def _as_json(parked: Parked) -> Mapping[str, Any]:
    """By headers alone: no payload, and nothing of one."""
    return {
        "id": parked.id,
        "place": parked.place,
        "reason": parked.reason,
        "detail": parked.detail,
        "event_type": parked.event_type,
        "endpoint": parked.endpoint,
        "consumer_group": parked.consumer_group,
        "parked_at": parked.parked_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "topic": parked.record.partition.topic,
        "partition": parked.record.partition.number,
        "offset": parked.record.offset,
    }


async def _show(config: Config, side: Side, name: str) -> None:
    sealing = config.sealing()
    count = 0
    async with side.searching(config, Selection(ids=frozenset((name,)))) as found:
        async for parked in found.found():
            count += 1
            click.echo(record_line(parked.record, sealing))
    if not count:
        click.echo(f"there is nothing on {side.topic} by the id {name}", err=True)
        raise click.exceptions.Exit(EXIT_WRONG)


def _say_json(document: Mapping[str, Any]) -> None:
    click.echo(json.dumps(document))


class _Report(Protocol):
    """Tells of a replay, record by record, and then of all."""

    def tell(self, redriven: Redriven) -> None: ...

    def end(self, counts: Counter[Outcome]) -> None: ...


class _Lines:
    """For scripts: every record."""

    def tell(self, redriven: Redriven) -> None:
        at = redriven.position
        outcome = {
            "outcome": redriven.outcome.value,
            "outcome_detail": redriven.detail,
            "position": f"{at.topic}/{at.partition}/{at.offset}" if at else None,
        }
        _say_json({**_as_json(redriven.parked), **outcome})

    def end(self, counts: Counter[Outcome]) -> None:
        _say_json({"total": counts.total(), "outcomes": dict(counts)})


class _Told:
    """For people: what did not go well, and on a terminal how many are done."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.completed} records"), TimeElapsedColumn())
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def tell(self, redriven: Redriven) -> None:
        self._progress.advance(self._task)
        if redriven.outcome not in WELL:
            parked = redriven.parked
            self._progress.console.print(
                f"{parked.id or '-'} {redriven.outcome.value}: {redriven.detail} ({parked.place})",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip

    def end(self, counts: Counter[Outcome]) -> None:
        self._progress.stop()
        if counts:
            click.echo(", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts.items()))


def _replay(
    config: Config, side: Side, selection: Selection, stepping: Stepping, *, unasked: bool, as_json: bool
) -> None:
    """Replay a selection; ends with the exit code that its outcomes come to."""
    found, many = run_async(lambda: _looked(config, side, selection))
    if many and not unasked:
        _ask()
    counts, stopped = run_async(lambda: _replayed(config, found, stepping, _Lines() if as_json else _Told()))
    if counts[Outcome.UNAVAILABLE]:
        click.echo("stripe-ingest: kafka or the dedupe store is away; start it again to go on", err=True)
        raise click.exceptions.Exit(EXIT_TEMPORARY)
    if stopped:
        click.echo("stripe-ingest: interrupted; start it again to go on: nothing counts twice", err=True)
        raise click.Abort
    if counts.keys() - WELL:
        raise click.exceptions.Exit(EXIT_WRONG)
    if not counts and not as_json:
        click.echo("There is nothing.")


async def _looked(config: Config, side: Side, selection: Selection) -> tuple[Search, bool]:
    """Where the records are that are meant, and whether they are too many to replay without asking."""
    async with side.searching(config, selection) as found:
        count = 0
        async for _ in found.found():
            count += 1
            if count > UNASKED_MAX:
                return found, True
        return found, False


def _ask() -> None:
    """Raises where the answer is no; a script is not asked, since it would wait for ever."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"these are more than {UNASKED_MAX} records: say --yes where all of them are meant")
    click.confirm(f"These are more than {UNASKED_MAX} records. Replay all of them?", abort=True, err=True)


async def _replayed(
    config: Config, found: Search, stepping: Stepping, report: _Report
) -> tuple[Counter[Outcome], bool]:
    """How many came to what, and whether it ended before its end."""
    counts: Counter[Outcome] = Counter()

    def tell(redriven: Redriven) -> None:
        counts[redriven.outcome] += 1
        report.tell(redriven)

    try:
        async with stop_signals() as stop, bootstrap_kafka.record_log(config) as log, stepping() as step:
            await redrive(replace(found, log=log).found(), step, tell, stop)
            return counts, stop.is_set()
    finally:
        report.end(counts)
