"""The command line: parses, composes, shows. What it does is in the modules it calls."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, get_args

import click
import orjson
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from service import __version__, bootstrap
from service.adapters.kafka_topics import ChangeKind
from service.bootstrap_recovery import keep_reconciled
from service.bootstrap_watch import keep_watched
from service.commands.backfill import backfill
from service.commands.endpoints import endpoints_group
from service.commands.fake_stripe import fake_stripe
from service.commands.keys import keys_group
from service.commands.options import (
    new_console,
    run_async,
    with_config,
    with_given_config,
    with_loaded_config,
    with_topics,
)
from service.commands.rebuild import rebuild
from service.commands.reconcile import reconcile
from service.commands.redrive import dead_letter_group, quarantine_group
from service.commands.secrets import secrets_group
from service.config import Config, EndpointConfig, merged
from service.contract import Category
from service.contract.asyncapi import OBJECT_TYPES, asyncapi
from service.contract.compatibility import NotTheContract, breaking_changes
from service.contract.files import as_text, write_contract
from service.contract.schema import SCHEMA_NAMES, schema, schema_id
from service.errors import ConfigurationError
from service.events import Endpoint
from service.local.arrivals import read_newest
from service.local.show import show_report, show_routes
from service.local.stack import StackOptions
from service.local.up import CONFIG_FILE, Up
from service.normalize.event_types import CATALOGUE
from service.presets import PRESETS, with_public_url
from service.projections import PROJECTIONS
from service.receiver.reloading import Load
from service.receiver.workers import Workers
from service.records import Topics
from service.routing import Form, advice, route, routes
from service.simulator.events import SAMPLE_EVENT_TYPES, render, sample
from service.simulator.playing import play_shop
from service.simulator.stripe_sender import DeliveryResult, StripeSender
from service.stripe_account.api_keys import event_keys, stripe_keys

COMPANIONS: Final[Sequence[bootstrap.Companion]] = (keep_reconciled, keep_watched)
"""What runs beside a receiver, in its process."""

ALL_EVENTS: Final = "*"
"""Every event type but those that Stripe wants to be asked for by name."""

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
# public_url = "https://hooks.example.com"      # where Stripe reaches it; for `endpoints apply`

[admin]
# host = "127.0.0.1"
# port = 9090                       # /metrics, /livez, /readyz; never the public port

[kafka]
bootstrap_servers = "127.0.0.1:9092"
# topic_prefix = "stripe"
# include_raw = true                # keep Stripe's event beside the normalized one
# redact = ["customer.email", "hash:customer.phone", "charge.billing_details", "*.metadata.ssn"]
#                                   # fields that go nowhere: dropped, or replaced by a keyed hash to join on
#                                   # (of objects the values; names stay: drop metadata that has people in its keys)
# redact_key_file = "/run/secrets/redact-key"   # needed with redact: `openssl rand -base64 32`; older keys in more
#                                   # lines below it open what they have sealed
# partitions = 6                    # for `topics apply`
# replication_factor = 3
# min_insync_replicas = 2
# security = { protocol = "SASL_SSL", sasl_mechanism = "SCRAM-SHA-512", username = "…", password_file = "…" }

[database]
url_file = "/run/secrets/database-url"      # postgresql://user:password@host:5432/name

[dedupe]
# url = "postgresql://…"            # the database unless said otherwise; "memory://" for a single process;
#                                   # "redis://:password@host:6379/0" (or rediss://): pip install "stripe-ingest[redis]"
# timeout_seconds = 0.1
# retention_days = 31               # Stripe's CLI can resend an event for 30
# on_error = "publish"              # or "refuse": answer 503 while the store is away

[consumer]
# dead_letter_limit = 100           # poison in a row at which a partition stops; a tenth before anything was applied

[reconcile]
# interval_seconds = 900            # how often receivers look for what was missed; 0: only `reconcile`, on demand
# lookback_hours = 24
# grace_seconds = 900               # younger events are Stripe's to deliver
# api_key_file = "/run/secrets/stripe-events-key"   # may read events; where the endpoints' own keys may not

[stripe]
# requests_per_second = 20.0        # by one key; Stripe allows 100 in live mode, 25 in test mode, to all of yours
# api_base = "https://api.stripe.com"
# watch_interval_seconds = 900      # how often receivers with a key look at the endpoints at Stripe; 0: only when asked

[secrets]
# store = "/var/lib/stripe-ingest/secrets.json" # signing secrets and API keys that are not in this file; 0600
# key_file = "/run/secrets/store-key"           # encrypts the store: `stripe-ingest secrets key`; older keys below it

[[endpoints]]
name = "shop"                       # => POST /webhooks/shop
mode = "live"                       # live, test or any
secrets_file = "/run/secrets/stripe-webhook-secret"   # whsec_…, several while one is being rolled
# path = "/api/v1/webhook"          # where the URL is registered at Stripe already
# account = "acct_…"
# connect = false
# events = ["payment_intent.succeeded", "charge.refunded"]   # what it is registered for at Stripe
# api_key_file = "/run/secrets/stripe-api-key"   # sk_… or rk_…; for Stripe's API, never for receiving
# api_version = "2026-10-28.endive" # what `endpoints apply` registers it with; Stripe never changes it afterwards
# url = "https://shop.example.com/hook"          # where that is not receiver.public_url and the path
# permissions = ["payment_intent_write"]         # what else the key is there for; `keys check` looks
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stripe-ingest")
def cli() -> None:
    """From Stripe's webhooks to Kafka topics of normalized events and Postgres tables that are right."""


