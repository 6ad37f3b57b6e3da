"""The event log: every time that a verified body of Stripe's came, and what became of it."""

from service.sql.statements import run_file

revision = "0006_event_log"
down_revision: str | None = "0005_recovery_jobs"


def upgrade() -> None:
    """Make its table."""
    run_file("0006_event_log.sql")
