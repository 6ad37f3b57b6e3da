"""A bound on how often one thing is said."""

import time
from collections.abc import Callable


class Seldom:
    """Lets one message through in `seconds`, and counts those in between."""

    def __init__(self, seconds: float = 60.0, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._due = float("-inf")
        self._unsaid = 0

    def due(self) -> int | None:
        """How many were not said since the last that was, where this one may be; else None."""
        now = self._monotonic()
        if now < self._due:
            self._unsaid += 1
            return None
        self._due = now + self._seconds
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid
