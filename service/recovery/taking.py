"""Many bodies of Stripe's to Kafka, some at a time, with the patience of a job that nobody waits for."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias, TypeVar

from service.errors import Unavailable
from service.events import IngestSource, TrustedEvent
from service.receiver.ingest import Ingest, Taken, take

AT_ONCE_MAX: Final = 32
ATTEMPT_SECONDS: Final = 8.0
PATIENCE_SECONDS: Final = 60.0
"""For how long a job tries again while the broker or the dedupe store is away; above the lease of a claim, 30 s."""
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0

Jitter: TypeAlias = Callable[[float, float], float]
T = TypeVar("T")


async def insist(
    attempt: Callable[[], Awaitable[T]],
    *,
    give_up_at: float,
    jitter: Jitter = random.uniform,
    stop: asyncio.Event | None = None,
) -> T:
    """Try again while the other side is away, and while the claim of a run that was killed has not run out.

    Raises the attempt's `Unavailable` once `give_up_at`, on the event loop's clock, is past or `stop` is set; what else
    the attempt raises, at once.
    """
    loop = asyncio.get_running_loop()
    stop = stop or asyncio.Event()
    ceiling = BACKOFF_SECONDS_MIN
    while True:
        try:
            return await attempt()
        except Unavailable:
            if stop.is_set() or loop.time() >= give_up_at:
                raise
        ceiling = min(2 * ceiling, BACKOFF_SECONDS_MAX)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), jitter(BACKOFF_SECONDS_MIN, ceiling))


async def take_all(
    bodies: Sequence[TrustedEvent], source: IngestSource, ingest: Ingest, *, jitter: Jitter = random.uniform
) -> Sequence[Taken]:
    """Take all of them, and return what became of each, in their order, once all are acknowledged.

    Raises what `take` raises, when all that were under way have ended; those that were taken then stay taken, and are
    duplicates the next time.
    """
    slots = asyncio.Semaphore(AT_ONCE_MAX)
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + PATIENCE_SECONDS

    async def taken(body: TrustedEvent) -> Taken:
        async with slots:
            return await insist(
                lambda: take(body, source, ingest, deadline=loop.time() + ATTEMPT_SECONDS),
                give_up_at=give_up_at,
                jitter=jitter,
            )

    outcomes = await asyncio.gather(*map(taken, bodies), return_exceptions=True)
    done: list[Taken] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        done.append(outcome)
    return done
