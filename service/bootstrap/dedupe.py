"""Composition of the dedupe store, with its upkeep."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.adapters.dedupe_postgres import PostgresDedupeStore
from service.clock import SystemClock
from service.config import Config
from service.errors import ConfigurationError, DedupeUnavailable
from service.ports import DedupeStore
from service.telemetry.traces import traced

if TYPE_CHECKING:
    from service.adapters.dedupe_redis import RedisDedupeStore

DEDUPE_MEMORY_ENTRIES_MAX: Final = 1_000_000
PRUNE_INTERVAL_SECONDS: Final = 60.0
PRUNE_BATCH: Final = 5_000
EVICTION_RETRY_SECONDS: Final = 60.0

_log: Final = structlog.get_logger("service.process")


def check_dedupe(config: Config) -> None:
    """Raise `ConfigurationError` where the dedupe store's URL is missing or wrong, or its driver is."""
    if _is_redis(config.dedupe_url):
        _redis_dedupe_store(config)


@asynccontextmanager
async def dedupe_store(config: Config) -> AsyncIterator[DedupeStore]:
    """The configured store, kept in order, inside the block."""
    if config.dedupe_url.startswith("memory:"):
        yield MemoryDedupeStore(
            SystemClock(),
            retention_seconds=config.dedupe.retention_days * 86_400,
            max_entries=DEDUPE_MEMORY_ENTRIES_MAX,
        )
        return
    store: RedisDedupeStore | PostgresDedupeStore
    if _is_redis(config.dedupe_url):
        store = _redis_dedupe_store(config)
        upkeep = asyncio.create_task(_warn_of_eviction(store), name="dedupe-eviction")
    else:
        store = await PostgresDedupeStore.connect(config.dedupe_url, retention_days=config.dedupe.retention_days)
        upkeep = asyncio.create_task(_prune(store), name="dedupe-prune")
    try:
        yield store
    finally:
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)
        try:
            await store.close()
        except Exception as error:  # noqa: BLE001 -- nothing is lost by it, and what closes after it must be closed
            _log.error("dedupe.unforeseen", operation="close", **traced(error))


def _is_redis(url: str) -> bool:
    return url.startswith(("redis:", "rediss:"))


def _redis_dedupe_store(config: Config) -> "RedisDedupeStore":
    """A store whose keys begin with the topics' prefix, as what they mark is on those topics."""
    try:
        from service.adapters.dedupe_redis import RedisDedupeStore  # noqa: PLC0415 -- its driver is an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"redis", "hiredis"}:
            raise
        raise ConfigurationError(
            'dedupe.url: redis:// needs a driver that is not installed: pip install "stripe-ingest[redis]"'
        ) from None
    return RedisDedupeStore.at(
        config.dedupe_url, key_prefix=config.kafka.topic_prefix, retention_days=config.dedupe.retention_days
    )


async def _warn_of_eviction(store: "RedisDedupeStore") -> None:
    """Say once, when the server first answers, that it may forget. That costs duplicates: no reason to be unready."""
    while True:
        try:
            policy = await store.evicting_policy()
        except Exception as error:  # noqa: BLE001 -- whatever it is, deliveries are received all the same
            if not isinstance(error, DedupeUnavailable):
                _log.error("dedupe.unforeseen", operation="upkeep", **traced(error))
            await asyncio.sleep(EVICTION_RETRY_SECONDS)
            continue
        if policy is not None:
            _log.warning("dedupe.may_forget", maxmemory_policy=policy, recommended="noeviction")
        return


async def _prune(store: PostgresDedupeStore) -> None:
    """Forget what is past its retention, in small batches, for as long as the process runs."""
    while True:
        await asyncio.sleep(PRUNE_INTERVAL_SECONDS)
        try:
            async with asyncio.timeout(PRUNE_INTERVAL_SECONDS):
                while await store.prune(PRUNE_BATCH) == PRUNE_BATCH:
                    pass
        except (DedupeUnavailable, TimeoutError) as error:
            _log.warning("dedupe.prune_failed", reason=str(error))
        except Exception as error:  # noqa: BLE001 -- the next run may go well; without any, the table grows for ever
            _log.error("dedupe.unforeseen", operation="prune", **traced(error))
