"""Several processes on one port: each is told what its master is told, and the master outlives them all."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.receiver.workers import RESTART_SECONDS, Workers

PROGRAM = """
import signal, structlog, sys
from service.errors import ConfigurationError
from service.receiver.workers import Workers

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

def serve(index):
    if index == 1:
        open(sys.argv[1]).close()  # a pipe: until somebody writes
        raise ConfigurationError("no")
    # Held back from here on, so that none comes between two lines.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print("serves", flush=True)
    signal.sigwait({signal.SIGTERM})
    print("drains", flush=True)
    sys.stdin.read()
    print("drained", flush=True)

try:
    Workers(2, serve).run()
except ConfigurationError as refused:
    print("raises", flush=True)
"""


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_a_configuration_that_one_refuses_ends_it_once_the_others_have_drained(tmp_path: Path) -> None:
    refuses = tmp_path / "refuses"
    os.mkfifo(refuses)
    async with program(str(refuses)) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        async def says() -> str:
            assert process.stdout is not None
            return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()

        assert await says() == "serves"
        await asyncio.wait_for(asyncio.to_thread(refuses.write_bytes, b""), 20)
        assert await says() == "drains"
        process.stdin.close()
        assert [await says(), await says()] == ["drained", "raises"]
        assert await asyncio.wait_for(process.wait(), 20) == 0


def test_no_worker_is_started_by_a_stop_that_comes_just_before_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(1, lambda _: None)
    mask = signal.pthread_sigmask

    def stopped_before(how: int, numbers: tuple[signal.Signals, ...]) -> object:
        if how == signal.SIG_BLOCK:  # Python calls the handler of what has come by then
            workers._stop(signal.SIGTERM, None)
        return mask(how, numbers)

    def fork() -> int:
        pytest.fail("it is forked all the same")

    monkeypatch.setattr(signal, "pthread_sigmask", stopped_before)
    monkeypatch.setattr(os, "fork", fork)

    workers._start(0)

    assert not mask(signal.SIG_BLOCK, ())


def test_a_worker_for_which_there_is_no_room_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(1, lambda _: None)
    slept: list[float] = []

    def fork() -> int:
        if not slept:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return 4711

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr("time.sleep", slept.append)

    with capture_logs() as lines:
        workers._start(0)

    assert workers._pids == {4711: 0}
    assert slept == [RESTART_SECONDS]
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("worker.not_started", "Resource temporarily unavailable")
    ]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
