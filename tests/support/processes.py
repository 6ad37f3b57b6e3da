"""`stripe-ingest …` as processes of their own."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

RUN_SECONDS_MAX = 90.0
"""For a command that comes to its end by itself, on a busy machine."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> Sequence[Any]:
        """Its JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def listed(self) -> Sequence[Any]:
        """What it has told of, a line each, before it summed up."""
        return self.lines[:-1]

    @property
    def summary(self) -> Any:
        """Its last line."""
        return self.lines[-1]


@dataclass(frozen=True)
class CommandLine:
    """`stripe-ingest` with these variables, and nothing else of this process's environment but PATH."""

    environment: Mapping[str, str]

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Begin one; its output is to be read."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", *arguments, env={"PATH": os.environ["PATH"], **self.environment},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """One that is killed at the end of the block where it still runs."""
        process = await self.start(*arguments)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def run(self, *arguments: str) -> Ended:
        """Run one to its end."""
        async with self.running(*arguments) as process:
            return await ended(process)


async def ended(process: asyncio.subprocess.Process, told: bytes = b"") -> Ended:
    """Wait for its end; `told` is what was read of its output before."""
    async with asyncio.timeout(RUN_SECONDS_MAX):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, (told + out).decode(), err.decode())
