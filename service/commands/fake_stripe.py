"""`fake-stripe`: a Stripe to talk to for people without an account."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count

import click
import orjson

from service.commands.options import run_async
from service.simulator.fake_stripe import PERMISSIONS, FakeStripe, KeyMode, serving
from service.simulator.objects import Object
from service.simulator.shop import STORY_SPAN, shop
from service.stopping import stop_signals


@click.command("fake-stripe")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=12111, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--seed", default=1, show_default=True, help="Another seed is another crowd of shops, and other keys.")
@click.option(
    "--shops", default=3, show_default=True, type=click.IntRange(0, 10_000), help="Shops whose life is in the past."
)
@click.option(
    "--every",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0, 86_400),
    help="Seconds between the events of a shop that lives now; 0: nothing new happens.",
)
@click.option("--mode", default="test", show_default=True, type=click.Choice(["test", "live"]))
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice(sorted(PERMISSIONS)),
    metavar="NAME",
    help="Make the key a restricted one with this permission (event_read, …); may be repeated.",
)
@click.option(
    "--reach",
    "reached",
    multiple=True,
    metavar="ORIGIN=ORIGIN",
    help="Deliver what goes to the first origin at the second: https://shop.example.com=http://127.0.0.1:8080.",
)
@click.option(
    "--speed",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(1, 1_000_000),
    help="How many seconds of Stripe's retry schedule pass in one.",
)
@click.option(
    "--rate", type=click.FloatRange(0.1, 10_000), help="Answer 429 above so many requests a second; no limit otherwise."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the lines for people.")
def fake_stripe(
    *,
    host: str,
    port: int,
    seed: int,
    shops: int,
    every: float,
    mode: KeyMode,
    permissions: tuple[str, ...],
    reached: tuple[str, ...],
    speed: float,
    rate: float | None,
    as_json: bool,
) -> None:
    """Serve a fake Stripe until it is interrupted: events, objects, webhook endpoints, keys. Needs no configuration.

    It plays the life of some shops, prints an API key and the base address for a client, and delivers its events to
    the webhook endpoints that are registered. It forgets everything at its end.
    """
    fake = FakeStripe(seed=seed, speed=speed)
    for pair in reached:
        origin, equals, at = pair.partition("=")
        if not equals or "://" not in origin or "://" not in at:
            raise click.BadParameter(f"{pair!r} is not ORIGIN=ORIGIN", param_hint="--reach")
        fake.deliveries.reach(origin, at)
    if rate is not None:
        fake.trouble.limit(rate)
    livemode = mode == "live"
    opened = datetime.now(UTC) - STORY_SPAN
    for number in range(shops):
        fake.add_all(shop(seed + number, opened, livemode=livemode).events)
    key = fake.new_key(mode, permissions or None)
    present = _present(seed + shops, livemode=livemode)

    async def served() -> None:
        async with stop_signals() as stop, serving(fake, host=host, port=port) as url:
            _say(url, key, fake.account, as_json=as_json)
            stopped = asyncio.ensure_future(stop.wait())
            while not stopped.done():
                await asyncio.wait([stopped], timeout=every or None)
                if not stopped.done():
                    _happen(fake, next(present), as_json=as_json)

    run_async(served)


def _present(seed: int, *, livemode: bool) -> Iterator[Object]:
    """The events of one shop after another."""
    for number in count(seed):
        yield from shop(number, datetime.now(UTC), livemode=livemode).events


def _happen(fake: FakeStripe, event: Object, *, as_json: bool) -> None:
    """The event happens now: a shop's months pass at the pace that the user asked for, in their true order."""
    fake.add({**event, "created": fake.now()})
    if not as_json:
        click.echo(f"{event['id']} {event['type']} {event['data']['object'].get('id', '-')}")


def _say(url: str, key: str, account: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps({"url": url, "key": key, "account": account}))
        return
    click.echo(
        f"A fake Stripe is at {url}\n"
        f"  key      {key}\n"
        f"  account  {account}\n"
        f"  try      curl -s {url}/v1/events -u {key}:\n"
        f'  python   stripe.StripeClient("{key}", base_addresses={{"api": "{url}"}})\n'
        "Ctrl-C ends it."
    )
