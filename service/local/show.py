"""What people would rather look at than read: deliveries, topics and rows as tables, and what to do next."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from service.events import Endpoint
from service.local.arrivals import Arrivals, TableRows
from service.simulator.stripe_sender import Report


def show_report(console: Console, report: Report) -> None:
    """What became of simulated deliveries."""
    console.print()
    table = _table("deliveries", "count")
    for answer, count in sorted(report.answers.items(), key=lambda item: -item[1]):
        if count:
            table.add_row(answer.value, f"{count:,}")
    for reason, count in sorted(report.failures.items()):
        table.add_row(Text(f"sent again: {reason}", style="yellow"), f"{count:,}")
    table.add_section()
    table.add_row("p50 / p99", f"{report.p50_seconds * 1000:.1f} / {report.p99_seconds * 1000:.1f} ms", style="dim")
    console.print(table)
    console.print()


def show_arrivals(console: Console, found: Arrivals) -> None:
    """What is on the topics and in the tables."""
    topics = _table("topic", "records")
    for name, records in found.records.items():
        topics.add_row(name, f"{records:,}", style="" if records else "dim")
    topics.add_section()
    for name, entries in found.ledgers.items():
        topics.add_row(f"ledger {name}", f"{entries:,}", style="dim")
    console.print(topics)
    console.print()
    for name, rows in found.tables.items():
        console.print(_rows(name, rows))
        console.print()


def show_next_steps(
    console: Console,
    *,
    receiver: str,
    admin: str,
    endpoints: Sequence[Endpoint],
    config_path: Path,
    data_dir: Path,
    own_secret: bool,
) -> None:
    """How to point Stripe at it, read a topic, query a table."""
    first = endpoints[0]
    steps = Table.grid(padding=(0, 2))
    steps.add_column(style="bold")
    steps.add_column(overflow="fold")
    for endpoint in endpoints:
        steps.add_row("webhook URL", f"{receiver}{endpoint.path}   (endpoint {endpoint.name!r}, mode {endpoint.mode})")
    if own_secret:
        steps.add_row("signing secret", f"in {data_dir / 'webhook-secret'}")
    steps.add_row("operator's page", f"{admin}/   (to replay, sign in with what is in {data_dir / 'admin-token'})")
    steps.add_row("metrics, health", f"{admin}/metrics   {admin}/readyz")
    steps.add_row("addresses", str(data_dir / "stack.json"))
    commands = "\n".join((
        f"export STRIPE_INGEST_CONFIG={config_path}",
        "stripe-ingest send payment_intent.succeeded        # a signed test webhook; any handled type",
        "stripe-ingest simulate --seed 2                    # another shop's life",
        "stripe-ingest topics read payments                 # the newest records of a topic",
        f"{_psql(data_dir):<50} # then: table payment_balances;",
    ))  # fmt: skip
    stripe = "\n".join((
        "stripe listen --print-secret                       # whsec_…; stop this, then:",
        "STRIPE_WEBHOOK_SECRET=whsec_… make run",
        f"stripe listen --forward-to {receiver}{first.path}",
    ))  # fmt: skip
    body = Group(
        steps,
        Text("\nTry it, in another terminal (source .venv/bin/activate):", style="bold"),
        Text(commands),
        Text("\nThe Stripe CLI, or an endpoint at Stripe with its own whsec_…:", style="bold"),
        Text(stripe),
    )
    console.print(Panel(body, title="stripe-ingest is up", subtitle="Ctrl-C ends it; the data stay", expand=False))


def _psql(data_dir: Path) -> str:
    return "make psql" if data_dir == Path(".stripe-ingest") else f"make psql DATA={data_dir}"


def _rows(name: str, rows: TableRows) -> Table:
    counted = f"{rows.count:,}" if rows.count == len(rows.rows) else f"the newest {len(rows.rows)} of {rows.count:,}"
    title = Text.assemble(("table ", "dim"), (name, "bold"), (f" ({counted})", "dim"))
    table = Table(title=title, title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in rows.columns:
        table.add_column(
            column.removesuffix("_minor").removeprefix("amount_"),
            justify="right" if column.endswith("_minor") else "left",
            no_wrap=True,
        )
    for row in rows.rows:
        table.add_row(*row)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(columns[0])
    table.add_column(columns[1], justify="right")
    return table
