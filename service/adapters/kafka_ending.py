"""Ending what belongs to a driver: bounded, and whatever happens in it stays in it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

_log: Final = logging.getLogger(__name__)

_GRACE_SECONDS: Final = 0.1


async def bounded(step: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Let a step of closing something take so long, and no longer; how it fails is of no interest.

    It runs in a task of its own: aiokafka's fetcher cancels its requests and awaits them, so that its `close` may raise
    `CancelledError`, which here would be taken for the cancellation of whoever wants it closed.
    """
    task = asyncio.ensure_future(_run(step))
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        await end(task)


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel a task, wait until it is over, and look at its error, if it has one, so that asyncio does not log it."""
    task.cancel()
    await asyncio.wait([task], timeout=_GRACE_SECONDS)
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        _log.debug("kafka.close_failed", extra={"error": type(error).__name__})


async def _run(step: Callable[[], Awaitable[object]]) -> None:
    await step()
