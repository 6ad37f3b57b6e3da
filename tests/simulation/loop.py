"""An event loop without time and without a world: it jumps from timer to timer, and its seed decides what races.

Everything that a history depends on comes from here: the clock, and the order in which tasks that could run at the same
moment do run. Real I/O, threads and other processes are refused, so the same seed always gives the same history.
"""

import asyncio
import heapq
from asyncio.events import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")

EPOCH: Final = datetime(2026, 11, 20, 10, tzinfo=UTC)
"""The wall clock when a history begins, in a process whose clock is right."""

TURNS_MAX: Final = 1_000_000
"""Turns of the loop in one history. A healthy one needs some tens of thousands."""


def repeatable(seed: str | int) -> Random:
    """Chance that comes out the same each time."""
    return Random(seed)


class Deadlock(Exception):
    """Something is waited for, and nothing is left that could ever happen."""


class Livelock(Exception):
    """More turns of the loop than any healthy history needs."""


class RealWorld(Exception):
    """Code under simulation wanted a thread, a socket or a signal: its history could not be repeated."""


class Tasks:
    """The tasks of one simulated process, in the order of their making: what dies with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self._running: dict[asyncio.Task[Any], None] = {}

    def add(self, task: asyncio.Task[Any]) -> None:
        """Take a task in, until it is done."""
        self._running[task] = None
        task.add_done_callback(self._running.pop)

    def kill(self) -> None:
        """Cancel all of them, as far as anybody outside can see at once."""
        self.alive = False
        for task in tuple(self._running):
            task.cancel()

    def __len__(self) -> int:
        return len(self._running)


_owner: ContextVar[Tasks | None] = ContextVar("owner", default=None)


def owner() -> Tasks | None:
    """The simulated process that the running code belongs to; None is the world around them."""
    return _owner.get()


@contextmanager
def owned_by(tasks: Tasks | None) -> Iterator[None]:
    """Whatever is started inside of the block belongs to this process, and all that it starts."""
    token = _owner.set(tasks)
    try:
        yield
    finally:
        _owner.reset(token)


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose time is virtual. `shuffled`: tasks that are ready in the same turn run in an order of the seed's.

    Only tasks are shuffled, and only their steps: callbacks keep the order that asyncio promises them.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, chance: Random, *, shuffled: bool) -> None:
        super().__init__()
        self.turns = 0
        self.unheard: list[str] = []
        """Failures that nobody took: of tasks that were not awaited, and of callbacks."""
        self._now = 0.0
        self._chance = chance
        self._shuffled = shuffled
        self._frozen: dict[Tasks, list[asyncio.Handle]] = {}
        self._selector = self
        self._clock_resolution = 1e-8  # a timer counts as due when its time has come, years from the begin as well
        self.set_task_factory(_own)
        self.set_exception_handler(self._hear)

    def time(self) -> float:
        """Seconds since the history began."""
        return self._now

    def select(self, timeout: float | None) -> tuple[()]:
        """Instead of waiting for the world, let time pass up to the next timer."""
        self.turns += 1
        if self.turns > TURNS_MAX:
            raise Livelock(f"more than {TURNS_MAX} turns of the loop")
        if timeout is None:
            raise Deadlock("nothing is left that could happen")
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0].when())
        elif self._shuffled and len(self._ready) > 1:
            self._shuffle()
        if self._frozen:
            self._hold_back()
        return ()

    def freeze(self, tasks: Tasks) -> None:
        """Stop a process where it stands, as SIGSTOP does: nothing of it runs, its timers included, until it thaws."""
        self._frozen.setdefault(tasks, [])

    def thaw(self, tasks: Tasks) -> None:
        """Have it go on, with all that has come meanwhile, in order."""
        self._ready.extend(self._frozen.pop(tasks, ()))

    def _hold_back(self) -> None:
        """Keep what belongs to frozen processes. Timers that are due come here first, as the loop itself has them."""
        while self._scheduled and self._scheduled[0].when() <= self._now + self._clock_resolution:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(timer)
        for handle in tuple(self._ready):
            held = self._frozen.get(handle._context.get(_owner))  # type: ignore[attr-defined]
            if held is not None:
                held.append(handle)
                self._ready.remove(handle)

    def _shuffle(self) -> None:
        places = [place for place, handle in enumerate(self._ready) if _is_step(handle)]
        if len(places) > 1:
            steps = [self._ready[place] for place in places]
            self._chance.shuffle(steps)
            for place, step in zip(places, steps, strict=True):
                self._ready[place] = step

    def _process_events(self, events: tuple[()]) -> None:
        """There are none."""

    def _hear(self, _: AbstractEventLoop, context: dict[str, Any]) -> None:
        failure = context.get("exception")
        self.unheard.append(f"{context['message']}: {type(failure).__name__}")

    def _write_to_self(self) -> NoReturn:
        raise RealWorld("a thread wanted to wake the loop")

    def run_in_executor(self, *_: object) -> NoReturn:
        """There are no threads."""
        raise RealWorld("something wanted a thread")

    def add_signal_handler(self, *_: object) -> NoReturn:
        """There are no signals."""
        raise RealWorld("something wanted a signal")

    async def create_connection(self, *_: object, **__: object) -> NoReturn:
        """There is no network."""
        raise RealWorld("something wanted a connection")

    async def create_server(self, *_: object, **__: object) -> NoReturn:
        """There is no network."""
        raise RealWorld("something wanted to listen")


def _own(
    loop: AbstractEventLoop, coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T], /, **options: Any
) -> asyncio.Task[T]:
    task = asyncio.Task(coroutine, loop=loop, **options)
    tasks = _owner.get()
    if tasks is not None:
        tasks.add(task)
        if not tasks.alive:
            task.cancel()
    return task


def _is_step(handle: asyncio.Handle) -> bool:
    callback: Callable[..., object] | None = handle._callback  # type: ignore[attr-defined]
    return type(callback).__name__ == "TaskStepMethWrapper" or isinstance(
        getattr(callback, "__self__", None), asyncio.Task
    )


class VirtualClock:
    """The `Clock` port on a virtual loop; its wall clock may be wrong by `skew_seconds`, its monotonic one never is."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.skew_seconds = 0.0
        self._loop = loop

    def now(self) -> datetime:
        """The wall clock, aware, in UTC, as wrong as it is."""
        return EPOCH + timedelta(seconds=self._loop.time() + self.skew_seconds)

    def monotonic(self) -> float:
        """Seconds since the history began."""
        return self._loop.time()


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], chance: Random, *, shuffled: bool) -> T:
    """Run a history from its begin to its end, and leave no task behind."""
    loop = VirtualLoop(chance, shuffled=shuffled)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        try:
            left = sorted(asyncio.all_tasks(loop), key=asyncio.Task.get_name)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            loop.close()
