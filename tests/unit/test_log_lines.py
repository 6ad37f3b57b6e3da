"""Log lines, whoever reads them or does not: nobody waits for their writing, and they come whole and in order."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
import orjson
import pytest
import structlog
from prometheus_client import CollectorRegistry

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.clock import SystemClock
from service.events import Endpoint, Secret
from service.signature import sign
from service.telemetry.lines import LineWriter, dropped_lines
from service.telemetry.logging import configure
from service.telemetry.metrics import registry
from tests.support.receiving import ScriptedPublisher, post, receiver, serving
from tests.support.waiting import eventually

SECRET = Secret("whsec_0123456789abcdef")
LIVE = Endpoint(name="live", path="/webhooks/live", secrets=(SECRET,), mode="live")


class Pipe:
    """A pipe, with what stands in it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.writers: list[LineWriter] = []

    def writer(self, *, lines_max: int | None = None) -> LineWriter:
        self.writers.append(LineWriter(self.writing, lines_max=lines_max))
        return self.writers[-1]

    def fill(self) -> None:
        """Put so much into it that the next write waits for a reader."""
        os.set_blocking(self.writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"\n" * 4096)
        os.set_blocking(self.writing, True)

    def end(self) -> None:
        os.close(self.writing)

    def read(self) -> list[str]:
        """Everything, until its end; without what `fill` put there."""
        with os.fdopen(self.reading, "rb", closefd=False) as stream:
            lines = stream.read().decode().splitlines()
        return [line for line in lines if line]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    given = Pipe()
    yield given
    with suppress(OSError):
        os.close(given.reading)
    for writer in given.writers:
        writer.flush()  # to nobody: no thread may stand in a write when the next test gets the descriptor's number
    with suppress(OSError):
        os.close(given.writing)


@pytest.fixture
def unlogged() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("service", logging.INFO, __file__, 1, message, None, None)


def test_lines_of_several_threads_come_whole_and_each_threads_in_order(pipe: Pipe) -> None:
    writer = pipe.writer()

    def write(name: str) -> None:
        for number in range(1000):
            writer.handle(record(f"{name} {number} " + "x" * 200))

    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(pipe.read()))
    reader.start()
    writing = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in writing:
        thread.start()
    for thread in writing:
        thread.join()
    writer.flush()
    pipe.end()
    reader.join()

    for name in "ab":
        assert [line.split()[1] for line in found if line.startswith(name)] == [str(n) for n in range(1000)]
    assert len(found) == 2000
    assert writer.dropped == 0


async def test_beyond_the_bound_the_newest_are_dropped_and_counted_and_the_first_are_written(pipe: Pipe) -> None:
    pipe.fill()
    writer = pipe.writer(lines_max=10)
    writer.handle(record("the one that the thread stands with"))
    await eventually(lambda: writer._queue.qsize() == 0, what="the thread in its write")

    for number in range(100):
        writer.handle(record(f"line {number}"))

    assert writer.dropped == 90
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(pipe.read()))
    reader.start()
    await asyncio.to_thread(writer.flush)
    pipe.end()
    await asyncio.to_thread(reader.join)
    assert found == ["the one that the thread stands with", *(f"line {number}" for number in range(10))]


def test_what_cannot_be_formatted_or_written_is_counted_and_raises_nothing(pipe: Pipe) -> None:
    writer = pipe.writer()
    os.close(pipe.reading)

    writer.handle(logging.LogRecord("service", logging.INFO, __file__, 1, "%d", ("not a number",), None))
    writer.handle(record("to nobody"))
    writer.flush()

    assert writer.dropped == 2


def test_a_descriptor_that_somebody_has_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    writer = pipe.writer()
    for number in range(1000):
        writer.handle(record(f"{number} " + "x" * 500))

    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(pipe.read()))
    reader.start()
    writer.flush()
    pipe.end()
    reader.join()

    assert [line.split()[0] for line in found] == [str(number) for number in range(1000)]


def test_a_forked_process_writes_its_own_lines_and_none_of_its_parents(pipe: Pipe) -> None:
    writer = pipe.writer()
    writer.handle(record("parent, before"))

    child = os.fork()
    if child == 0:
        writer.handle(record("child"))
        writer.flush()
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    writer.handle(record("parent, after"))
    writer.flush()
    pipe.end()

    assert pipe.read() == ["parent, before", "child", "parent, after"]


def test_a_fork_while_nobody_reads_writes_no_line_twice(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.fill()
    writer = pipe.writer()
    lines = [f"parent {number}" for number in range(10)]
    monkeypatch.setattr("service.telemetry.lines.FLUSH_SECONDS_MAX", 0.05)
    writer.handle(record(lines[0]))
    writer.flush()  # in vain, but the thread stands in its write now, and the rest in the queue
    for line in lines[1:]:
        writer.handle(record(line))

    child = os.fork()
    monkeypatch.setattr("service.telemetry.lines.FLUSH_SECONDS_MAX", 10.0)
    if child == 0:
        writer.handle(record("child"))
        writer.flush()
        os._exit(0)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(pipe.read()))
    reader.start()
    os.waitpid(child, 0)
    writer.flush()
    pipe.end()
    reader.join()

    assert [line for line in found if line != "child"] == lines
    assert found.count("child") == 1


def test_a_process_ends_although_nobody_reads_its_lines_and_else_with_all_of_them_written(pipe: Pipe) -> None:
    script = (
        "import structlog; from service.telemetry.logging import configure; configure('json', 'info')\n"
        "for number in range(500): structlog.get_logger('service.test').info('a.line', number=number, x='x' * 500)"
    )
    read = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=True)
    assert [orjson.loads(line)["number"] for line in read.stderr.splitlines()] == list(range(500))

    pipe.fill()
    unread = subprocess.run([sys.executable, "-c", script], stderr=pipe.writing, timeout=30, check=False)
    assert unread.returncode == 0


@pytest.fixture
def process_registry() -> CollectorRegistry:
    return registry()


@pytest.mark.usefixtures("unlogged")
async def test_deliveries_are_answered_while_nobody_reads_the_log_and_its_dropped_lines_are_counted(
    pipe: Pipe, process_registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> float:
        return process_registry.get_sample_value("stripe_ingest_log_lines_dropped_total") or 0.0

    pipe.fill()
    monkeypatch.setattr("service.telemetry.lines.LINES_MAX", 5)
    with os.fdopen(pipe.writing, "w", closefd=False) as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        configure("json", "info")
        structlog.configure(cache_logger_on_first_use=False)  # the receiver's logger is the next test's as well
    writer = logging.getLogger().handlers[0]
    assert isinstance(writer, LineWriter)
    pipe.writers.append(writer)
    before = counted()
    given = receiver(
        [LIVE], ScriptedPublisher(), MemoryDedupeStore(SystemClock(), max_entries=1000), registry=CollectorRegistry()
    )

    async with serving(given) as url, aiohttp.ClientSession() as session:
        for number in range(50):
            body = b'{"id": "evt_%d", "object": "event", "type": "x", "livemode": true}' % number
            signature = sign(body, SECRET, int(SystemClock().now().timestamp()))
            status, _ = await post(session, url + LIVE.path, body, signature)
            assert status == 200

    assert writer.dropped >= 50 - 5 - (5 + 1)  # those in the queue, and those that the thread stands with
    assert counted() - before == writer.dropped
    assert dropped_lines() == counted()
