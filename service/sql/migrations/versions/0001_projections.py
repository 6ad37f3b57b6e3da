"""Rows, ledgers, object states, links and offsets of the projections."""

from service.sql.statements import run_file

revision = "0001_projections"
down_revision: str | None = None


def upgrade() -> None:
    """Create them."""
    run_file("0001_projections.sql")
