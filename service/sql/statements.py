"""What a migration's version module needs: `run_file` runs one of the plain SQL files beside it.

A version module is `revision`, `down_revision` and an `upgrade()` that calls `run_file`. There is no way down: a
migration that turned out wrong is put right by the next one.
"""

from pathlib import Path
from typing import Final

from alembic import op

_SQL: Final = Path(__file__).parent / "migrations" / "sql"


def run_file(name: str) -> None:
    """Run a file of `migrations/sql`, all its statements, in the migration's transaction."""
    statements = (_SQL / name).read_text(encoding="utf-8")
    # No parameters at all: with an empty list of them the driver would look for placeholders, and run one statement.
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(statements)
