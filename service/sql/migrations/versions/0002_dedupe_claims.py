"""What is published, or being published: the shared dedupe store."""

from service.sql.statements import run_file

revision = "0002_dedupe_claims"
down_revision: str | None = "0001_projections"


def upgrade() -> None:
    """Create it."""
    run_file("0002_dedupe_claims.sql")
