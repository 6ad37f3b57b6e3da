"""Deliveries to the registered webhook endpoints: signed, again on Stripe's schedule, some of them never."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from service.events import Secret
from service.simulator.events import render
from service.simulator.objects import Object
from service.simulator.stripe_sender import LIVE_RETRY_SECONDS, SANDBOX_RETRY_SECONDS, DeliveryResult, StripeSender

CONCURRENCY: Final = 16
"""How many attempts are made at the same time."""
WAITING_MAX: Final = 1_000_000
"""How many deliveries may wait: a simulated month of a large shop."""
ATTEMPTS_KEPT: Final = 100_000
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Attempt(NamedTuple):
    """One attempt to deliver; `status` is None where there was no answer."""

    event_id: str
    endpoint_id: str
    number: int
    status: int | None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a delivery goes now, what it is signed with, and what it says."""

    url: str
    secrets: tuple[Secret, ...]
    event: Object


@dataclass(frozen=True, slots=True, order=True)
class _Due:
    at: float
    place: int
    event_id: str
    endpoint_id: str
    number: int
    """Which attempt it is; 0 for one that a person asked for, which is not made again."""


class Deliveries:
    """What waits to be delivered, and what has been.

    `target` gives a delivery's target at the time of the attempt, None where its endpoint is gone or switched off;
    `answered` is told of each 2xx. `speed` is how many of Stripe's seconds pass in one of ours between attempts.
    """

    def __init__(
        self,
        target: Callable[[str, str], Target | None],
        answered: Callable[[str, str], None],
        *,
        speed: float,
    ) -> None:
        if speed <= 0:
            raise ValueError("the speed is above 0")
        self._target = target
        self._answered = answered
        self._speed = speed
        self._origins: dict[str, str] = {}
        self._waiting: list[_Due] = []
        self._places = count()
        self._attempts: deque[Attempt] = deque(maxlen=ATTEMPTS_KEPT)
        self._running = 0
        self._news = asyncio.Event()
        self._paused = False
        self._drops: Callable[[], bool] = lambda: False
        self._senders: dict[tuple[str, tuple[Secret, ...]], StripeSender] = {}

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts so far, in the order of their ends."""
        return list(self._attempts)

    @property
    def waiting(self) -> int:
        """How many deliveries are under way or wait for an attempt."""
        return len(self._waiting) + self._running

    def reach(self, origin: str, at: str) -> None:
        """Deliver what goes to `origin` (https://shop.example.com) at another one instead (http://127.0.0.1:8080).

        Nothing ever leaves this machine by itself: what is neither reached so nor loopback counts as unanswered.
        """
        self._origins[origin.rstrip("/")] = at.rstrip("/")

    def drop(self, share: float, *, seed: int) -> None:
        """From now on never deliver this share (0 to 1) of the deliveries at all, as the seed has it."""
        chance = random.Random(f"stripe-drops:{seed}")  # noqa: S311 -- repeatable on purpose, nothing is secret
        self._drops = lambda: chance.random() < share

    def pause(self) -> None:
        """Make no attempt until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Go on making attempts."""
        self._paused = False
        self._news.set()

    def begin(self, event_id: str, endpoint_id: str) -> None:
        """Deliver a new event, unless it is one of those that are dropped. Raises `RuntimeError` when too many wait."""
        if not self._drops():
            self._wait(_Due(0.0, next(self._places), event_id, endpoint_id, 1))

    def resend(self, event_id: str, endpoint_id: str) -> None:
        """Deliver once more because somebody asks for it; the automatic attempts go on as they would."""
        self._wait(_Due(0.0, next(self._places), event_id, endpoint_id, 0))

    async def run(self) -> None:
        """Deliver until cancelled."""
        self._news = asyncio.Event()  # an Event belongs to the loop that first waits for it
        async with AsyncExitStack() as connections, asyncio.TaskGroup() as attempts:
            while True:
                self._news.clear()
                now = asyncio.get_running_loop().time()
                while not self._paused and self._running < CONCURRENCY and self._waiting and self._waiting[0].at <= now:
                    due = heappop(self._waiting)
                    self._running += 1
                    attempts.create_task(self._attempt(due, connections))
                await self._pause_until_news(now)

    async def _pause_until_news(self, now: float) -> None:
        busy = self._paused or self._running >= CONCURRENCY or not self._waiting
        try:
            async with asyncio.timeout(None if busy else self._waiting[0].at - now):
                await self._news.wait()
        except TimeoutError:
            return

    async def _attempt(self, due: _Due, connections: AsyncExitStack) -> None:
        try:
            target = self._target(due.event_id, due.endpoint_id)
            if target is None:
                # Stripe makes no further attempt once the endpoint is away or switched off when one is due.
                return
            result = await self._post(target, connections)
            self._attempts.append(Attempt(due.event_id, due.endpoint_id, due.number, result.status))
            if result.answer.delivered:
                self._answered(due.event_id, due.endpoint_id)
            else:
                self._again(due, livemode=target.event["livemode"])
        finally:
            self._running -= 1
            self._news.set()

    def _again(self, due: _Due, *, livemode: bool) -> None:
        pauses = LIVE_RETRY_SECONDS if livemode else SANDBOX_RETRY_SECONDS
        if 0 < due.number <= len(pauses):
            at = asyncio.get_running_loop().time() + pauses[due.number - 1] / self._speed
            self._wait(_Due(at, next(self._places), due.event_id, due.endpoint_id, due.number + 1))

    async def _post(self, target: Target, connections: AsyncExitStack) -> DeliveryResult:
        url = self._reachable(target.url)
        if url is None:
            return DeliveryResult(None, b"", 0.0)
        known = (url, target.secrets)
        if known not in self._senders:
            sender = await connections.enter_async_context(StripeSender(url, target.secrets))
            self._senders[known] = sender
            connections.callback(self._senders.pop, known, None)
        return await self._senders[known].attempt(render(target.event))

    def _reachable(self, url: str) -> str | None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin in self._origins:
            return self._origins[origin] + url[len(origin) :]
        return url if parts.hostname in _LOOPBACK else None

    def _wait(self, due: _Due) -> None:
        if len(self._waiting) >= WAITING_MAX:
            raise RuntimeError("too many deliveries wait")
        heappush(self._waiting, due)
        self._news.set()
