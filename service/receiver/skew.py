"""The clock, as Stripe's signatures show it: what is rightly signed but refused for its time says that one is wrong."""

from typing import Final

import structlog

from service.telemetry.metrics import ReceiverMetrics
from service.telemetry.seldom import Seldom

REFUSED_IN_A_ROW: Final = 3
"""One may be a replay; so many in the same direction, with nothing accepted in between, are a clock."""

_log: Final = structlog.get_logger("service.receiver")


class SkewWatch:
    """Measures, and warns. Skews are seconds: when a delivery says it was signed, minus now.

    Only of deliveries whose signature is right: anybody can send a timestamp.
    """

    def __init__(self, metrics: ReceiverMetrics, *, seldom: Seldom | None = None) -> None:
        self._metrics = metrics
        self._seldom = seldom or Seldom()
        self._refused = 0
        """In a row; below zero: signed in our past."""

    def accepted(self, endpoint: str, skew_seconds: float) -> None:
        """A delivery was within the tolerance."""
        self._metrics.skew_measured(endpoint, skew_seconds)
        self._refused = 0

    def refused(self, endpoint: str, skew_seconds: float) -> None:
        """A delivery was outside the tolerance."""
        self._metrics.skew_measured(endpoint, skew_seconds)
        step = 1 if skew_seconds > 0 else -1
        self._refused = self._refused + step if self._refused * step > 0 else step
        if abs(self._refused) >= REFUSED_IN_A_ROW and self._seldom.due() is not None:
            side = "ahead of" if step > 0 else "behind"
            _log.warning(
                "clock.skewed",
                endpoint=endpoint,
                skew_seconds=round(skew_seconds, 3),
                in_a_row=abs(self._refused),
                detail=f"rightly signed deliveries are refused, since their time is {side} this machine's clock: "
                "set the clock right (NTP). Stripe sends them again for three days.",
            )
