"""Rows, ledger and object states of the catalog: products and prices."""

from service.sql.statements import run_file

revision = "0004_catalog"
down_revision: str | None = "0003_more_facts"


def upgrade() -> None:
    """Create them."""
    run_file("0004_catalog.sql")
