"""A shop's life against a running receiver, with progress on a terminal."""

from datetime import datetime
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.events import Endpoint
from service.simulator.shop import STORY_SPAN, deliveries, shop
from service.simulator.stripe_sender import Report, StripeSender, play

RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Stripe's exponential back-off of days, in half a minute."""


async def play_shop(
    url: str, endpoint: Endpoint, *, seed: int, now: datetime, concurrency: int, console: Console
) -> Report:
    """Deliver a shop's events as Stripe would: signed, some twice, some out of order, again after a failure."""
    story = shop(seed, now - STORY_SPAN, livemode=endpoint.mode == "live", account=None)
    arriving = deliveries(story, seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        shown = progress.add_task("Stripe delivers", total=len(arriving))
        async with StripeSender(url, endpoint.secrets, retry_seconds=RETRY_SECONDS) as sender:
            return await play(
                arriving,
                sender,
                concurrency=concurrency,
                progress=lambda done, _: progress.update(shown, completed=done),
            )