@cli.command()
@with_loaded_config
def receive(config: Config, load: Load) -> None:
    """Receive webhooks and publish them.

    Endpoints, their secrets and keys are taken anew on SIGHUP, and within a second when the file of secrets.store
    changes; other settings need a restart. A configuration that is wrong is logged, and changes nothing.

    With receiver.workers above 1, so many processes share the port; the admin side of each is on a port of its own,
    counted up from admin.port.
    """
    if config.receiver.workers == 1:
        run_async(lambda: bootstrap.receive(config, COMPANIONS, load))
        return
    config.webhook_endpoints()  # refused once, here, rather than by each worker
    bootstrap.check_dedupe(config)

    def work(index: int) -> None:
        run_async(
            lambda: bootstrap.receive(
                bootstrap.worker(config, index), COMPANIONS, lambda: bootstrap.worker(load(), index)
            )
        )

    Workers(config.receiver.workers, work).run()


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
        new_console().print(table)
    else:
        click.echo("The topics are as they should be.")
    if any(change.kind is ChangeKind.DIFFERS for change in changes):
        raise click.exceptions.Exit(1)


@topics.command("read")
@click.argument("family")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 10_000), help="At most so many records.")
@with_config
def topics_read(config: Config, family: str, limit: int) -> None:
    """Print the newest records of a topic (payments, refunds, …, quarantine), a JSON line each, oldest first.

    Encrypted bodies are opened where kafka.redact_key is configured; else they are in `value_base64`, and `sealed`
    says why. Bytes that are no text are in `value_base64` too.
    """
    for line in run_async(lambda: read_newest(config, family, limit)):
        click.echo(line)


@cli.group()
def events() -> None:
    """Look at Stripe's event types."""


