"""`reconcile`: what Stripe lists and nobody has received."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

import click
import msgspec
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from service.bootstrap.recovery import ONLY_CONNECTED, event_sources, recovery
from service.commands.options import figures_table, going_on_later, new_console, run_async, with_config
from service.commands.times import Duration
from service.config import Config
from service.errors import ConfigurationError, StripePermissionMissing
from service.recovery.reconcile import LISTED_DAYS, PageReport, Report, Watcher
from service.recovery.sources import Source
from service.stripe_account.api_keys import event_keys

NO_KEYS: Final = (
    "endpoints: none has an api_key (or api_key_file), and there is no reconcile.api_key: Stripe's list of events can"
    " only be read with one"
)


@click.command()
@click.option("--since", type=Duration(), metavar="DURATION", help="How far to look back: 24h, 7d. [reconcile] else.")
@click.option("--dry-run", is_flag=True, help="Say what is missing and publish nothing. Exit 1 where something is.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: each missing event, then a summary per account.")
@with_config
def reconcile(config: Config, since: timedelta | None, dry_run: bool, as_json: bool) -> None:
    """Find what Stripe lists and nobody has received, and publish it as if it had just been delivered.

    Every account whose key may read events is walked, from reconcile.grace_seconds ago back to --since. An event is
    missing where the dedupe store does not know it. Interrupted, it goes on where it was when it is run again, and
    running it twice changes nothing.
    """
    if not event_keys(config):
        raise ConfigurationError(NO_KEYS)
    lookback = timedelta(hours=config.reconcile.lookback_hours) if since is None else since
    if lookback > timedelta(days=LISTED_DAYS):
        click.echo(f"Stripe lists events for {LISTED_DAYS} days: it is begun there.", err=True)
    if lookback <= timedelta(seconds=config.reconcile.grace_seconds):
        setting = "reconcile.lookback_hours" if since is None else "--since"
        raise click.UsageError(
            f"{setting}: an event is Stripe's to deliver for {config.reconcile.grace_seconds} s"
            " (reconcile.grace_seconds), nothing younger can be missing"
        )
    outcomes: list[_Outcome] = []
    try:
        with nullcontext() if dry_run else going_on_later():
            run_async(lambda: _reconcile(config, lookback, outcomes, dry_run=dry_run, as_json=as_json))
    except BaseException:
        # What was published before it failed is not missing the next time.
        if not as_json and any(outcome.report.listed for outcome in outcomes):
            _show(outcomes, dry_run=dry_run)
        raise
    if as_json:
        for outcome in outcomes:
            click.echo(orjson.dumps(outcome.summary()))
    else:
        _show(outcomes, dry_run=dry_run)
    if any(outcome.refused for outcome in outcomes) or (
        dry_run and any(outcome.report.missing for outcome in outcomes)
    ):
        raise click.exceptions.Exit(1)


@dataclass(slots=True)
class _Outcome:
    """What became of one account."""

    source: Source
    report: Report
    """Of what is done so far."""
    refused: str | None = None

    def summary(self) -> dict[str, object]:
        """For scripts."""
        head = {"account": self.source.account, "livemode": self.source.livemode}
        if self.refused:
            return head | {"refused": self.refused}
        return head | msgspec.to_builtins(self.report)  # type: ignore[no-any-return]


async def _reconcile(
    config: Config, lookback: timedelta, outcomes: list[_Outcome], *, dry_run: bool, as_json: bool
) -> None:
    async with recovery(config) as made, event_sources(config) as sources:
        if not sources:
            raise ConfigurationError(ONLY_CONNECTED)
        for source in sources:
            reconciler = made.reconciler(source)
            outcome = _Outcome(source, Report(*reconciler.window(lookback)))
            outcomes.append(outcome)
            await _one(outcome, reconciler.preview if dry_run else reconciler.run, lookback, as_json=as_json)


Walk: TypeAlias = Callable[[timedelta, Watcher], Awaitable[Report]]


async def _one(outcome: _Outcome, walk: Walk, lookback: timedelta, *, as_json: bool) -> None:
    with _watching(outcome, as_json=as_json) as watcher:
        try:
            outcome.report = await walk(lookback, watcher)
        except StripePermissionMissing as missing:
            endpoints = ", ".join(endpoint.name for endpoint in outcome.source.own_endpoints)
            outcome.refused = (
                f"the key of {endpoints} may not read events ({missing.scope or 'event_read'}): what Stripe fails to"
                " deliver there is not found. Give the key that permission, or another key as reconcile.api_key_file."
            )


class _Shown:
    """Counts, moves the bar, and writes what is missing down."""

    def __init__(self, outcome: _Outcome, progress: Progress, bar: TaskID, *, as_json: bool) -> None:
        self._outcome = outcome
        self._progress = progress
        self._bar = bar
        self._as_json = as_json

    def page(self, page: PageReport) -> None:
        """See `reconcile.Watcher.page`."""
        self._outcome.report.add(page)
        self._progress.update(self._bar, completed=(self._outcome.report.end - page.reached).total_seconds())
        if self._as_json:
            for each in page.missing:
                click.echo(orjson.dumps({"missing": msgspec.to_builtins(each)}))


@contextmanager
def _watching(outcome: _Outcome, *, as_json: bool) -> Iterator[_Shown]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        seconds = (outcome.report.end - outcome.report.begin).total_seconds()
        bar = progress.add_task(f"{outcome.source.account} ({outcome.source.mode})", total=seconds)
        yield _Shown(outcome, progress, bar, as_json=as_json)


def _show(outcomes: list[_Outcome], *, dry_run: bool) -> None:
    console = new_console()
    table = figures_table(
        ("account", "mode"),
        ("listed", "received", "in flight", "not ours", "in quarantine", "missing", "pending at Stripe"),
    )
    for outcome in outcomes:
        head = (outcome.source.account, outcome.source.mode)
        if not outcome.refused:
            found = outcome.report
            figures = (found.listed, found.known, found.in_flight, found.not_ours, found.unprocessable,
                       found.missing.total(), found.pending)  # fmt: skip
            table.add_row(*head, *(f"{figure:,}" for figure in figures))
    console.print(table)
    by_type = figures_table(("missing",), ("events",))
    for outcome in outcomes:
        for event_type, count in sorted(outcome.report.missing.items()):
            by_type.add_row(event_type, f"{count:,}")
    if by_type.row_count:
        console.print()
        console.print(by_type)
        said = "Nothing was published: leave --dry-run out." if dry_run else "They are published now."
        console.print(f"\n{said}", highlight=False)
    for outcome in outcomes:
        if outcome.refused:
            click.echo(f"{outcome.source.account}: {outcome.refused}", err=True)
