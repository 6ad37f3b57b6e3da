"""`endpoints`: the webhook endpoints at Stripe, made and kept as the configuration has them."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import click
import orjson
from rich.table import Table
from rich.text import Text

from service.bootstrap import endpoints as bootstrap_endpoints
from service.bootstrap.endpoints import NO_STORE, Account, NoStore, chosen, store_of
from service.clock import SystemClock
from service.commands.endpoint_roll import roll
from service.commands.endpoint_status import EXIT_WRONG, endpoint_status, exit_code
from service.commands.options import going_on_later, new_console, run_async, with_given_config
from service.config import Config
from service.credentials.book import Credentials
from service.errors import ConfigurationError, StripeApiError
from service.normalize.event_types import NEWEST_API_VERSION, THIN_TYPES
from service.ports import CredentialStore, WebhookEndpoint, WebhookEndpoints
from service.signature import fingerprint
from service.stripe_account.endpoint_apply import Done, Registration, carry_out
from service.stripe_account.endpoint_matching import known_ids, matched
from service.stripe_account.endpoint_plan import (
    ENDPOINTS_MAX,
    Create,
    Delete,
    Finding,
    FindingKind,
    Keep,
    Plan,
    Replay,
    Step,
    Update,
    plan,
)
from service.stripe_account.endpoint_urls import shown
from service.stripe_account.endpoint_wanted import deployment_of, url_of, wanted_endpoints

EVENTS_SHOWN_MAX: Final = 4

_THIN: Final = frozenset(THIN_TYPES)

_names: Final = click.argument("names", nargs=-1, metavar="[NAME]...")
_as_json: Final = click.option(
    "--json", "as_json", is_flag=True, help="For scripts: an object of steps, findings, accounts and not_looked_at."
)
_unlisted: Final = click.option(
    "--unlisted", is_flag=True, help="Also event types and API versions that this version does not know."
)


@click.group("endpoints")
def endpoints_group() -> None:
    """Register the configuration's endpoints at Stripe, and look after them there.

    Each is looked at with its own api_key, which needs the permission Webhook Endpoints: Write (for `plan` and `status`
    Read). New signing secrets go to secrets.store, from where a running receiver takes them.
    """


@endpoints_group.command("plan")
@_names
@click.option("--prune", is_flag=True, help="As `apply --prune` would.")
@_unlisted
@_as_json
@with_given_config
def endpoints_plan(given: Config, names: tuple[str, ...], prune: bool, unlisted: bool, as_json: bool) -> None:
    """Show what `apply` would do, and do nothing. Exit 1 where there is something to do, or something is wrong."""
    task = _task(given, store_of(given).read(), names, unlisted=unlisted, prune=prune)
    outcomes = run_async(lambda: _planned(task))
    _show(task, outcomes, as_json=as_json, applied=False)
    _end(outcomes, wrong=any(outcome.changes for outcome in outcomes))


@endpoints_group.command("apply")
@_names
@click.option("--prune", is_flag=True, help="Delete those made here that are configured no more, or were replaced.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@_unlisted
@_as_json
@with_given_config
def endpoints_apply(
    given: Config, *, names: tuple[str, ...], prune: bool, yes: bool, unlisted: bool, as_json: bool
) -> None:
    """Register what is not at Stripe yet, and change what differs; the same again changes nothing.

    URL, event types and whether it is enabled are kept as configured. A new endpoint's signing secret is on the disk
    before anything else happens. Interrupted at any moment, run it again: it goes on where it was, and makes nothing
    twice. Nothing is deleted without --prune, and never what somebody else has made, or another deployment: only what
    has our metadata and a secret in secrets.store, or a URL below receiver.public_url.
    """
    if prune and names:
        raise click.UsageError("--prune looks at all endpoints: leave the names out")
    store = store_of(given)
    with store.held():
        task = _task(given, store.read(), names, unlisted=unlisted, prune=prune)
        outcomes = run_async(lambda: _planned(task))
        steps = [step for outcome in outcomes for step in outcome.changes]
        if isinstance(store, NoStore) and any(isinstance(step, Create) for step in steps):
            raise ConfigurationError(NO_STORE)
        _ask_to_delete([step for step in steps if isinstance(step, Delete)], unasked=yes)
        try:
            with going_on_later():
                run_async(lambda: _carried_out(task, store, outcomes))
        finally:
            # Also where it fails in between: what was done is done.
            _show(replace(task, credentials=store.read()), outcomes, as_json=as_json, applied=True)
    _end(outcomes)


@endpoints_group.command("disable")
@click.argument("names", nargs=-1, metavar="NAME...", required=True)
@with_given_config
def endpoints_disable(given: Config, names: tuple[str, ...]) -> None:
    """Switch endpoints off: Stripe sends them nothing, and nothing of that later. `apply` switches them on again."""
    _switch(given, names, enabled=False)


@endpoints_group.command("enable")
@click.argument("names", nargs=-1, metavar="NAME...", required=True)
@with_given_config
def endpoints_enable(given: Config, names: tuple[str, ...]) -> None:
    """Switch endpoints on again, that somebody has switched off, or Stripe after days of failed deliveries."""
    _switch(given, names, enabled=True)


endpoints_group.add_command(endpoint_status)
endpoints_group.add_command(roll)


# --- plan and apply --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
    given: Config
    credentials: Credentials
    accounts: Sequence[Account]
    without_key: Sequence[str]
    thin: Sequence[str]
    """Those that take thin events only, which webhook endpoints do not have."""
    unlisted: bool
    prune: bool

    def plan_for(self, account: Account, listed: Sequence[WebhookEndpoint]) -> Plan:
        wanted = wanted_endpoints(self.given, dict.fromkeys(account.names, account.mode), unlisted=self.unlisted)
        now = SystemClock().now()
        deployment = deployment_of(self.given)
        return plan(wanted, listed, self.credentials, deployment=deployment, now=now, prune=self.prune)


def _task(given: Config, credentials: Credentials, names: Sequence[str], *, unlisted: bool, prune: bool) -> _Task:
    found = chosen(given, credentials, names)
    thin = [] if names else [each.name for each in given.endpoints if each.events and _THIN.issuperset(each.events)]
    accounts = [
        replace(account, names=others)
        for account in found.accounts
        if (others := tuple(name for name in account.names if name not in thin))
    ]
    modes = {name: account.mode for account in accounts for name in account.names}
    wanted_endpoints(given, modes, unlisted=unlisted)  # what is wrong anywhere is said before anything is asked
    without_key = [name for name in found.without_key if name not in thin]
    return _Task(given, credentials, accounts, without_key, thin, unlisted=unlisted, prune=prune)


@dataclass(slots=True)
class _Outcome:
    """What became of one account: a plan, and what was done of it; or why there is none."""

    account: Account
    plan: Plan | None = None
    done: list[Done] = field(default_factory=list)
    failed: StripeApiError | None = None

    @property
    def changes(self) -> Sequence[Step]:
        return () if self.plan is None else self.plan.changes

    @property
    def findings(self) -> Sequence[Finding]:
        """What is wrong. Where Stripe has made all that was wanted, there was room for it."""
        had_room = bool(self.done) and not any(done.refused for done in self.done) and self.failed is None
        found = () if self.plan is None else self.plan.findings
        return tuple(each for each in found if not (had_room and each.kind is FindingKind.LIMIT))


async def _planned(task: _Task) -> list[_Outcome]:
    async with bootstrap_endpoints.clients(task.given, task.accounts) as opened:
        outcomes = [await _plan_of(task, account, endpoints) for account, endpoints in opened]
    _tell_once(outcomes)
    return outcomes


def _tell_once(outcomes: Sequence[_Outcome]) -> None:
    """Of an account that several keys see: what is left over there is told of, or deleted, with the first one."""
    told: set[str | None] = set()
    for outcome in outcomes:
        if outcome.plan is not None:
            made = outcome.plan
            steps = tuple(each for each in made.steps if not (isinstance(each, Delete) and each.endpoint_id in told))
            findings = tuple(
                each for each in made.findings if each.kind is not FindingKind.LEFT_OVER or each.endpoint_id not in told
            )
            outcome.plan = replace(made, steps=steps, findings=findings)
            told |= {step.endpoint_id for step in steps if isinstance(step, Delete)}
            told |= {each.endpoint_id for each in findings if each.kind is FindingKind.LEFT_OVER}


async def _plan_of(task: _Task, account: Account, endpoints: WebhookEndpoints) -> _Outcome:
    try:
        return _Outcome(account, task.plan_for(account, await endpoints.all()))
    except StripeApiError as error:
        return _Outcome(account, failed=error)


async def _carried_out(task: _Task, store: CredentialStore, outcomes: Sequence[_Outcome]) -> None:
    by_account = {outcome.account: outcome for outcome in outcomes}
    async with bootstrap_endpoints.clients(task.given, task.accounts) as opened:
        for account, endpoints in opened:
            outcome = by_account[account]
            if outcome.plan is None:
                continue
            registration = Registration(endpoints, store, SystemClock())
            try:
                async for done in carry_out(outcome.plan.steps, registration):
                    outcome.done.append(done)
            except StripeApiError as error:
                outcome.failed = error


def _ask_to_delete(steps: Sequence[Delete], *, unasked: bool) -> None:
    if not steps or unasked:
        return
    what = ", ".join(f"{step.endpoint_id} ({shown(step.endpoint.url)})" for step in steps)
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would delete {what}: say --yes where that is meant")
    click.confirm(f"Delete {what} for good?", abort=True, err=True)


def _end(outcomes: Sequence[_Outcome], *, wrong: bool = False) -> None:
    """Exit as it has come out."""
    failures = [outcome.failed for outcome in outcomes if outcome.failed is not None]
    for outcome in outcomes:
        if outcome.failed is not None:
            click.echo(f"{', '.join(outcome.account.names)}: {outcome.failed}", err=True)
    if failures:
        raise click.exceptions.Exit(exit_code(failures))
    refused = any(done.refused for outcome in outcomes for done in outcome.done)
    if refused or wrong or any(outcome.findings for outcome in outcomes):
        raise click.exceptions.Exit(EXIT_WRONG)


# --- what is shown ---------------------------------------------------------------------------------------------------


def _show(task: _Task, outcomes: Sequence[_Outcome], *, as_json: bool, applied: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(_json(task, outcomes, applied=applied)))
        return
    table = _table(outcomes, applied=applied)
    if table.row_count:
        new_console().print(table)
        click.echo()
    for line in _details(task, outcomes, applied=applied):
        click.echo(line)
    for name in task.without_key:
        click.echo(f"{name}: no api_key: not looked at")
    for name in task.thin:
        click.echo(f"{name}: thin events only: an event destination's, which is made in the dashboard; not looked at")
    for outcome in outcomes:
        if outcome.plan is not None:
            click.echo(_room(outcome, outcome.plan, applied=applied))
            for finding in outcome.findings:
                click.echo(f"{finding.name}: {finding.said}" if finding.name else finding.said)
    if not any(outcome.changes or outcome.findings or outcome.failed for outcome in outcomes):
        click.echo("The webhook endpoints are as they should be.")


def _table(outcomes: Sequence[_Outcome], *, applied: bool) -> Table:
    table = Table(box=None, header_style="bold")
    # Ids are to be copied whole; names are the reader's own.
    table.add_column("endpoint", overflow="fold")
    for heading in ("mode", "at Stripe", ""):
        table.add_column(heading, no_wrap=True)
    for outcome in outcomes:
        for step, endpoint_id, refused in _taken(outcome, applied=applied):
            kind = step.kind.value if refused is None else f"{step.kind.value}: refused"
            # No markup: brackets are brackets.
            table.add_row(*map(Text, (step.name, outcome.account.mode, endpoint_id or "-", kind)))
    return table


def _details(task: _Task, outcomes: Sequence[_Outcome], *, applied: bool) -> Iterator[str]:
    """What is done, a line each, not in a table: URLs are to be copied whole."""
    for outcome in outcomes:
        for step, endpoint_id, refused in _taken(outcome, applied=applied):
            if refused is not None:
                yield f"{step.name}: refused: {refused}"
            elif applied and endpoint_id is None:
                yield f"{step.name}: Stripe had refused it: `endpoints roll {step.name} --replace` begins anew"
            else:
                yield from (f"{step.name}: {said}" for said in (_said_done(step, task) if applied else _said(step)))


def _taken(outcome: _Outcome, *, applied: bool) -> Iterator[tuple[Step, str | None, StripeApiError | None]]:
    if applied:
        for done in outcome.done:
            yield done.step, done.endpoint_id, done.refused
    elif outcome.plan is not None:
        for step in outcome.plan.steps:
            yield step, step.endpoint_id, None


def _room(outcome: _Outcome, made: Plan, *, applied: bool) -> str:
    names, mode = ", ".join(outcome.account.names), outcome.account.mode
    left = _left(outcome, made, applied=applied)
    then = "" if applied or not made.changes else " then"
    return f"{names}: {ENDPOINTS_MAX - left} of {ENDPOINTS_MAX} webhook endpoints in {mode} mode{then}, {left} left"


def _left(outcome: _Outcome, made: Plan, *, applied: bool) -> int:
    if not applied:
        return max(0, made.left)
    taken = tuple(done.step for done in outcome.done if done.refused is None)
    return max(0, Plan(taken, (), made.used).left)


def _said(step: Step) -> Iterator[str]:
    match step:
        case Create():
            yield shown(step.wanted.url)
            yield f"events: {_events(step.wanted.events)}, in {step.wanted.api_version or NEWEST_API_VERSION}"
        case Replay():
            begun = step.creation.begun_at.strftime("%Y-%m-%d %H:%M:%S UTC")
            yield f"begun {begun} and not ended: repeat it, for its signing secret"
        case Update():
            yield from _changes(step)
        case Keep():
            yield shown(step.endpoint.url)
        case Delete():
            yield shown(step.endpoint.url)


def _said_done(step: Step, task: _Task) -> Iterator[str]:
    if not isinstance(step, Create | Replay):
        yield from _said(step)
        return
    kept = task.credentials.of(step.name).signing
    secret = f"; its signing secret {fingerprint(kept[0].value)} is kept" if kept else ""
    yield f"{shown(step.wanted.url)}{secret}"


def _changes(step: Update) -> Iterator[str]:
    before, changes = step.before, step.changes
    if changes.url is not None:
        yield f"url: {shown(before.url)} -> {shown(changes.url)}"
    if changes.enabled_events is not None:
        added = [f"+{each}" for each in changes.enabled_events if each not in before.enabled_events]
        taken = [f"-{each}" for each in before.enabled_events if each not in changes.enabled_events]
        yield f"events: {', '.join((*added, *taken))}"
    if changes.enabled is not None:
        yield "status: disabled -> enabled"
    for name, value in (changes.metadata or {}).items():
        yield f"metadata {name}: {before.metadata.get(name, '-')} -> {value or '-'}"


def _events(names: Sequence[str]) -> str:
    if len(names) <= EVENTS_SHOWN_MAX:
        return ", ".join(names)
    return f"{', '.join(names[:EVENTS_SHOWN_MAX])} and {len(names) - EVENTS_SHOWN_MAX} more"


def _json(task: _Task, outcomes: Sequence[_Outcome], *, applied: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    accounts: list[dict[str, Any]] = []
    for outcome in outcomes:
        mode = outcome.account.mode
        for step, endpoint_id, refused in _taken(outcome, applied=applied):
            steps.append({
                "endpoint": step.name,
                "mode": mode,
                "step": step.kind.value,
                "webhook_endpoint_id": endpoint_id,
                "changes": _json_changes(step),
                "refused": None if refused is None else str(refused),
            })  # fmt: skip
        accounts.append({
            "mode": mode,
            "endpoints": list(outcome.account.names),
            "left": None if outcome.plan is None else _left(outcome, outcome.plan, applied=applied),
            "failed": None if outcome.failed is None else str(outcome.failed),
        })  # fmt: skip
        findings += [
            {
                "finding": each.kind.value,
                "endpoint": each.name or None,
                "mode": mode,
                "webhook_endpoint_id": each.endpoint_id,
                "said": each.said,
            }
            for each in outcome.findings
        ]
    return {
        "steps": steps, "findings": findings, "accounts": accounts,
        "not_looked_at": [*task.without_key, *task.thin],
    }  # fmt: skip


def _json_changes(step: Step) -> Mapping[str, Any]:
    if not isinstance(step, Update):
        return {}
    given = {
        "url": step.changes.url and shown(step.changes.url),
        "enabled_events": step.changes.enabled_events,
        "enabled": step.changes.enabled,
        "metadata": step.changes.metadata,
    }
    return {name: value for name, value in given.items() if value is not None}


# --- disable and enable ----------------------------------------------------------------------------------------------


def _switch(given: Config, names: Sequence[str], *, enabled: bool) -> None:
    credentials = store_of(given).read()
    accounts = chosen(given, credentials, names).accounts
    lines: list[str] = []
    try:
        missing = run_async(lambda: _switched(given, credentials, accounts, lines, enabled=enabled))
    finally:
        for line in lines:
            click.echo(line)
    for name in missing:
        click.echo(f"{name}: is not at Stripe: `endpoints apply {name}` makes it", err=True)
    if missing:
        raise click.exceptions.Exit(EXIT_WRONG)


async def _switched(
    given: Config, credentials: Credentials, accounts: Sequence[Account], lines: list[str], *, enabled: bool
) -> list[str]:
    """Switch them on or off, and say so in `lines`; gives the names of those that are not there."""
    said = "enabled" if enabled else "disabled"
    urls = {endpoint.name: url_of(given, endpoint) or "" for endpoint in given.endpoints}
    missing: list[str] = []
    async with bootstrap_endpoints.clients(given, accounts) as opened:
        for account, endpoints in opened:
            listed = await endpoints.all()
            its_urls = {name: urls[name] for name in account.names}
            found = matched(its_urls, listed, credentials, deployment_of(given))
            for name in account.names:
                # While its secret is being rolled there may be two.
                ids = {*known_ids(credentials.of(name)), *([found[name].id] if name in found else [])}
                here = [each for each in listed if each.id in ids]
                missing += [] if here else [name]
                for each in here:
                    if each.enabled is not enabled:
                        await endpoints.update(each.id, enabled=enabled)
                    lines.append(f"{name}: {each.id} {'was' if each.enabled is enabled else 'is'} {said}"
                                 f" {'already' if each.enabled is enabled else 'now'}")  # fmt: skip
    return missing
