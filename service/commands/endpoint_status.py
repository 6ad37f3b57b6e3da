"""`endpoints status`: what is wrong with the webhook endpoints, and with what answers at their URLs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import click
import orjson
from rich.table import Table
from rich.text import Text

from service.bootstrap.watch import looking
from service.commands.options import new_console, run_async, with_config
from service.config import Config
from service.errors import StripeApiError, StripeKeyRefused, StripeUnavailable
from service.stripe_account.endpoint_look import Failure, Looked
from service.stripe_account.endpoint_problems import AccountStatus, EndpointStatus, Note, Problem

EXIT_WRONG: Final = 1
EXIT_MISUSED: Final = 2
EXIT_TEMPORARY: Final = 75


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="For scripts: an object of accounts, failures and not_looked_at.")
@with_config
def endpoint_status(config: Config, as_json: bool) -> None:
    """Compare the endpoints with Stripe's, and look who answers at their URLs. Exit 1 where something is wrong.

    Only endpoints with an API key are looked at, and nothing is changed. A receiver does the same every
    stripe.watch_interval_seconds, and tells it in its metrics.

    An event counts as undelivered where Stripe could not deliver it within reconcile.grace_seconds, in the last 24
    hours, to every endpoint of the account that gets it: Stripe does not say which of them it was.
    """
    looked = run_async(lambda: _look(config))
    if as_json:
        click.echo(orjson.dumps(_as_json(looked)))
    else:
        show(looked)
    for failure in looked.failures:
        click.echo(f"{', '.join(failure.names)}: {failure.error}", err=True)
    if looked.failures:
        raise click.exceptions.Exit(exit_code([failure.error for failure in looked.failures]))
    if looked.status.has_problems:
        raise click.exceptions.Exit(EXIT_WRONG)


def exit_code(failures: Iterable[StripeApiError]) -> int:
    """What a command ends with that has met these, whichever came first."""
    kinds = [type(failure) for failure in failures]
    if any(issubclass(kind, StripeKeyRefused) for kind in kinds):
        return EXIT_MISUSED
    return EXIT_TEMPORARY if any(issubclass(kind, StripeUnavailable) for kind in kinds) else EXIT_WRONG


async def _look(config: Config) -> Looked:
    async with looking(config) as made:
        return await made.look()


def show(looked: Looked) -> None:
    """What was seen, for people."""
    table = Table(box=None, header_style="bold")
    # Ids are to be copied whole; names are the reader's own.
    table.add_column("endpoint", overflow="fold")
    for heading in ("mode", "at Stripe", "", "API version"):
        table.add_column(heading, no_wrap=True)
    for endpoint in looked.status.endpoints:
        table.add_row(*map(Text, _columns(endpoint)))
    for name in looked.status.not_looked_at:
        table.add_row(*map(Text, (name, "-", "no api_key: not looked at", "", "")))
    if table.row_count:
        new_console().print(table)
    for line in _lines(looked):
        click.echo(line)


def _columns(endpoint: EndpointStatus) -> Sequence[str]:
    if endpoint.endpoint_id is None:
        return endpoint.name, endpoint.mode, "-", "", ""
    return (
        endpoint.name,
        endpoint.mode,
        endpoint.endpoint_id,
        "enabled" if endpoint.enabled else "disabled",
        endpoint.api_version or "the account's",
    )


def _lines(looked: Looked) -> Iterator[str]:
    """A line each, not in a table: ids and URLs are to be copied whole."""
    endpoints = looked.status.endpoints
    problems = [f"{each.name}: {problem.kind}: {problem.said}" for each in endpoints for problem in each.problems]
    notes = [f"{each.name}: {note.kind}: {note.said}" for each in endpoints for note in each.notes]
    for account in looked.status.accounts:
        place = f"{account.account} ({account.mode})"
        notes += [f"{place}: {note.kind}: {note.said}" for note in account.notes]
        notes.append(f"{place}: {account.used} webhook endpoint{'' if account.used == 1 else 's'}, {account.left} left")
    for title, lines in (("Wrong:", problems), ("To know:", notes)):
        if lines:
            yield f"\n{title}"
            yield from (f"  {line}" for line in lines)
    for failure in looked.failures:
        yield f"\n{failure.account} ({failure.mode}): not looked at as a whole: {', '.join(failure.names)}"
    if not problems and not looked.failures:
        yield "\nThe endpoints are as they should be."


def _as_json(looked: Looked) -> Mapping[str, object]:
    return {
        "accounts": [_account(account) for account in looked.status.accounts],
        "failures": [_failure(failure) for failure in looked.failures],
        "not_looked_at": looked.status.not_looked_at,
    }


def _account(account: AccountStatus) -> Mapping[str, object]:
    return {
        "account": account.account,
        "mode": account.mode,
        "used": account.used,
        "left": account.left,
        "endpoints": [_endpoint(endpoint) for endpoint in account.endpoints],
        "notes": _said(account.notes),
    }


def _endpoint(endpoint: EndpointStatus) -> Mapping[str, object]:
    undelivered = endpoint.undelivered
    return {
        "name": endpoint.name,
        "mode": endpoint.mode,
        "webhook_endpoint_id": endpoint.endpoint_id,
        "url": endpoint.url,
        "enabled": endpoint.enabled,
        "api_version": endpoint.api_version,
        "undelivered": None
        if undelivered is None
        else {"count": undelivered.count, "oldest": undelivered.oldest, "more": undelivered.more},
        "problems": _said(endpoint.problems),
        "notes": _said(endpoint.notes),
    }


def _said(found: Sequence[Problem | Note]) -> Sequence[Mapping[str, str]]:
    return [{"kind": each.kind.value, "said": each.said} for each in found]


def _failure(failure: Failure) -> Mapping[str, object]:
    return {
        "account": failure.account,
        "mode": failure.mode,
        "endpoints": failure.names,
        "error": failure.error.tag,
        "detail": str(failure.error),
    }
