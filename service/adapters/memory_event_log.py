"""The event log in memory: the twin of the Postgres one under the same contract tests."""

from service.events import Arrival


class MemoryEventLog:
    """`ports.EventLog` in memory."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []

    def note(self, arrival: Arrival) -> None:
        """See `EventLog.note`."""
        self.arrivals.append(arrival)
