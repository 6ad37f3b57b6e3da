"""Connecting to a database that may be away, or not be the one that is meant; a connection for what asks little."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from service.adapters.postgres_errors import translated
from service.errors import ConfigurationError

CALL_SECONDS_MAX: Final = 15.0


@contextmanager
def configured() -> Iterator[None]:
    """Raise `ConfigurationError` where a database answers that is not ours, or not ready for us.

    For commands and jobs: whoever called them can put it right, and to try again will not.
    """
    try:
        yield
    except asyncpg.InvalidAuthorizationSpecificationError:
        raise ConfigurationError(
            "database.url: Postgres does not let this user in, or not with this password"
        ) from None
    except asyncpg.InvalidCatalogNameError:
        raise ConfigurationError("database.url: Postgres has no database of this name") from None
    except asyncpg.InsufficientPrivilegeError:
        raise ConfigurationError("database.url: the user lacks a privilege on the database or its tables") from None
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        raise ConfigurationError(
            "database.url: the database does not have the tables of this version; `stripe-ingest migrate` makes them"
        ) from None


class OccasionalConnection:
    """One connection, made on first use; what asks little, and seldom, shares it: jobs, and what they look for.

    What fails on it comes out as `StoreUnavailable`, `RowRefused` or `ConfigurationError`.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    @classmethod
    async def open(cls, database_url: str) -> Self:
        """Nothing is dialled yet: the database may be away now."""
        pool = await asyncpg.create_pool(
            database_url,
            min_size=0,
            max_size=1,
            timeout=CALL_SECONDS_MAX,
            command_timeout=CALL_SECONDS_MAX,
            server_settings={"application_name": "stripe-ingest jobs"},
        )
        return cls(pool)

    @asynccontextmanager
    async def _connection(self) -> "AsyncIterator[PoolConnectionProxy[asyncpg.Record]]":
        with configured(), translated():
            async with self._pool.acquire(timeout=CALL_SECONDS_MAX) as connection:
                yield connection

    async def close(self) -> None:
        """Give back the connection, by force where it is in use."""
        self._pool.terminate()
