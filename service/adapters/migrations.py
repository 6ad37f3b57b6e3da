"""Brings a database's schema up to date; the one place that knows Alembic, SQLAlchemy and psycopg."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

VERSION_TABLE: Final = "stripe_ingest_version"
"""Not Alembic's default: the database may be an application's own, with migrations of its own."""

LOCK_WAIT_SECONDS: Final = 120
"""How long a replica waits for the one that migrates; longer, and it gives up rather than hang."""

_ADVISORY_LOCK: Final = 0x73747269_70656D69
_SCRIPTS: Final = Path(__file__).parents[1] / "sql" / "migrations"


@dataclass(frozen=True, slots=True)
class MigrationResult:
    """What `migrate` did. `before` is None for an empty database; `applied` is in order, empty when up to date."""

    before: str | None
    after: str
    applied: tuple[str, ...]


def migrate(database_url: str) -> MigrationResult:
    """Apply all pending migrations in one transaction. Blocking: call it in a thread where a loop runs.

    Several replicas may do so at once: one migrates, the others wait for it and find nothing to do.
    Raises SQLAlchemy's `OperationalError` when the database is away or the wait for the other takes too long.
    """
    with _transaction(database_url) as connection:
        # Transaction-scoped, so that neither a crash nor a connection pool in between can leave it locked.
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        before = _version(connection)
        applied = _pending(before)
        if applied:
            command.upgrade(_config(connection), "head")
        after = _version(connection)
    if after is None:
        raise RuntimeError("the migrations have left no version behind")
    return MigrationResult(before, after, applied)


def pending(database_url: str) -> tuple[str, ...]:
    """Say which migrations the database lacks, in order. Blocking; changes nothing."""
    with _transaction(database_url) as connection:
        return _pending(_version(connection))


@contextmanager
def _transaction(database_url: str) -> Iterator[Connection]:
    engine = create_engine(
        make_url(database_url).set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        connect_args={"connect_timeout": 10, "application_name": "stripe-ingest migrate"},
    )
    with engine.begin() as connection:
        yield connection


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def _version(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _pending(version: str | None) -> tuple[str, ...]:
    scripts = ScriptDirectory.from_config(_config())
    newest_first = scripts.iterate_revisions("head", version or "base")
    return tuple(script.revision for script in newest_first)[::-1]
