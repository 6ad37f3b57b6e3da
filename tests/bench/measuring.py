"""What both benchmarks measure with: CPU time, medians with quartiles, servers and processes of their own."""

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tests.support.stack import LocalKafka, LocalPostgres, LocalRedis, running

MICROSECONDS = 1_000_000
WIDTH_WITHOUT_TERMINAL = 110
STOP_SECONDS = 30


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used, in user and kernel mode, all its threads together; Linux only.

    This is utime + stime of `/proc/<pid>/stat`, read from the process's CPU clock (`clock_getcpuclockid`): the file
    counts in hundredths of a second, which is several per cent of a short run.
    """
    return time.clock_gettime((~pid << 3) | 2)


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def shown(self, digits: int = 0) -> str:
        """The median, and the quartiles where there is enough to tell them."""
        middle = f"{self.median:,.{digits}f}"
        if len(self.values) < 2:
            return middle
        lower, _, upper = statistics.quantiles(self.values, n=4, method="inclusive")
        return f"{middle} [{lower:,.{digits}f}-{upper:,.{digits}f}]"


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@dataclass(frozen=True, slots=True)
class Servers:
    """A Kafka, a Postgres and a Redis as the service's own, on this machine; `folder` is thrown away at the end."""

    folder: Path
    kafka: LocalKafka
    postgres: LocalPostgres
    redis: LocalRedis


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """The servers with their production settings: Postgres waits for the disk at every commit, Redis each second."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stripe-ingest-bench-")))
        kafka = await stack.enter_async_context(running(LocalKafka(folder / "kafka")))
        postgres = await stack.enter_async_context(running(LocalPostgres(folder / "postgres")))
        redis = await stack.enter_async_context(running(LocalRedis(folder / "redis")))
        yield Servers(folder, kafka, postgres, redis)


@asynccontextmanager
async def process(*arguments: str, env: dict[str, str], log: Path) -> AsyncIterator[int]:
    """A Python process that logs to a file; its pid. Stopped at the end of the block."""
    with log.open("wb") as stderr:
        started = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=env, stderr=stderr)
    try:
        yield started.pid
    finally:
        if started.returncode is None:
            started.terminate()
            try:
                await asyncio.wait_for(started.wait(), STOP_SECONDS)
            except TimeoutError:
                started.kill()
                await started.wait()


def machine() -> str:
    """What it was measured on."""
    return f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}"


def console() -> Console:
    """Standard output; where it is no terminal, wide enough for whole rows."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def say(*lines: str) -> None:
    """Lines below a table."""
    for line in lines:
        console().print(line, markup=False, highlight=False, soft_wrap=True)
