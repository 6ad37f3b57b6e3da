"""The system's clock, behind the `Clock` port."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Wall clock in UTC and the monotonic clock."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds from an arbitrary point, never going back."""
        return time.monotonic()
