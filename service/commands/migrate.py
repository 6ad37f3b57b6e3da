"""`migrate`: the database's schema."""

import click

from service.bootstrap import migrations as bootstrap_migrations
from service.commands.options import with_config
from service.config import Config


@click.command()
@with_config
def migrate(config: Config) -> None:
    """Bring the database's schema up to date."""
    for store, result in bootstrap_migrations.migrate(config).items():
        said = f"applied {', '.join(result.applied)}" if result.applied else "up to date"
        click.echo(f"{store}: {said} (at {result.after})")
