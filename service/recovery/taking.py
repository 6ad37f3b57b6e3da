"""Many bodies of Stripe's to Kafka, some at a time, with the patience of a job that nobody waits for."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from service.errors import Unavailable
from service.events import IngestSource, TrustedEvent
from service.receiver.ingest import Ingest, Taken, take

AT_ONCE_MAX: Final = 32
ATTEMPT_SECONDS: Final = 8.0
PATIENCE_SECONDS: Final = 60.0
"""For how long all of them together are tried again while the broker or the dedupe store is away."""
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0


async def take_all(
    bodies: Sequence[TrustedEvent],
    source: IngestSource,
    ingest: Ingest,
    *,
    jitter: Callable[[float, float], float] = random.uniform,
) -> Sequence[Taken]:
    """Take all of them, and return what became of each, in their order, once all are acknowledged.

    Raises what `take` raises, when all that were under way have ended; those that were taken then stay taken, and are
    duplicates the next time.
    """
    slots = asyncio.Semaphore(AT_ONCE_MAX)
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + PATIENCE_SECONDS

    async def insist(body: TrustedEvent) -> Taken:
        async with slots:
            ceiling = BACKOFF_SECONDS_MIN
            while True:
                try:
                    return await take(body, source, ingest, deadline=loop.time() + ATTEMPT_SECONDS)
                except Unavailable:
                    if loop.time() >= give_up_at:
                        raise
                ceiling = min(2 * ceiling, BACKOFF_SECONDS_MAX)
                await asyncio.sleep(jitter(BACKOFF_SECONDS_MIN, ceiling))

    taken: list[Taken] = []
    for outcome in await asyncio.gather(*map(insist, bodies), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        taken.append(outcome)
    return taken
