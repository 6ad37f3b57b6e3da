"""More facts on the rows: fees, disputes, pauses, pending updates, totals."""

from service.sql.statements import run_file

revision = "0003_more_facts"
down_revision: str | None = "0002_dedupe_claims"


def upgrade() -> None:
    """Add them."""
    run_file("0003_more_facts.sql")
