"""`consume`: the consumer of a projection."""

import click

from service.bootstrap.consumer import consume_until_told
from service.commands.options import run_async, with_config
from service.config import Config
from service.projections import PROJECTIONS


@click.command()
@click.argument("projection", type=click.Choice(sorted(PROJECTIONS)))
@with_config
def consume(config: Config, projection: str) -> None:
    """Keep a projection's tables right from the topics."""
    run_async(lambda: consume_until_told(config, projection))
