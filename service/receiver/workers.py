"""Several receivers on one port: the kernel spreads connections over processes that listen with SO_REUSEPORT.

One event loop uses one core. Forked before there is a loop or a thread, each worker is a receiver of its own.
"""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

import structlog

RESTART_SECONDS: Final = 1.0
"""Between the death of a worker and its successor's start: one that dies at once must not become a fork loop."""

_log: Final = structlog.get_logger("service.workers")


class Workers:
    """Keeps `count` processes running `serve(index)` until SIGTERM or SIGINT, which it passes on."""

    def __init__(self, count: int, serve: Callable[[int], None]) -> None:
        self._count = count
        self._serve = serve
        self._pids: dict[int, int] = {}
        self._stopping = False

    def run(self) -> None:
        """Return once every worker has ended after a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for index in range(self._count):
            self._start(index)
        while self._pids:
            pid, status = os.wait()
            index = self._pids.pop(pid)
            if not self._stopping:
                _log.error("worker.ended", worker=index, exit_code=os.waitstatus_to_exitcode(status))
                time.sleep(RESTART_SECONDS)
                self._start(index)

    def _start(self, index: int) -> None:
        if self._stopping:
            return
        pid = os.fork()
        if pid:
            self._pids[pid] = index
            return
        exit_code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            self._serve(index)
            exit_code = 0
        finally:
            # Never up into the master's stack: the worker's life ends here, whatever happened.
            os._exit(exit_code)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        for pid in self._pids:
            os.kill(pid, signal.SIGTERM)
