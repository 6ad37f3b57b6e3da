"""Waiting for a condition: the one place in the tests where time passes between two looks; and things to wait for."""

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path

from service.local.ports import free_port

__all__ = ["alive", "descendants", "eventually", "free_port"]

_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.1


async def eventually(
    condition: Callable[[], object] | Callable[[], Awaitable[object]], *, timeout_seconds: float = 10.0, what: str
) -> None:
    """Return once `condition()`, or what it awaits to, is true; fail the test, naming `what`, when it never was.

    An exception from the condition ends the wait: it is an answer, not a "not yet".
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        outcome = condition()
        if await outcome if inspect.isawaitable(outcome) else outcome:
            return
        if loop.time() >= deadline:
            msg = f"not within {timeout_seconds:g} s: {what}"
            raise AssertionError(msg)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def alive(pid: int) -> bool:
    """Whether the process runs. One that has ended and that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def descendants(pid: int) -> set[int]:
    """The processes that this one started, and theirs."""
    children: dict[int, set[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parent = int((entry / "stat").read_text("utf-8").rpartition(")")[2].split()[1])
                children.setdefault(parent, set()).add(int(entry.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = children.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
