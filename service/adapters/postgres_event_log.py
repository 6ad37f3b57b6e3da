"""The event log in Postgres: the table `event_log`, written in the background.

Whoever notes an arrival only puts it into a queue. One task takes what has gathered there and copies it into the table,
a batch in a statement; whatever the database does, the queue, the time for a batch and the time at the end are bounded.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final, Self

import asyncpg

from service.errors import StoreUnavailable
from service.events import Arrival

QUEUE_ARRIVALS_MAX: Final = 10_000
"""About 10 MB of them; where more wait, the newest are dropped."""
BATCH_ARRIVALS_MAX: Final = 500
GATHER_SECONDS: Final = 0.25
"""How long the first of a batch waits for others: what a batch costs is then shared by all of them."""
KEEP_SECONDS: Final = 60.0
"""How long a batch is tried before it is dropped: a failover takes less, and what takes longer shows as drops."""
RETRY_SECONDS_FIRST: Final = 0.5
RETRY_SECONDS_MAX: Final = 5.0
STATEMENT_SECONDS_MAX: Final = 10.0
CONNECTION_SECONDS_MAX: Final = 5.0
POOL_SIZE_MAX: Final = 2
"""One connection writes; one prunes."""

_log: Final = logging.getLogger(__name__)

# An arrival has a trace id of its own. The index on received_at finds the few rows of that moment.
_IS_WRITTEN: Final = "SELECT EXISTS (SELECT FROM event_log WHERE received_at = $1 AND trace_id = $2)"

# Rows that another replica is deleting are skipped, not waited for: all of them prune, and none is in another's way.
_PRUNE: Final = """
WITH expired AS (
    SELECT arrival_id FROM event_log
    WHERE received_at < now() - $2::interval
    ORDER BY received_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM event_log USING expired WHERE event_log.arrival_id = expired.arrival_id RETURNING 1
)
SELECT count(*) FROM deleted
"""


class PostgresEventLog:
    """`ports.EventLog` in the table `event_log`. `on_written` and `on_dropped` are told how many arrivals it was."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        retention_days: float,
        on_written: Callable[[int], object] = lambda _: None,
        on_dropped: Callable[[int], object] = lambda _: None,
        queue_max: int = QUEUE_ARRIVALS_MAX,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self._pool = pool
        self._retention = timedelta(days=retention_days)
        self._on_written = on_written
        self._on_dropped = on_dropped
        self._queue_max = queue_max
        self._keep_seconds = keep_seconds
        self._waiting: deque[Arrival] = deque()
        self._in_hand: Sequence[Arrival] = ()
        self._some_wait = asyncio.Event()
        self._closing = asyncio.Event()
        self._failing = False
        self._task = asyncio.create_task(self._run(), name="event-log")

    @classmethod
    async def open(
        cls,
        database_url: str,
        *,
        retention_days: float,
        on_written: Callable[[int], object] = lambda _: None,
        on_dropped: Callable[[int], object] = lambda _: None,
        queue_max: int = QUEUE_ARRIVALS_MAX,
        keep_seconds: float = KEEP_SECONDS,
    ) -> Self:
        """A log with a pool of its own: what the database does to it, no claim of a delivery waits for.

        Nothing is dialled yet. Commits are not waited for: a crashed server forgets the last moment of a log that is
        best effort anyway.
        """
        pool = await asyncpg.create_pool(
            database_url,
            min_size=0,
            max_size=POOL_SIZE_MAX,
            timeout=CONNECTION_SECONDS_MAX,
            command_timeout=STATEMENT_SECONDS_MAX,
            server_settings={
                "application_name": "stripe-ingest event log",
                "synchronous_commit": "off",
                # The server's own, for when we are not there any more to cancel it.
                "statement_timeout": str(int(STATEMENT_SECONDS_MAX * 1000)),
                "lock_timeout": str(int(STATEMENT_SECONDS_MAX * 1000)),
            },
        )
        return cls(
            pool,
            retention_days=retention_days,
            on_written=on_written,
            on_dropped=on_dropped,
            queue_max=queue_max,
            keep_seconds=keep_seconds,
        )

    def note(self, arrival: Arrival) -> None:
        """See `EventLog.note`."""
        if len(self._waiting) >= self._queue_max or self._closing.is_set():
            self._on_dropped(1)
            return
        self._waiting.append(arrival)
        if len(self._waiting) == 1:
            self._some_wait.set()

    async def prune(self, limit: int) -> int:
        """Delete at most so many rows that are past the retention; say how many. Raises `StoreUnavailable`."""
        try:
            async with self._pool.acquire(timeout=CONNECTION_SECONDS_MAX) as connection:
                deleted: int = await connection.fetchval(_PRUNE, limit, self._retention)
        except _FAILURES as error:
            raise StoreUnavailable(f"the event log cannot be pruned: {_named(error)}") from None
        return deleted

    async def close(self, *, timeout_seconds: float) -> None:
        """Take nothing new, and write what waits, for so long at most; the rest is dropped."""
        self._closing.set()
        self._some_wait.set()
        await asyncio.wait([self._task], timeout=timeout_seconds)
        self._task.cancel()
        # Before who uses it has ended: to give a connection back it would ask a server that has fallen silent.
        self._pool.terminate()
        await asyncio.gather(self._task, return_exceptions=True)
        if left := len(self._in_hand) + len(self._waiting):
            self._on_dropped(left)
            # Nobody comes for the metrics of a process that ends.
            _log.warning("event_log.dropped_at_the_end", extra={"arrivals": left})
        self._in_hand = ()
        self._waiting.clear()

    async def _run(self) -> None:
        while self._waiting or not self._closing.is_set():
            await self._some_wait.wait()
            await self._pause(GATHER_SECONDS)
            self._some_wait.clear()
            # What comes while these are written gathers for the next round.
            for _ in range(-(-len(self._waiting) // BATCH_ARRIVALS_MAX)):
                self._in_hand = [self._waiting.popleft() for _ in range(min(BATCH_ARRIVALS_MAX, len(self._waiting)))]
                await self._work_off(self._in_hand)
                self._in_hand = ()
            if self._waiting:
                self._some_wait.set()

    async def _work_off(self, batch: Sequence[Arrival]) -> None:
        """Write a batch, however often that has to be tried, or drop it when its time is over."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._keep_seconds
        delay = RETRY_SECONDS_FIRST
        again = False
        while not await self._written(batch, again=again):
            again = True
            if self._closing.is_set() or loop.time() + delay > give_up_at:
                self._on_dropped(len(batch))
                return
            await self._pause(delay)
            delay = min(2 * delay, RETRY_SECONDS_MAX)
        self._on_written(len(batch))

    async def _written(self, batch: Sequence[Arrival], *, again: bool) -> bool:
        """Whether the table has the batch now: all of it, as it is one statement, or none."""
        try:
            async with self._pool.acquire(timeout=CONNECTION_SECONDS_MAX) as connection:
                # A connection that broke may have been about to say that it was done. Written twice, a delivery
                # would look like one that Stripe has sent twice.
                first = batch[0]
                if not again or not await connection.fetchval(_IS_WRITTEN, first.received_at, first.trace_id):
                    await connection.copy_records_to_table("event_log", records=batch, columns=Arrival._fields)
        except Exception as error:  # noqa: BLE001 -- one that ended this task would end the log, and nobody would notice
            if not self._failing:
                _log.warning("event_log.not_written", extra={"reason": _named(error)})
            self._failing = True
            return False
        if self._failing:
            _log.warning("event_log.written_again")
        self._failing = False
        return True

    async def _pause(self, seconds: float) -> None:
        """Wait, unless all is to end: then there is no time to lose."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)


_FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


def _named(error: Exception) -> str:
    """What failed, without the driver's message, which may quote a row."""
    sqlstate = getattr(error, "sqlstate", None)
    return type(error).__name__ if sqlstate is None else f"SQLSTATE {sqlstate}"
