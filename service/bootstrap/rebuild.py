"""Composition of a rebuild."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.adapters.postgres_rebuild import PostgresRebuild
from service.config import Config
from service.projections import PROJECTIONS
from service.records import Topics


@asynccontextmanager
async def rebuild_store(config: Config, name: str, *, dry_run: bool) -> AsyncIterator[PostgresRebuild]:
    """A projection's tables, to be compared with their ledger and corrected, inside the block."""
    store = await PostgresRebuild.open(
        config.database_url,
        PROJECTIONS[name],
        consumer_group=Topics(config.kafka.topic_prefix).group(name),
        dry_run=dry_run,
    )
    try:
        yield store
    finally:
        await store.close()