@events.command("list")
@click.argument("event_types", nargs=-1, metavar="[TYPE]...")
@click.option("--category", type=click.Choice(get_args(Category)), help="Only this topic's.")
@click.option("--snapshot", "form", flag_value="snapshot", help="Only events that carry their object.")
@click.option("--thin", "form", flag_value="thin", help="Only events that name their object.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@with_topics
def events_list(
    topics: Topics, event_types: tuple[str, ...], category: Category | None, form: Form | None, as_json: bool
) -> None:
    """Show where each of Stripe's event types goes: its topic, key and object. Needs no configuration.

    Without a TYPE, all that this version knows. Into a pipe, a line each with tabs between: type, form, category,
    topic, key, object, twin, and whether it is listed.

    A TYPE that Stripe is not known to have is shown as well, with its way, and the exit code is 0: a script that wants
    to know reads `listed` and `suggestions` of --json.
    """
    found = [route(event_type, topics) for event_type in event_types] or list(routes(topics))
    shown = [each for each in found if category in {None, each.category} and form in {None, each.form}]
    console = Console()
    if as_json:
        click.echo(orjson.dumps([asdict(each) for each in shown]))
    elif console.is_terminal:
        show_routes(console, shown)
    else:
        for each in shown:
            click.echo("\t".join(each.columns()))
    for each in found:
        if not each.listed:
            click.echo(f"{each.event_type} {advice(each.event_type)}", err=True)


@cli.command()
@click.option("--data", default=".stripe-ingest", show_default=True, metavar="FOLDER", help="Where everything is kept.")
@click.option("--port", default=8080, show_default=True, help="The receiver's; 0 takes free ports for everything.")
@click.option(
    "--admin-port", default=9090, show_default=True, help="The receiver's admin side; consumers come after it."
)
@click.option("--simulate", is_flag=True, help="Play a shop's life once, on a fresh data folder.")
@with_given_config
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
    run_async(Up(options, config, simulate, new_console()).run)


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
    console = new_console()
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
@with_given_config
def config_check(given: Config) -> None:
    """Say whether the configuration is right, and what it comes to, without starting anything.

    An event type that Stripe is not known to have is warned of, no more: Stripe may be newer than this version.
    """
    config = merged(given)
    endpoints = config.webhook_endpoints()
    bootstrap.check_dedupe(config)
    stripe_keys(config)
    event_keys(config)
    for place, configured in enumerate(config.endpoints):
        for event_type in configured.events:
            if event_type not in CATALOGUE | {ALL_EVENTS}:
                where = f"endpoints[{place}] ({configured.name}).events"
                click.echo(f"warning: {where}: {event_type} {advice(event_type)}", err=True)
        if not configured.secrets:
            where = f"endpoints[{place}] ({configured.name}).secrets"
            click.echo(f"warning: {where}: there is none yet, so that every delivery is refused", err=True)
    table = Table("endpoint", "path", "mode", "account", "secrets", "API key", box=None, header_style="bold")
    for endpoint, said, whole in zip(endpoints, given.endpoints, config.endpoints, strict=True):
        account = endpoint.account or ("connected accounts" if endpoint.connect else "-")
        table.add_row(endpoint.name, endpoint.path, endpoint.mode, account, *_credentials_columns(said, whole))
    console = new_console()
    console.print(table)
    console.print(
        f"\nreceiver {config.receiver.host}:{config.receiver.port}, admin {config.admin.host}:{config.admin.port},"
        f" kafka {config.kafka.bootstrap_servers} ({config.kafka.topic_prefix}.*, {config.kafka.security.protocol})\n"
        "The configuration is right.",
        highlight=False,
    )
    public_url = config.receiver.public_url
    if public_url is not None:
        _say_urls(each.url or f"{public_url.rstrip('/')}{each.endpoint().path}" for each in config.endpoints)


def _credentials_columns(said: EndpointConfig, whole: EndpointConfig) -> tuple[str, str]:
    """How many signing secrets an endpoint has, whether it has an API key, and what of them is the store's."""
    signing = str(len(whole.secrets)) + (" in the store" if whole.secrets and not said.secrets else "")
    if whole.api_key is None:
        return signing, "-"
    return signing, "in the store" if said.api_key is None else "yes"


@config_group.command("init")
@click.option("--output", default="stripe-ingest.toml", show_default=True, metavar="FILE")
@click.option("--preset", "name", type=click.Choice(list(PRESETS)), help="Begin with one that `config presets` lists.")
@click.option("--public-url", metavar="URL", help="Where Stripe reaches it: becomes receiver.public_url.")
def config_init(output: str, name: str | None, public_url: str | None) -> None:
    """Write a commented configuration file; never over one that is there."""
    path = Path(output)
    preset = PRESETS[name] if name is not None else None
    text = INITIAL_CONFIGURATION if preset is None else preset.configuration
    if public_url is not None:
        text = with_public_url(text, public_url)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{path}: is there already; it is left as it is") from None
    click.echo(f"wrote {path}")
    if preset is None:
        return
    _say_urls(f"{(public_url or 'https://<your host>').rstrip('/')}{endpoint_path}" for endpoint_path in preset.paths)
    click.echo(f"\nWhich key, which events, how to test: stripe-ingest config presets {preset.name}")


def _say_urls(urls: Iterable[str]) -> None:
    """A line each, not in a table: that would break a long one in two."""
    click.echo("\nThe webhook URLs to copy:")
    for url in urls:
        click.echo(f"  {url}")


@config_group.command("presets")
@click.argument("name", required=False, type=click.Choice(list(PRESETS)))
def config_presets(name: str | None) -> None:
    """List the integrations that `config init --preset` knows, or show one's page. Needs no configuration."""
    console = new_console()
    if name is None:
        table = Table("preset", "what it is for", box=None, header_style="bold")
        for preset in PRESETS.values():
            table.add_row(preset.name, preset.title)
        console.print(table)
    elif console.is_terminal:
        console.print(Markdown(PRESETS[name].page))
    else:
        click.echo(PRESETS[name].page, nl=False)


@cli.group("contract")
def contract_group() -> None:
    """Show the published contract: what services downstream may build on. Needs no configuration."""


@contract_group.command("list")
@with_topics
def contract_list(topics: Topics) -> None:
    """List the schemas, and the topics with records that they describe."""
    table = Table("object type", "schema ($id, and the header ce_dataschema)", "topics", box=None, header_style="bold")
    for name in SCHEMA_NAMES:
        where = (topics.of(category) for category, names in OBJECT_TYPES.items() if name in names)
        table.add_row(name, schema_id(name), ", ".join(where))
    new_console().print(table)


@contract_group.command("schema")
@click.argument("object_type", type=click.Choice(SCHEMA_NAMES), metavar="OBJECT_TYPE")
def contract_schema(object_type: str) -> None:
    """Print the JSON Schema (2020-12) of the records about an object type."""
    click.echo(as_text(schema(object_type)), nl=False)


@contract_group.command("asyncapi")
@with_topics
def contract_asyncapi(topics: Topics) -> None:
    """Print the AsyncAPI 3.0 document of all topics, schemas included."""
    click.echo(as_text(asyncapi(topics)), nl=False)


@contract_group.command("write")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@with_topics
def contract_write(topics: Topics, folder: Path) -> None:
    """Write asyncapi.json and schemas/*.json into a folder, over those that are there."""
    for path in write_contract(folder, topics):
        click.echo(f"wrote {path}")


@contract_group.command("compare")
@click.argument("earlier", metavar="FILE", type=click.File("rb"))
@with_topics
def contract_compare(topics: Topics, earlier: BinaryIO) -> None:
    """Say what breaks a consumer written against an earlier asyncapi.json. Exit 1 where something does."""
    try:
        changes = breaking_changes(orjson.loads(earlier.read()), asyncapi(topics))
    except orjson.JSONDecodeError:
        raise click.ClickException(f"{earlier.name}: is not JSON") from None
    except NotTheContract as error:
        raise click.ClickException(
            f"{earlier.name}: is not what `stripe-ingest contract asyncapi` prints: {error}"
        ) from None
    for change in changes:
        click.echo(change)
    if changes:
        raise click.exceptions.Exit(1)
    click.echo("Whoever reads by the earlier contract can read what is published now.")


cli.add_command(backfill)
cli.add_command(fake_stripe)
cli.add_command(dead_letter_group)
cli.add_command(quarantine_group)
cli.add_command(rebuild)
cli.add_command(reconcile)
cli.add_command(secrets_group)
cli.add_command(endpoints_group)
cli.add_command(keys_group)
