"""SIGHUP: it asks a process to read its configuration again, and it comes as well when a terminal is closed."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Terminal:
    """The terminal that this process was started from, if there was one; make it before SIGHUP has a handler."""

    def __init__(self) -> None:
        # Where SIGHUP was ignored, as under `nohup`, the process is meant to outlive its terminal.
        self._minded = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    @property
    def closed(self) -> bool:
        """Whether it was there and is not any more: a SIGHUP then means the end, as it does to any other command."""
        return self._minded and not _has_terminal()


@contextmanager
def hangups(*, again: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    """Call `again` for each SIGHUP inside the block, `end` for one that comes of a closed terminal.

    Both are called on the running event loop, which must be the main thread's.
    """
    terminal = Terminal()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, lambda: end() if terminal.closed else again())
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
