"""`keys`: what the API keys may do at Stripe, against what the configuration needs of them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.clock import SystemClock
from service.commands.options import new_console, run_async, with_config
from service.config import Config
from service.signature import fingerprint
from service.stripe_account.calling import Retries, StripeCaller
from service.stripe_account.keys_check import CheckedKey, CheckedNeed, Report, Verdict, check
from service.stripe_account.needs import KeyNeeds, needs_of
from service.stripe_account.observer import StripeCounts
from service.stripe_account.permission_probe import PermissionProbe
from service.stripe_account.scopes import RESOURCES

EXIT_DONE: Final = 0
EXIT_WRONG: Final = 1
EXIT_KEY_REFUSED: Final = 2
EXIT_TEMPORARY: Final = 75

RETRIES: Final = Retries(attempts=3, retry_after_seconds_max=10.0)
"""Somebody waits for the answer."""

HOW: Final = "Permissions are given in Stripe's dashboard: Developers → API keys → the key → Edit. Write reads, too."

_STYLES: Final = {Verdict.HAS: "green", Verdict.LACKS: "yellow", Verdict.UNKNOWN: "yellow"}
_WRONG_STYLE: Final = "bold red"
_LABEL_WIDTH: Final = 26


@click.group("keys")
def keys_group() -> None:
    """Check the API keys: endpoints' api_key, and reconcile.api_key."""


@keys_group.command("check")
@click.option("--all", "surplus", is_flag=True, help="Also try what nothing needs, and say what a key has beyond need.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@with_config
def keys_check(config: Config, surplus: bool, as_json: bool) -> None:
    """Check what the API keys may do at Stripe, against what the configuration needs of them.

    Nothing is made or changed: to read is tried on lists, to write on an id that nothing can have. Exit 1 where a key
    lacks what the permissions of its endpoint ask for, or where nobody may read events to find gaps (unless
    reconcile.interval_seconds is 0). For the rest, the table says what is off without it. Exit 2 where Stripe refuses
    a key, 75 where it cannot be reached.
    """
    needs = needs_of(config)
    if not needs.keys and not needs.missing:
        click.echo("There is no API key, and nothing needs one.")
        return

    @asynccontextmanager
    async def probing(key: KeyNeeds) -> AsyncIterator[PermissionProbe]:
        caller = StripeCaller(
            key.key,
            api_base=config.stripe.api_base,
            requests_per_second=config.stripe.requests_per_second,
            clock=SystemClock(),
            observer=StripeCounts(),
            retries=RETRIES,
        )
        try:
            yield PermissionProbe(caller)
        finally:
            await caller.close()

    report = run_async(lambda: check(needs, probing, surplus=surplus))
    if as_json:
        click.echo(json.dumps(_as_json(report)))
    else:
        _show(report)
    if code := _exit_code(report):
        raise click.exceptions.Exit(code)


def _exit_code(report: Report) -> int:
    if report.refused:
        return EXIT_KEY_REFUSED
    if report.incomplete:
        return EXIT_TEMPORARY
    return EXIT_WRONG if report.lacking else EXIT_DONE


def _show(report: Report) -> None:
    console = new_console()
    for checked in report.keys:
        if checked.found:
            _show_key(checked, console)
    for note in report.notes():
        click.echo(f"note: {note}")
    for wrong in report.wrong():
        click.echo(wrong, err=True)
    if any(each.verdict is Verdict.LACKS for checked in report.keys for each in checked.found):
        click.echo(HOW)


def _show_key(checked: CheckedKey, console: Console) -> None:
    console.print(Text(_described(checked.key), style="bold"))
    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("", no_wrap=True)
    table.add_column("permission", max_width=_LABEL_WIDTH)
    table.add_column("scope", no_wrap=True)
    table.add_column("what for, or what is off without it")
    for each in checked.found:
        style = _WRONG_STYLE if each.wrong else _STYLES[each.verdict]
        table.add_row(Text(each.verdict, style=style), _label(each.need.scope), each.need.scope, Text(_told(each)))
    console.print(table)
    console.print()


def _described(key: KeyNeeds) -> str:
    kind = "restricted" if key.restricted else "secret"
    return f"{key.setting}: the {kind} {key.mode} key {fingerprint(key.key)}"


def _label(scope: str) -> str:
    resource, _, access = scope.rpartition("_")
    return f"{RESOURCES[resource].label} {access.capitalize()}"


def _told(each: CheckedNeed) -> str:
    if each.verdict is Verdict.HAS:
        return "; ".join(use.purpose for use in each.need.uses)
    said = "; ".join(use.without for use in each.need.uses)
    return said if each.verdict is Verdict.LACKS else f"{each.why}; without it, {said}"


def _as_json(report: Report) -> dict[str, object]:
    return {
        "keys": [
            {
                "setting": checked.key.setting,
                "endpoints": checked.key.endpoints,
                "mode": checked.key.mode,
                "restricted": checked.key.restricted,
                "fingerprint": fingerprint(checked.key.key),
                "failed": None if checked.failed is None else {"tag": checked.failed.tag, "said": str(checked.failed)},
                "permissions": [
                    {
                        "scope": each.need.scope,
                        "label": _label(each.need.scope),
                        "verdict": each.verdict,
                        "required": each.need.required,
                        "for": [use.purpose for use in each.need.uses],
                        "without": [use.without for use in each.need.uses],
                        "why": each.why,
                    }
                    for each in checked.found
                ],
                "surplus": checked.surplus,
            }
            for checked in report.keys
        ],
        "wrong": report.wrong(),
        "notes": report.notes(),
    }
