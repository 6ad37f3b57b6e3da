"""SIGHUP: by somebody's hand it means "again", of a closed terminal the end."""

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

PROGRAM = """
import asyncio, os, resource, signal, sys
from service.hangup import hangups

# Not as it was inherited: the tests themselves may run under `nohup`.
signal.signal(signal.SIGHUP, signal.SIG_IGN if "ignored" in sys.argv else signal.SIG_DFL)
if "terminal" in sys.argv:
    os.open(os.ttyname(0), os.O_RDWR)  # the first one that the leader of a session opens becomes its own

async def main():
    ended = asyncio.Event()
    def say(what):
        print(what, flush=True)
        if what == "end":
            ended.set()
    if "full" in sys.argv:
        asyncio.get_running_loop().call_soon(resource.setrlimit, resource.RLIMIT_NOFILE, (3, 3))
    with hangups(again=lambda: say("again"), end=lambda: say("end")):
        await asyncio.sleep(0)
        say("ready")
        await ended.wait()

asyncio.run(main())
"""


class Program:
    """A process that says what a SIGHUP means to it."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self.process = process
        self._terminal: int | None = terminal

    async def says(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 10)).decode().strip()

    def close_terminal(self) -> None:
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Program]:
    outer, inner = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments,
        stdin=inner, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    os.close(inner)
    running = Program(process, outer)
    try:
        assert await running.says() == "ready"
        yield running
    finally:
        running.close_terminal()
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("arguments", [("terminal",), ("terminal", "ignored"), ("terminal", "full"), ()])
async def test_by_hand_it_means_again(arguments: tuple[str, ...]) -> None:
    async with program(*arguments) as running:
        for _ in range(2):
            running.process.send_signal(signal.SIGHUP)
            assert await running.says() == "again"


async def test_of_a_closed_terminal_it_means_the_end() -> None:
    async with program("terminal") as running:
        running.close_terminal()

        assert await running.says() == "end"
        assert await asyncio.wait_for(running.process.wait(), 10) == 0


async def test_what_is_to_outlive_its_terminal_does() -> None:
    async with program("terminal", "ignored") as running:
        running.close_terminal()

        assert await running.says() == "again"
        running.process.send_signal(signal.SIGHUP)
        assert await running.says() == "again"


async def test_one_that_comes_before_anybody_minds_it_ends_nothing() -> None:
    starting = (
        "import signal, sys; from service.hangup import unheeded_at_first;"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); unheeded_at_first();"
        "print('ready', flush=True); sys.stdin.readline(); print('alive', flush=True)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", starting, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGHUP)
            process.stdin.write(b"\n")
            assert await process.stdout.readline() == b"alive\n"
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
