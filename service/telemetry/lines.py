"""Log lines that cost their writer no wait: a bounded queue, and a thread that writes it out.

Whoever reads our lines may stop to: a full pipe would hold the event loop, and every delivery with it, in one `write`.
So that is a thread's, and what does not fit the queue meanwhile is dropped and counted.
"""

import logging
import os
import select
import threading
import time
from queue import SimpleQueue
from typing import Final, TypeAlias
from weakref import WeakSet

LINES_MAX: Final = 10_000
"""Some megabytes; at a thousand lines in a second, ten seconds of a reader that does not read."""

GATHER_SECONDS: Final = 0.01
"""From a line to its writing: those that come meanwhile go with it, so that a busy loop is seldom interrupted."""

BATCH_LINES_MAX: Final = 1_000
FLUSH_SECONDS_MAX: Final = 2.0

_Item: TypeAlias = str | threading.Event | None
"""A line; or somebody who waits until what is before it is written; or the end of the thread."""

_writers: Final[WeakSet["LineWriter"]] = WeakSet()


class LineWriter(logging.Handler):
    """Writes formatted records to a file descriptor, in order and whole, in a thread of its own.

    Beyond `lines_max` waiting lines the newest are dropped: the first ones tell what the trouble began with.
    """

    _queue: SimpleQueue[_Item]
    _thread: threading.Thread
    _has_ended: bool

    def __init__(self, descriptor: int, *, lines_max: int | None = None) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines_max = LINES_MAX if lines_max is None else lines_max
        self._begin()
        _writers.add(self)

    @property
    def dropped(self) -> int:
        """Lines that nobody will read."""
        return self._not_queued + self._not_written

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line. Never raises, and waits for nothing: see `logging.Handler.handle` for the lock."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 -- the caller is a delivery; where to tell would be here
            self._not_queued += 1
            return
        if self._queue.qsize() >= self._lines_max:
            self._not_queued += 1
            return
        self._queue.put(line)

    def flush(self) -> None:
        """Wait until everything queued is written, for `FLUSH_SECONDS_MAX` at most. At exit `logging` calls it."""
        written = threading.Event()
        self._queue.put(written)
        written.wait(FLUSH_SECONDS_MAX)

    def before_fork(self) -> None:
        """End the thread, so that there is none: a lock that it held at a fork would stay locked in the child."""
        with self._end:
            self._is_to_end = True
        self._queue.put(None)
        self._thread.join(FLUSH_SECONDS_MAX)

    def after_fork_in_parent(self) -> None:
        """Go on; with the same thread, where it stands in a write and could not be ended."""
        with self._end:
            has_ended = self._has_ended
            self._is_to_end = self._has_ended = False
        if has_ended:
            self._thread = self._started()

    def after_fork_in_child(self) -> None:
        """Begin anew: what is queued is the parent's to write."""
        self._begin()

    def _begin(self) -> None:
        self._not_queued = 0
        self._not_written = 0
        self._end = threading.Lock()
        self._is_to_end = False
        self._has_ended = False
        self._queue = SimpleQueue()
        self._thread = self._started()

    def _started(self) -> threading.Thread:
        # Here and not at the first line, which may come from a loop: a start is waited for.
        thread = threading.Thread(target=self._run, args=(self._queue,), name="log-lines", daemon=True)
        thread.start()
        return thread

    def _run(self, queue: SimpleQueue[_Item]) -> None:
        while True:
            batch = [queue.get()]
            if isinstance(batch[0], str):
                time.sleep(GATHER_SECONDS)
            # Nobody else takes from the queue: what it has now does not have to be waited for.
            batch += [queue.get() for _ in range(min(queue.qsize(), BATCH_LINES_MAX))]
            self._write([item for item in batch if isinstance(item, str)])
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()
            if None in batch and self._ends():
                return

    def _ends(self) -> bool:
        """Whether this is the end: not, where the thread comes to it only after the fork that it was to end for."""
        with self._end:
            self._has_ended = self._is_to_end
            return self._has_ended

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        try:
            _write_all(self._descriptor, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
        except OSError:  # the reader has gone: nobody is left to tell
            self._not_written += len(lines)


def dropped_lines() -> int:
    """Lines of this process that were dropped."""
    return sum(writer.dropped for writer in _writers)


def _write_all(descriptor: int, data: bytes) -> None:
    """Past Python's own buffers: a thread that stands in one of those at exit would keep the process from ending."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # another process with the same terminal or pipe has made it non-blocking
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def _before_fork() -> None:
    for writer in _writers:
        writer.before_fork()


def _after_fork_in_parent() -> None:
    for writer in _writers:
        writer.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for writer in _writers:
        writer.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
