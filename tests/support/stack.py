"""Real servers for the tests: one Kafka, one Postgres and one Redis per session, started when first asked for."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

from service.adapters.migrations import migrate
from service.local.kafka import LocalKafka
from service.local.postgres import LocalPostgres
from service.local.redis import LocalRedis
from service.local.server import LocalServer

__all__ = ["LocalKafka", "LocalPostgres", "LocalRedis", "database", "make_template", "running"]

Server = TypeVar("Server", bound=LocalServer)

# The tests kill the server, never the machine: what was written is in the page cache, and fsync would only cost time.
POSTGRES_TEST_SETTINGS = {"fsync": "off", "full_page_writes": "off"}

EMPTY_TEMPLATE = "template0"
MIGRATED_TEMPLATE = "migrated"


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    """The server, running inside the block and stopped after it, whatever happened in between."""
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def make_template(postgres: LocalPostgres) -> None:
    """Migrate once; each test's database is a copy of this one."""
    await _administer(postgres, f'CREATE DATABASE "{MIGRATED_TEMPLATE}"')
    await asyncio.to_thread(migrate, postgres.url_of(MIGRATED_TEMPLATE))


@asynccontextmanager
async def database(postgres: LocalPostgres, template: str) -> AsyncIterator[str]:
    """The URL of a new copy of the template, dropped at the end, whoever is still connected to it."""
    name = f"test_{secrets.token_hex(6)}"
    await _administer(postgres, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
    try:
        yield postgres.url_of(name)
    finally:
        await _administer(postgres, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _administer(postgres: LocalPostgres, statement: str) -> None:
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
