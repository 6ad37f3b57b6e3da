"""How late the event loop is: what is measured for one thing that is due is so for all that wait for their turn."""

import asyncio
from typing import Final

from service.telemetry.instruments import Histogram

EVERY_SECONDS: Final = 0.25


async def measure_loop_lag(lag: Histogram, *, every_seconds: float = EVERY_SECONDS) -> None:
    """Observe again and again how much later than asked for the loop comes back, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_seconds
        await asyncio.sleep(every_seconds)
        lag.observe(max(0.0, loop.time() - due))
