"""The command line: parses, composes, shows. What it does is in the modules it calls."""

import asyncio
import functools
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson
from rich.console import Console
from rich.table import Table

from service import __version__, bootstrap
from service.adapters.kafka_topics import ChangeKind
from service.config import Config, load
from service.errors import ConfigurationError
from service.events import Endpoint
from service.local.arrivals import read_newest
from service.local.show import show_report
from service.local.stack import StackOptions
from service.local.up import CONFIG_FILE, Up
from service.projections import PROJECTIONS
from service.receiver.workers import Workers
from service.simulator.events import SAMPLE_EVENT_TYPES, render, sample
from service.simulator.playing import play_shop
from service.simulator.stripe_sender import DeliveryResult, StripeSender
from service.telemetry.logging import configure

T = TypeVar("T")
Command = Callable[..., Any]

WIDTH_WITHOUT_TERMINAL: Final = 110

INITIAL_CONFIGURATION: Final = """\
# stripe-ingest. Every value can be overridden by STRIPE_INGEST__SECTION__KEY; secrets also come from files (…_file).

[receiver]
# host = "0.0.0.0"
# port = 8080
# workers = 1                       # processes that share the port
# max_body_bytes = 1048576
# max_in_flight = 256
# answer_timeout_seconds = 8.0      # from the request to its answer, whatever Kafka does
# tolerance_seconds = 300           # how old, or how far in the future, a signature may be
# allow_ips = "any"                 # or "stripe", or addresses and networks: ["10.0.0.0/8"]

[admin]
# host = "127.0.0.1"
# port = 9090                       # /metrics, /livez, /readyz; never the public port

[kafka]
bootstrap_servers = "127.0.0.1:9092"
# topic_prefix = "stripe"
# include_raw = true                # keep Stripe's event beside the normalized one
# partitions = 6                    # for `topics apply`
# replication_factor = 3
# min_insync_replicas = 2
# security = { protocol = "SASL_SSL", sasl_mechanism = "SCRAM-SHA-512", username = "…", password_file = "…" }

[database]
url_file = "/run/secrets/database-url"      # postgresql://user:password@host:5432/name

[dedupe]
# url = "postgresql://…"            # the database unless said otherwise; "memory://" for a single process
# timeout_seconds = 0.1
# retention_days = 31               # Stripe's CLI can resend an event for 30
# on_error = "publish"              # or "refuse": answer 503 while the store is away

[[endpoints]]
name = "shop"                       # => POST /webhooks/shop
mode = "live"                       # live, test or any
secrets_file = "/run/secrets/stripe-webhook-secret"   # whsec_…, several while one is being rolled
# path = "/api/v1/webhook"          # where the URL is registered at Stripe already
# account = "acct_…"
# connect = false
"""


def with_config(command: Command) -> Command:
    """Add `--config` and hand the command the configuration."""

    @click.option("--config", "config_path", metavar="FILE", help="The TOML file; else STRIPE_INGEST_CONFIG.")
    @functools.wraps(command)
    def run(config_path: str | None, **options: Any) -> Any:
        config = load(config_path, os.environ)
        configure(config.logging.format, config.logging.level)
        return command(config, **options)

    return run


def run_async(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine on uvloop where there is one."""

    async def started() -> T:
        return await main()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(started())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 -- optional: not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stripe-ingest")
def cli() -> None:
    """From Stripe's webhooks to Kafka topics of normalized events and Postgres tables that are right."""


@cli.command()
@with_config
def receive(config: Config) -> None:
    """Receive webhooks and publish them.

    With receiver.workers above 1, so many processes share the port; the admin side of each is on a port of its own,
    counted up from admin.port.
    """
    if config.receiver.workers == 1:
        run_async(lambda: bootstrap.receive(config))
        return
    config.webhook_endpoints(), config.dedupe_url  # refused once, here, rather than by each worker
    Workers(
        config.receiver.workers, lambda index: run_async(lambda: bootstrap.receive(bootstrap.worker(config, index)))
    ).run()


@cli.command()
@click.argument("projection", type=click.Choice(sorted(PROJECTIONS)))
@with_config
def consume(config: Config, projection: str) -> None:
    """Keep a projection's tables right from the topics."""
    run_async(lambda: bootstrap.consume(config, projection))


@cli.command()
@with_config
def migrate(config: Config) -> None:
    """Bring the database's schema up to date."""
    for store, result in bootstrap.migrate(config).items():
        said = f"applied {', '.join(result.applied)}" if result.applied else "up to date"
        click.echo(f"{store}: {said} (at {result.after})")


@cli.group()
def topics() -> None:
    """Create and check the Kafka topics."""


@topics.command("apply")
@click.option("--add-partitions", is_flag=True, help="Also add partitions where a topic has fewer than configured.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@with_config
def topics_apply(config: Config, add_partitions: bool, as_json: bool) -> None:
    """Create the topics, and bring the settings of those that exist into line. Idempotent.

    Adding partitions moves keys: from then on an object's new events go to another partition than its old ones.
    The tables stay right (the fold does not depend on order); consumers of the topics must not rely on it either.
    """
    changes = run_async(lambda: bootstrap.apply_topics(config, add_partitions=add_partitions))
    if as_json:
        click.echo(orjson.dumps([asdict(change) for change in changes]))
    table = Table("topic", "", "what", "was", "should be", box=None, header_style="bold")
    for change in changes:
        table.add_row(change.topic, change.kind.value, change.what, change.actual or "-", change.expected)
    if as_json:
        pass
    elif changes:
        _console().print(table)
    else:
        click.echo("The topics are as they should be.")
    if any(change.kind is ChangeKind.DIFFERS for change in changes):
        raise click.exceptions.Exit(1)


@topics.command("read")
@click.argument("family")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 10_000), help="At most so many records.")
@with_config
def topics_read(config: Config, family: str, limit: int) -> None:
    """Print the newest records of a topic (payments, refunds, …, quarantine), a JSON line each, oldest first."""
    for line in run_async(lambda: read_newest(config, family, limit)):
        click.echo(line)


