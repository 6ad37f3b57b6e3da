"""What happened: every attempt and its answer, every publishing and append, every effect.

The checker reads nothing else but this, the log and the tables.
"""

import hashlib
from asyncio.events import AbstractEventLoop
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from service.events import ClaimKey, Position, Record

PublishOutcome: TypeAlias = Literal["unknown", "acknowledged", "refused"]


@dataclass(slots=True)
class Attempt:
    """One HTTP attempt of anybody's. `ended` is when the receiver had its answer ready, None where it never had."""

    number: int
    event_id: str
    endpoint: str
    genuine: bool
    body: bytes = field(repr=False)
    begun: float
    receiver: str | None = None
    reached: float | None = None
    receiver_died: bool = False
    cancelled: bool = False
    ended: float | None = None
    status: int | None = None
    said: str | None = None


@dataclass(slots=True)
class Publishing:
    """One call of a publisher, whatever came of it."""

    identity: tuple[str, str]
    """(topic, event id, or what a quarantined body goes by)."""
    endpoint: str
    mark: str
    by: str
    begun: float
    outcome: PublishOutcome = "unknown"
    appended: list[tuple[float, Position]] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """The record of one run. `lines` is for people, and what a history is compared by."""

    loop: AbstractEventLoop
    lines: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    publishings: list[Publishing] = field(default_factory=list)
    confirms: list[tuple[ClaimKey, float]] = field(default_factory=list)
    """What the dedupe store was told is done, and when."""
    forgot: list[float] = field(default_factory=list)
    """When the dedupe store lost writes."""
    stolen: list[str] = field(default_factory=list)
    """Leases that were released by who did not hold them: nothing kept a third from publishing once more."""
    frozen: defaultdict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Process → from when until when it stood still."""
    regressions: list[str] = field(default_factory=list)
    double_effects: list[str] = field(default_factory=list)
    overdue: list[str] = field(default_factory=list)
    """What should have ended by then, and had not."""
    given_up: dict[str, float] = field(default_factory=dict)
    """Event id → when Stripe made its last attempt in vain."""
    planted_records: set[Position] = field(default_factory=set)
    """Records that the world itself has put into topics: poison."""
    tally: Counter[str] = field(default_factory=Counter)

    def tell(self, who: str, what: str) -> None:
        """One line."""
        self.lines.append(f"{self.loop.time():>12.3f}  {who:<14} {what}")

    def stand_still(self, process: str, seconds: float) -> None:
        """A process stands still from now on."""
        self.frozen[process].append((self.loop.time(), self.loop.time() + seconds))

    def stood_still(self, process: str | None, begin: float, end: float) -> float:
        """For how many seconds of this time, at most, a process did not run."""
        times = self.frozen[process] if process is not None else ()
        return sum(max(0.0, min(until, end) - max(since, begin)) for since, until in times)

    def digest(self) -> str:
        """What two runs of one seed must have in common."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    def by_identity(self) -> dict[tuple[str, str], list[Publishing]]:
        """The publishings that came to a record, in the order of their begin."""
        found: defaultdict[tuple[str, str], list[Publishing]] = defaultdict(list)
        for publishing in self.publishings:
            if publishing.appended:
                found[publishing.identity].append(publishing)
        return found


def identity_of(record: Record) -> tuple[str, str]:
    """What a record is about: for a data record its event id."""
    headers = dict(record.headers)
    name = headers.get("ce_id")
    return record.topic, (record.key if name is None else name).decode()
