"""Runs of many seeds, in this process or in several."""

import gc
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from tests.simulation.checker import CLASSES
from tests.simulation.faults import Fault
from tests.simulation.world import Outcome, play

CHUNK: Final = 20
"""Seeds that are handed to a process at once."""
FAILING_KEPT: Final = 20


@dataclass(slots=True)
class Tally:
    """What many histories came to."""

    histories: int = 0
    events: int = 0
    attempts: int = 0
    records: int = 0
    doubled_records: int = 0
    virtual_seconds: float = 0.0
    faults: Counter[Fault] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(CLASSES, 0)))
    """Class → histories in which it was found."""
    failing: list[tuple[int, str]] = field(default_factory=list)
    """Seeds, with the first finding of each."""

    def count(self, outcome: Outcome) -> None:
        """Count one history."""
        self.histories += 1
        self.events += outcome.events
        self.attempts += outcome.attempts
        self.records += outcome.records
        self.doubled_records += outcome.doubled_records
        self.virtual_seconds += outcome.virtual_seconds
        self.faults.update(outcome.faults)
        for name, found in outcome.findings.items():
            self.classes[name] += 1
            if len(self.failing) < FAILING_KEPT:
                self.failing.append((outcome.seed, f"{name}: {found[0]}"))

    def add(self, other: "Tally") -> None:
        """Count those that another process has played."""
        self.histories += other.histories
        self.events += other.events
        self.attempts += other.attempts
        self.records += other.records
        self.doubled_records += other.doubled_records
        self.virtual_seconds += other.virtual_seconds
        self.faults.update(other.faults)
        self.classes.update(other.classes)
        self.failing = sorted(self.failing + other.failing)[:FAILING_KEPT]


def play_all(seeds: Sequence[int]) -> Tally:
    """Play the seeds one after the other; a failure of the simulation itself is a failing seed as well."""
    tally = Tally()
    for seed in seeds:
        try:
            tally.count(play(seed))
        except Exception as failure:  # noqa: BLE001 - reported with its seed, and the others go on
            where = traceback.extract_tb(failure.__traceback__)[-1]
            tally.histories += 1
            tally.classes["unbounded"] += 1
            tally.failing.append((seed, f"the history broke off: {failure!r} in {where.name}, line {where.lineno}"))
    return tally


def _prepare() -> None:
    # A history makes and drops a few hundred thousand small objects; what was imported need not be looked at again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def play_in_processes(seeds: range, *, processes: int, advanced: Callable[[Tally], None]) -> Tally:
    """Play the seeds in several processes; `advanced` is told all that is counted so far."""
    tally = Tally()
    chunks = _chunks(seeds)
    with ProcessPoolExecutor(processes, initializer=_prepare) as pool:
        under_way: set[Future[Tally]] = {pool.submit(play_all, chunk) for chunk in islice(chunks, 2 * processes)}
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for each in done:
                tally.add(each.result())
            under_way |= {pool.submit(play_all, chunk) for chunk in islice(chunks, len(done))}
            advanced(tally)
    return tally


def _chunks(seeds: range) -> Iterator[Sequence[int]]:
    for begin in range(0, len(seeds), CHUNK):
        yield seeds[begin : begin + CHUNK]
