"""`config`: a configuration is begun, and checked."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click
from rich.markdown import Markdown
from rich.table import Table

from service.bootstrap.dedupe import check_dedupe
from service.commands.initial_configuration import INITIAL_CONFIGURATION
from service.commands.options import new_console, with_given_config
from service.config import Config, EndpointConfig, merged
from service.errors import ConfigurationError
from service.normalize.event_types import CATALOGUE
from service.presets import PRESETS, with_public_url
from service.routing import advice
from service.stripe_account.api_keys import event_keys, stripe_keys
from service.stripe_account.endpoint_renderings import configured_renderings, mixed_versions
from service.stripe_account.endpoint_versions import why_no_api_version
from service.stripe_account.endpoint_wanted import url_of

ALL_EVENTS: Final = "*"
"""Every event type but those that Stripe wants to be asked for by name."""


@click.group("config")
def config_group() -> None:
    """Check or begin a configuration."""


@config_group.command("check")
@with_given_config
def config_check(given: Config) -> None:
    """Say whether the configuration is right, and what it comes to, without starting anything.

    An event type or an API version that Stripe is not known to have is warned of, no more: Stripe may be newer than
    this version.
    """
    config = merged(given)
    endpoints = config.webhook_endpoints()
    check_dedupe(config)
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
        if configured.api_version is not None and (why := why_no_api_version(configured.api_version)) is not None:
            where = f"endpoints[{place}] ({configured.name}).api_version"
            click.echo(f"warning: {where}: {configured.api_version!r} {why}", err=True)
    for mixed in mixed_versions(configured_renderings(config)):
        click.echo(f"warning: endpoints.api_version: {mixed}", err=True)
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
    if urls := [url for each in config.endpoints if (url := url_of(config, each)) is not None]:
        _say_urls(urls)


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
