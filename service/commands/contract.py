"""`contract`: what is published for services downstream."""

from pathlib import Path
from typing import BinaryIO

import click
import orjson
from rich.table import Table

from service.commands.options import new_console, with_topics
from service.contract.asyncapi import OBJECT_TYPES, asyncapi
from service.contract.compatibility import NotTheContract, breaking_changes
from service.contract.files import as_text, write_contract
from service.contract.schema import SCHEMA_NAMES, schema, schema_id
from service.records import Topics


@click.group("contract")
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
