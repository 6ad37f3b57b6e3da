"""Composition of the event log, with its upkeep."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from service.adapters.postgres_event_log import PostgresEventLog
from service.config import Config
from service.errors import StoreUnavailable
from service.ports import EventLog
from service.telemetry.metrics import EventLogMetrics
from service.telemetry.traces import traced

CLOSE_SECONDS_MAX: Final = 3.0
"""For what waits at the end: beside the drain of deliveries, and shorter than what a supervisor waits."""
PRUNE_INTERVAL_SECONDS: Final = 60.0
PRUNE_BATCH: Final = 5_000

_log: Final = structlog.get_logger("service.process")


@asynccontextmanager
async def event_log(config: Config, metrics: EventLogMetrics) -> AsyncIterator[EventLog | None]:
    """The event log, kept in order, inside the block; None where there is no database for it, or nothing is kept."""
    if config.database.url is None or config.event_log.retention_days == 0:
        yield None
        return
    log = await PostgresEventLog.open(
        config.database_url,
        retention_days=config.event_log.retention_days,
        on_written=metrics.arrivals.labels("written").inc,
        on_dropped=metrics.arrivals.labels("dropped").inc,
    )
    upkeep = asyncio.create_task(_prune(log), name="event-log-prune")
    try:
        yield log
    finally:
        upkeep.cancel()
        # First the log, which takes the connection away that pruning may still have to give back.
        await log.close(timeout_seconds=CLOSE_SECONDS_MAX)
        await asyncio.gather(upkeep, return_exceptions=True)


async def _prune(log: PostgresEventLog) -> None:
    """Forget what is past its retention, in small batches, for as long as the process runs."""
    while True:
        await asyncio.sleep(PRUNE_INTERVAL_SECONDS)
        try:
            async with asyncio.timeout(PRUNE_INTERVAL_SECONDS):
                while await log.prune(PRUNE_BATCH) == PRUNE_BATCH:
                    pass
        except StoreUnavailable as error:
            _log.warning("event_log.prune_failed", reason=str(error))
        except TimeoutError:
            _log.info("event_log.prune_unfinished")  # as after a shorter retention was set; the next run goes on
        except Exception as error:  # noqa: BLE001 -- the next run may go well; without any, the table grows for ever
            _log.error("event_log.unforeseen", operation="prune", **traced(error))
