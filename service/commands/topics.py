"""`topics`: the Kafka topics as they should be, and what is on them."""

import asyncio
from dataclasses import asdict
from typing import Final

import click
import orjson
from rich.table import Table

from service.adapters.kafka_topics import ChangeKind
from service.bootstrap import kafka as bootstrap_kafka
from service.commands.options import new_console, run_async, with_config
from service.commands.record_json import record_line
from service.config import Config
from service.errors import ConfigurationError
from service.records import Topics

READ_SECONDS_MAX: Final = 30.0


@click.group("topics")
def topics_group() -> None:
    """Create and check the Kafka topics."""


@topics_group.command("apply")
@click.option("--add-partitions", is_flag=True, help="Also add partitions where a topic has fewer than configured.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@with_config
def topics_apply(config: Config, add_partitions: bool, as_json: bool) -> None:
    """Create the topics, and bring the settings of those that exist into line. Idempotent.

    Adding partitions moves keys: from then on an object's new events go to another partition than its old ones.
    The tables stay right (the fold does not depend on order); consumers of the topics must not rely on it either.
    """
    changes = run_async(lambda: bootstrap_kafka.apply_topics(config, add_partitions=add_partitions))
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


@topics_group.command("read")
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


async def read_newest(config: Config, family: str, limit: int) -> list[str]:
    """The newest records of a topic, oldest first, as JSON lines; sealed bodies opened where the key is configured.

    Raises `ConfigurationError` for an unknown family.
    """
    topics = Topics(config.kafka.topic_prefix)
    names = {
        name.removeprefix(f"{topics.prefix}."): name for name in (*topics.data, topics.quarantine, topics.dead_letter)
    }
    if family not in names:
        raise ConfigurationError(f"there is no topic {family!r}; there are {', '.join(names)}")
    async with bootstrap_kafka.record_log(config) as log:
        ranges = {partition: offsets[-limit:] for partition, offsets in (await log.ranges(names[family])).items()}
        async with asyncio.timeout(READ_SECONDS_MAX):
            records = [record async for record in log.read(ranges)]
    sealing = config.sealing()
    newest = sorted(records, key=lambda record: record.timestamp_ms)[-limit:]
    return [record_line(record, sealing) for record in newest]
