"""What many inputs came to: counts, CPU time by size, the worst, and every kind of fault with one input that shows it."""

import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

from service.events import Delivery
from service.redaction import Redaction
from tests.fuzz.target import settle

FAULTS_MAX: Final = 50


@dataclass(slots=True)
class Sizes:
    """CPU time of all inputs of about one size."""

    inputs: int = 0
    size_bytes: int = 0
    cpu_ns: int = 0
    worst_ns: int = 0


@dataclass(slots=True)
class Worst:
    """The input that took longest."""

    cpu_ns: int = -1
    kind: str = ""
    outcome: str = ""
    body: bytes = b""


@dataclass(slots=True)
class Tally:
    """Runs inputs and keeps count. Tallies of several processes add up."""

    inputs: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    unstorable: int = 0
    sizes: defaultdict[int, Sizes] = field(default_factory=lambda: defaultdict(Sizes))
    worst: Worst = field(default_factory=Worst)
    faults: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    """Where it was raised → how often, its traceback, the smallest body that did it."""

    def run(self, kind: str, delivery: Delivery, redaction: Redaction | None = None) -> None:
        """Take one delivery through the path; whatever comes out is noted."""
        size = len(delivery.body)
        self.inputs[kind] += 1
        try:
            outcome = settle(delivery, redaction)
        except Exception as error:  # noqa: BLE001 - this is the one place that must survive every fault
            self._fault(error, delivery.body)
            return
        self.outcomes[outcome.kind, outcome.detail] += 1
        self.unstorable += outcome.unstorable
        sizes = self.sizes[size.bit_length()]
        sizes.inputs += 1
        sizes.size_bytes += size
        sizes.cpu_ns += outcome.cpu_ns
        sizes.worst_ns = max(sizes.worst_ns, outcome.cpu_ns)
        if outcome.cpu_ns > self.worst.cpu_ns:
            self.worst = Worst(outcome.cpu_ns, kind, f"{outcome.kind} {outcome.detail}", delivery.body)

    def add(self, other: "Tally") -> None:
        """Take another's counts in."""
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.unstorable += other.unstorable
        for bits, theirs in other.sizes.items():
            ours = self.sizes[bits]
            ours.inputs += theirs.inputs
            ours.size_bytes += theirs.size_bytes
            ours.cpu_ns += theirs.cpu_ns
            ours.worst_ns = max(ours.worst_ns, theirs.worst_ns)
        self.worst = max(self.worst, other.worst, key=lambda worst: worst.cpu_ns)
        for where, (times, text, body) in other.faults.items():
            self._keep(where, times, text, body)

    def _fault(self, error: Exception, body: bytes) -> None:
        where = f"{traceback.extract_tb(error.__traceback__)[-1].name}: {type(error).__name__}: {error}"[:200]
        self._keep(where, 1, "".join(traceback.format_exception(error)), body)

    def _keep(self, where: str, times: int, text: str, body: bytes) -> None:
        if where in self.faults:
            before, old_text, old_body = self.faults[where]
            kept = (text, body) if len(body) < len(old_body) else (old_text, old_body)
            self.faults[where] = (before + times, *kept)
        elif len(self.faults) < FAULTS_MAX:
            self.faults[where] = (times, text, body)
