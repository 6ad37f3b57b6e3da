"""`up`: everything on this machine."""

from pathlib import Path

import click

from service.commands.options import new_console, run_async, with_given_config
from service.config import Config
from service.local.stack import StackOptions
from service.local.up import CONFIG_FILE, Up
from service.projections import PROJECTIONS


@click.command()
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
