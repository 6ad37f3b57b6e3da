"""Several receivers on one port: the kernel spreads connections over processes that listen with SO_REUSEPORT.

One event loop uses one core. Forked before there is a loop or a thread, each worker is a receiver of its own.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

import structlog

from service.errors import ConfigurationError
from service.hangup import Terminal

RESTART_SECONDS: Final = 1.0
"""Between the death of a worker and its successor's start: one that dies at once must not become a fork loop."""

EXIT_CONFIGURATION: Final = 2
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log: Final = structlog.get_logger("service.workers")


class Workers:
    """Keeps `count` processes running `serve(index)` until SIGTERM or SIGINT, which it passes on; so it does SIGHUP.

    A worker that starts has to read its configuration for itself: what this process knows of it is of its own start.
    """

    def __init__(self, count: int, serve: Callable[[int], None]) -> None:
        self._count = count
        self._serve = serve
        self._pids: dict[int, int] = {}
        self._stopping = False
        self._terminal = Terminal()

    def run(self) -> None:
        """Return once every worker has ended after a signal.

        Raises `ConfigurationError` where one of them refuses its configuration, once the others have ended as well.
        """
        refused: int | None = None
        for number, handler in zip(_SIGNALS, (self._stop, self._stop, self._hang_up), strict=True):
            signal.signal(number, handler)
        for index in range(self._count):
            self._start(index)
        while self._pids:
            pid, status = os.wait()
            if pid not in self._pids:
                continue  # an orphan that fell to us, as the first process of a container
            index = self._pids.pop(pid)
            if self._stopping:
                continue
            exit_code = os.waitstatus_to_exitcode(status)
            _log.error("worker.ended", worker=index, exit_code=exit_code)
            if exit_code == EXIT_CONFIGURATION:
                refused = index
                self._stop(signal.SIGTERM, None)  # no restart mends that
                continue
            time.sleep(RESTART_SECONDS)
            self._start(index)
        if refused is not None:
            raise ConfigurationError(f"worker {refused} refuses its configuration; the reason is above")

    def _start(self, index: int) -> None:
        """Start a worker unless all are to stop; again and again where there is no room for a process."""
        while not self._stopping and not self._forked(index):
            time.sleep(RESTART_SECONDS)

    def _forked(self, index: int) -> bool:
        """Whether nothing is left to be done for a start."""
        # A signal between this and the note of its pid would never reach the worker.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if not self._stopping:  # the handlers of what came before have been called by now
                pid = os.fork()
                if pid == 0:
                    self._be(index)
                self._pids[pid] = index
        except OSError as error:
            _log.error("worker.not_started", worker=index, reason=error.strerror)
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return True

    def _be(self, index: int) -> NoReturn:
        """A worker's whole life, in its own process."""
        exit_code = 1
        try:
            for number in _SIGNALS:
                # Until a worker has a handler of its own, a SIGHUP asks for nothing that its start does not do.
                signal.signal(number, signal.SIG_IGN if number is signal.SIGHUP else signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._serve(index)
            exit_code = 0
        except ConfigurationError as error:
            _log.error("worker.refused", worker=index, reason=str(error))
            exit_code = EXIT_CONFIGURATION
        except BaseException:
            _log.exception("worker.failed", worker=index)
            raise
        finally:
            logging.shutdown()  # lines that are not written yet: what an exit without `os._exit` would see to
            # Never up into the master's stack: the worker's life ends here, whatever happened.
            os._exit(exit_code)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._pass_on(signal.SIGTERM)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if self._terminal.closed:
            self._stop(number, frame)
        else:
            self._pass_on(signal.SIGHUP)

    def _pass_on(self, number: signal.Signals) -> None:
        for pid in tuple(self._pids):
            with suppress(ProcessLookupError):  # it has just been waited for
                os.kill(pid, number)