@cli.command()
@click.option("--data", default=".stripe-ingest", show_default=True, metavar="FOLDER", help="Where everything is kept.")
@click.option("--port", default=8080, show_default=True, help="The receiver's; 0 takes free ports for everything.")
@click.option(
    "--admin-port", default=9090, show_default=True, help="The receiver's admin side; consumers come after it."
)
@click.option("--simulate", is_flag=True, help="Play a shop's life once, on a fresh data folder.")
@with_config
def up(config: Config, data: str, port: int, admin_port: int, simulate: bool) -> None:
    """Run everything on this machine: Kafka, Postgres, the receiver and the consumers. Needs the extra `local`."""
    data_dir = Path(data)
    options = StackOptions(
        data_dir=data_dir,
        config_path=data_dir / CONFIG_FILE,
        port=port,
        admin_port=admin_port,
        projections=tuple(PROJECTIONS),
    )
    run_async(Up(options, config, simulate, _console()).run)


@cli.command()
@click.argument("event_type", required=False)
@click.option("--endpoint", "name", help="The endpoint's name; the first one otherwise.")
@click.option("--url", help="Where to, if not at this configuration's own receiver.")
@click.option("--list", "list_types", is_flag=True, help="List the event types.")
@with_config
def send(config: Config, event_type: str | None, name: str | None, url: str | None, list_types: bool) -> None:
    """Sign a realistic sample event and post it to an endpoint: Stripe's "send test webhook"."""
    if list_types or event_type is None:
        click.echo("\n".join(sorted(SAMPLE_EVENT_TYPES)))
        return
    endpoint = _endpoint(config, name)
    event = sample(
        event_type,
        seed=secrets.randbits(48),
        created=int(datetime.now(UTC).timestamp()),
        livemode=endpoint.mode == "live",
        account=endpoint.account if endpoint.connect else None,
    )

    async def delivered() -> DeliveryResult:
        async with StripeSender(url or _url(config, endpoint), endpoint.secrets) as sender:
            return await sender.deliver(render(event))

    result = run_async(delivered)
    click.echo(f"{event['id']} {event_type}: {result.status or 'no answer'} {result.body.decode(errors='replace')}")
    if not result.answer.delivered:
        raise click.exceptions.Exit(1)


@cli.command()
@click.option("--endpoint", "name", help="The endpoint's name; the first one otherwise.")
@click.option("--url", help="Where to, if not at this configuration's own receiver.")
@click.option("--seed", default=1, show_default=True, help="Another seed is another shop.")
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(1, 256))
@with_config
def simulate(config: Config, name: str | None, url: str | None, seed: int, concurrency: int) -> None:
    """Play a short life of a shop: payments, refunds, a subscription; some events twice, some out of order."""
    endpoint = _endpoint(config, name)
    console = _console()
    report = run_async(
        lambda: play_shop(
            url or _url(config, endpoint),
            endpoint,
            seed=seed,
            now=datetime.now(UTC),
            concurrency=concurrency,
            console=console,
        )
    )
    show_report(console, report)
    if report.delivered < report.deliveries:
        raise click.exceptions.Exit(1)


def _console() -> Console:
    """Standard output; where it is no terminal, wide enough for whole ids."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def _endpoint(config: Config, name: str | None) -> Endpoint:
    endpoints = {endpoint.name: endpoint for endpoint in config.webhook_endpoints()}
    if name is None:
        return next(iter(endpoints.values()))
    if name not in endpoints:
        raise ConfigurationError(f"there is no endpoint {name!r}; there are {', '.join(sorted(endpoints))}")
    return endpoints[name]


def _url(config: Config, endpoint: Endpoint) -> str:
    host = "127.0.0.1" if config.receiver.host in {"0.0.0.0", "::"} else config.receiver.host  # noqa: S104 -- compared
    return f"http://{host}:{config.receiver.port}{endpoint.path}"


@cli.group("config")
def config_group() -> None:
    """Check or begin a configuration."""


@config_group.command("check")
@with_config
def config_check(config: Config) -> None:
    """Say whether the configuration is right, and what it comes to, without starting anything."""
    endpoints = config.webhook_endpoints()
    _ = config.dedupe_url
    table = Table("endpoint", "path", "mode", "account", "secrets", box=None, header_style="bold")
    for endpoint in endpoints:
        account = endpoint.account or ("connected accounts" if endpoint.connect else "-")
        table.add_row(endpoint.name, endpoint.path, endpoint.mode, account, str(len(endpoint.secrets)))
    console = _console()
    console.print(table)
    console.print(
        f"\nreceiver {config.receiver.host}:{config.receiver.port}, admin {config.admin.host}:{config.admin.port},"
        f" kafka {config.kafka.bootstrap_servers} ({config.kafka.topic_prefix}.*, {config.kafka.security.protocol})\n"
        "The configuration is right.",
        highlight=False,
    )


@config_group.command("init")
@click.option("--output", default="stripe-ingest.toml", show_default=True, metavar="FILE")
def config_init(output: str) -> None:
    """Write a commented configuration file; never over one that is there."""
    path = Path(output)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(INITIAL_CONFIGURATION)
    except FileExistsError:
        raise ConfigurationError(f"{path}: is there already; it is left as it is") from None
    click.echo(f"wrote {path}")
