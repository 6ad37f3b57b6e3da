"""`simulate`: a short life of a shop."""

from datetime import UTC, datetime

import click

from service.commands.options import new_console, run_async, with_config
from service.commands.own_receiver import endpoint_of, url_of
from service.config import Config
from service.local.show import show_report
from service.simulator.playing import play_shop


@click.command()
@click.option("--endpoint", "name", help="The endpoint's name; the first one otherwise.")
@click.option("--url", help="Where to, if not at this configuration's own receiver.")
@click.option("--seed", default=1, show_default=True, help="Another seed is another shop.")
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(1, 256))
@with_config
def simulate(config: Config, name: str | None, url: str | None, seed: int, concurrency: int) -> None:
    """Play a short life of a shop: payments, refunds, a subscription; some events twice, some out of order."""
    endpoint = endpoint_of(config, name)
    console = new_console()
    report = run_async(
        lambda: play_shop(
            url or url_of(config, endpoint),
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
