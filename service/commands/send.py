"""`send`: a sample event, as Stripe would post it."""

import secrets
from datetime import UTC, datetime

import click

from service.commands.options import run_async, with_config
from service.commands.own_receiver import endpoint_of, url_of
from service.config import Config
from service.simulator.events import SAMPLE_EVENT_TYPES, render, sample
from service.simulator.stripe_sender import DeliveryResult, StripeSender


@click.command()
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
    endpoint = endpoint_of(config, name)
    event = sample(
        event_type,
        seed=secrets.randbits(48),
        created=int(datetime.now(UTC).timestamp()),
        livemode=endpoint.mode == "live",
        account=endpoint.account if endpoint.connect else None,
    )

    async def delivered() -> DeliveryResult:
        async with StripeSender(url or url_of(config, endpoint), endpoint.secrets) as sender:
            return await sender.deliver(render(event))

    result = run_async(delivered)
    click.echo(f"{event['id']} {event_type}: {result.status or 'no answer'} {result.body.decode(errors='replace')}")
    if not result.answer.delivered:
        raise click.exceptions.Exit(1)
