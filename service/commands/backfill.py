"""`backfill`: the present state of Stripe's objects to their topics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, get_args

import click
import orjson
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from service.bootstrap.kafka import record_log
from service.bootstrap.recovery import ONLY_CONNECTED, Recovery, object_sources, recovery
from service.commands.options import figures_table, going_on_later, new_console, run_async, with_config
from service.commands.times import Asked, AskedMoment
from service.config import Config
from service.errors import ConfigurationError, StripePermissionMissing
from service.ports import StripeList
from service.recovery.backfill import Counts
from service.recovery.sources import Source
from service.stripe_account.api_keys import stripe_keys

LISTS: Final[tuple[StripeList, ...]] = get_args(StripeList)


@click.command()
@click.argument("objects", nargs=-1, type=click.Choice(LISTS), metavar="[OBJECTS]...")
@click.option(
    "--since", type=AskedMoment(), metavar="TIME", help="Only what was created since: 2026-11-01, or 30d ago."
)
@click.option("--until", type=AskedMoment(), metavar="TIME", help="Only what was created before.")
@click.option("--ids-from", "topic", metavar="TOPIC", help="The objects that thin events on this topic name instead.")
@click.option("--endpoint", "name", help="Only the account of this endpoint; all that have an api_key otherwise.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line for each list of each account.")
@with_config
def backfill(
    config: Config,
    *,
    objects: tuple[StripeList, ...],
    since: Asked | None,
    until: Asked | None,
    topic: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Publish what Stripe's objects are like now, as snapshots, to the topics of their events.

    OBJECTS are products, prices, customers, subscriptions, payment_intents, charges, refunds, invoices, disputes,
    checkout_sessions, invoice_payments. A snapshot wins over older events in the tables and loses to newer ones, so
    this can be run at any time. Interrupted, it goes on where it was when it is run again with the same options
    within a week.
    """
    if bool(objects) == (topic is not None):
        raise click.UsageError("give OBJECTS or --ids-from, one of them")
    if not stripe_keys(config):
        raise ConfigurationError("endpoints: none has an api_key (or api_key_file): Stripe's objects are read with one")
    results: list[Result] = []
    try:
        with going_on_later():
            run_async(lambda: _backfill(config, _Wanted(objects, topic, since, until), name, results.append))
    finally:  # also of the lists that were done before one that failed
        if as_json:
            for source, what, counts in results:
                said = asdict(counts) if isinstance(counts, Counts) else {"refused": counts}
                head = {"account": source.account, "livemode": source.livemode, "objects": what}
                click.echo(orjson.dumps(head | said))
        elif results:
            _show(results)
    if any(not isinstance(counts, Counts) or counts.unprocessable for _, _, counts in results):
        raise click.exceptions.Exit(1)


Result = tuple[Source, str, Counts | str]
"""An account, a list of it, and what that came to, or why it could not be read."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the options ask for."""

    objects: tuple[StripeList, ...]
    topic: str | None
    since: Asked | None
    until: Asked | None


async def _backfill(config: Config, wanted: _Wanted, name: str | None, tell: Callable[[Result], object]) -> None:
    async with recovery(config) as made, object_sources(config) as sources:
        if not sources:
            raise ConfigurationError(ONLY_CONNECTED)
        chosen = [each for each in sources if name is None or name in {e.name for e in each.own_endpoints}]
        if not chosen:
            raise ConfigurationError(f"there is no endpoint {name!r} with an api_key")
        for source in chosen:
            if wanted.topic is not None:
                tell((source, wanted.topic, await _thin(made, source, wanted.topic)))
            for each in wanted.objects:
                tell((source, each, await _list(made, source, each, wanted)))


async def _list(made: Recovery, source: Source, name: StripeList, wanted: _Wanted) -> Counts | str:
    since, until = wanted.since, wanted.until
    with _watching(f"{source.account} {name}") as watcher:
        try:
            return await made.backfill(source).walk(
                name,
                since.moment if since else None,
                until.moment if until else None,
                watcher,
                asked=f"{since.words if since else ''}..{until.words if until else ''}",
            )
        except StripePermissionMissing as missing:
            return _refused(missing)


async def _thin(made: Recovery, source: Source, topic: str) -> Counts | str:
    with _watching(f"{source.account} {topic}") as watcher:
        async with record_log(made.config) as log:
            if not await log.ranges(topic):
                raise click.BadParameter(f"there is no topic {topic}", param_hint="--ids-from")
            try:
                return await made.backfill(source).walk_thin(log, topic, watcher)
            except StripePermissionMissing as missing:
                return _refused(missing)


def _refused(missing: StripePermissionMissing) -> str:
    return f"the key may not read this: it needs {missing.scope or 'one more permission'}"


class _Watcher:
    """Counts on the terminal; nobody knows how many there will be."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def page(self, counts: Counts, reached: datetime | None) -> None:
        """See `backfill.Watcher.page`."""
        said = "" if reached is None else f"back to {reached:%Y-%m-%d %H:%M}"
        self._progress.update(self._task, advance=counts.read, reached=said)


@contextmanager
def _watching(what: str) -> Iterator[_Watcher]:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(),
               TextColumn("{task.fields[reached]}"), TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield _Watcher(progress, progress.add_task(what, total=None, reached=""))


def _show(results: list[Result]) -> None:
    table = figures_table(
        ("account", "mode", "objects"), ("read", "published", "published before", "unprocessable", "gone")
    )
    for source, what, counts in results:
        head = (source.account, source.mode, what)
        if isinstance(counts, Counts):
            figures = (counts.read, counts.published, counts.duplicates, counts.unprocessable, counts.gone)
            table.add_row(*head, *(f"{figure:,}" for figure in figures))
        else:
            click.echo(f"{source.account} {what}: {counts}", err=True)
    new_console().print(table)
