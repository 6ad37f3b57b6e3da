"""How far jobs are that recover events, and whose they are."""

from service.sql.statements import run_file

revision = "0005_recovery_jobs"
down_revision: str | None = "0004_catalog"


def upgrade() -> None:
    """Make their table."""
    run_file("0005_recovery_jobs.sql")
