"""SIGHUP: it asks a process to read its configuration again, and it comes as well when a terminal is closed."""

import asyncio
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminal:
    """The terminal that this process was started from, if there was one; make it before SIGHUP has a handler."""

    def __init__(self) -> None:
        # Where SIGHUP was ignored, as under `nohup`, the process is meant to outlive its terminal.
        self._minded = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    @property
    def closed(self) -> bool:
        """Whether it was there and is not any more: a SIGHUP then means the end, as it does to any other command."""
        return self._minded and not _has_terminal()


def unheeded_at_first() -> None:
    """Have a SIGHUP ask for nothing until somebody handles it: what starts reads its configuration after that anyway.

    Else one that comes while a process still imports what it needs would end it, as one that comes of a closed
    terminal still does.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # signals are the main thread's
    terminal = Terminal()

    def heard(number: int, _: FrameType | None) -> None:
        if terminal.closed:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, heard)


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
    except OSError as error:
        # That nothing can be opened says nothing of the terminal, and is no reason to end.
        return error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
    return True
