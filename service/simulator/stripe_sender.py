"""Deliver events as Stripe does: signed anew at each attempt, no redirect followed, again until there is a 2xx."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import heappop, heappush
from types import MappingProxyType, TracebackType
from typing import Final, Self, TypeAlias

import aiohttp
import orjson

from service.events import Secret
from service.signature import sign
from service.simulator.events import render
from service.simulator.objects import Object

HEADERS: Final = MappingProxyType({
    "Accept": "*/*; q=0.5, application/xml",
    "Accept-Encoding": "gzip",
    "Cache-Control": "no-cache",
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
})  # fmt: skip
"""What captured requests of Stripe carry besides the signature."""

LIVE_RETRY_SECONDS: Final = (300, 1_800, 7_200, 18_000, 36_000, 43_200, 43_200, 43_200, 43_200)
"""Pauses between attempts in live mode. Stripe says "up to three days with an exponential back off" and publishes no
more; the single steps are those that receivers have observed."""
SANDBOX_RETRY_SECONDS: Final = (600, 3_600, 7_200)
"""Pauses in a sandbox. Stripe says "three times over the course of a few hours"; the single steps are assumed."""
TIMEOUT_SECONDS: Final = 10.0
"""How long an attempt may take. Stripe publishes no value; receivers report 10 s and more."""
ANSWER_BYTES_MAX: Final = 64 * 1024
"""How much of an answer is read."""
WAITING_MAX: Final = 10_000
"""How many deliveries may wait for their next attempt before no new one is begun."""

Progress: TypeAlias = Callable[[int, int], None]
"""Told after each delivery that is over: how many are, of how many."""


class Answer(StrEnum):
    """What became of a delivery, by its last answer."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    OTHER_2XX = "other_2xx"
    """Taken, but by something that does not say how."""
    REFUSED = "refused"
    """Any other HTTP status; Stripe treats them all alike."""
    UNANSWERED = "unanswered"
    """No connection, no answer in time, or a broken one."""

    @property
    def delivered(self) -> bool:
        """Whether Stripe would be content."""
        return self not in {Answer.REFUSED, Answer.UNANSWERED}


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The last answer to a delivery. `status` is None where there was none; `seconds` is how long that attempt took."""

    status: int | None
    body: bytes
    seconds: float
    attempts: int = 1

    @property
    def answer(self) -> Answer:
        """What the receiver did with it."""
        if self.status is None:
            return Answer.UNANSWERED
        if not 200 <= self.status < 300:
            return Answer.REFUSED
        said = self._said("status")
        return Answer(said) if said in {"accepted", "duplicate", "quarantined"} else Answer.OTHER_2XX

    @property
    def reason(self) -> str:
        """Why it was not delivered: the receiver's error code, else its HTTP status, else `unanswered`."""
        if self.status is None:
            return Answer.UNANSWERED
        return self._said("error") or f"http_{self.status}"

    def _said(self, name: str) -> str | None:
        try:
            answer = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None
        value = answer.get(name) if isinstance(answer, dict) else None
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a crowd of deliveries. `failures` counts the attempts that were not delivered, by reason."""

    deliveries: int
    attempts: int
    answers: Mapping[Answer, int]
    failures: Mapping[str, int]
    seconds: float
    p50_seconds: float
    p99_seconds: float
    max_seconds: float

    @property
    def delivered(self) -> int:
        """How many got a 2xx in the end."""
        return sum(count for answer, count in self.answers.items() if answer.delivered)


def compressed(pauses: Sequence[float], total_seconds: float) -> tuple[float, ...]:
    """The same back-off in less time: pauses in the same proportions that add up to `total_seconds`."""
    scale = total_seconds / sum(pauses)
    return tuple(pause * scale for pause in pauses)


class StripeSender:
    """Delivers to one endpoint. Use it as an async context manager: it holds connections.

    `secrets` are all active ones of the endpoint: while one is being rolled, Stripe signs with each. After a failed
    attempt `deliver` pauses for the next of `retry_seconds`, and gives up when there is none left.
    """

    def __init__(
        self,
        url: str,
        secrets: Sequence[Secret],
        *,
        retry_seconds: Sequence[float] = (),
        timeout_seconds: float = TIMEOUT_SECONDS,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not secrets:
            raise ValueError("there is nothing to sign with: an endpoint has at least one secret")
        self.retry_seconds = tuple(retry_seconds)
        self.sleep = sleep
        self._url = url
        self._secrets = tuple(secrets)
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # How many connections there are is bounded by who calls; cookies would tie attempts together.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), timeout=self._timeout
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def attempt(self, body: bytes) -> DeliveryResult:
        """Post the bytes once, signed now. Whatever goes wrong on the way is a result with no status."""
        if self._session is None:
            raise RuntimeError("a sender is used inside of `async with`")
        headers = {**HEADERS, "Stripe-Signature": self._signature(body)}
        started = time.perf_counter()
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                status, answer = response.status, await _read(response.content)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return DeliveryResult(None, b"", time.perf_counter() - started)
        return DeliveryResult(status, answer, time.perf_counter() - started)

    async def deliver(self, body: bytes) -> DeliveryResult:
        """Post the bytes until they are taken or the schedule is over."""
        result = await self.attempt(body)
        for attempts, pause in enumerate(self.retry_seconds, start=2):
            if result.answer.delivered:
                break
            await self.sleep(pause)
            result = replace(await self.attempt(body), attempts=attempts)
        return result

    def _signature(self, body: bytes) -> str:
        timestamp = int(self._now())
        first, *others = (sign(body, secret, timestamp) for secret in self._secrets)
        return ",".join([first, *(other.partition(",")[2] for other in others)])


async def _read(content: aiohttp.StreamReader) -> bytes:
    """An answer's body, no more of it than is of use."""
    answer = b""
    while len(answer) < ANSWER_BYTES_MAX and (chunk := await content.read(ANSWER_BYTES_MAX - len(answer))):
        answer += chunk
    return answer


async def play(
    deliveries: Sequence[Object], sender: StripeSender, *, concurrency: int, progress: Progress | None = None
) -> Report:
    """Deliver events in this order, at most `concurrency` at a time, each until it is taken or given up.

    What waits for its next attempt holds nothing up: later events overtake it, as they do at Stripe.
    """
    if concurrency < 1:
        raise ValueError("concurrency is at least 1")
    playing = _Playing(deliveries, sender, progress)
    started = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(min(concurrency, len(deliveries))):
            workers.create_task(playing.work())
    return playing.report(time.perf_counter() - started)


@dataclass(frozen=True, slots=True, order=True)
class _Attempt:
    """When the delivery at `place` is due, for which time."""

    due: float
    place: int
    number: int


class _Playing:
    """What the workers share: the deliveries not begun, those that wait for an attempt, and the counts."""

    def __init__(self, deliveries: Sequence[Object], sender: StripeSender, progress: Progress | None) -> None:
        self._deliveries = deliveries
        self._sender = sender
        self._progress = progress
        self._fresh = iter(range(len(deliveries)))
        self._waiting: list[_Attempt] = []
        self._over = 0
        self._answers: Counter[Answer] = Counter()
        self._failures: Counter[str] = Counter()
        self._durations: list[float] = []

    async def work(self) -> None:
        """Make attempts until none is left. Whoever's attempt fails is there to take up what it left waiting."""
        loop = asyncio.get_running_loop()
        while (attempt := self._next(loop.time())) is not None:
            if (pause := attempt.due - loop.time()) > 0:
                await self._sender.sleep(pause)
            result = await self._sender.attempt(render(self._deliveries[attempt.place]))
            self._record(attempt, result, loop.time())

    def _next(self, now: float) -> _Attempt | None:
        if self._waiting and (self._waiting[0].due <= now or len(self._waiting) >= WAITING_MAX):
            return heappop(self._waiting)
        place = next(self._fresh, None)
        if place is not None:
            return _Attempt(now, place, 1)
        return heappop(self._waiting) if self._waiting else None

    def _record(self, attempt: _Attempt, result: DeliveryResult, now: float) -> None:
        self._durations.append(result.seconds)
        if not result.answer.delivered:
            self._failures[result.reason] += 1
            if attempt.number <= len(self._sender.retry_seconds):
                pause = self._sender.retry_seconds[attempt.number - 1]
                heappush(self._waiting, _Attempt(now + pause, attempt.place, attempt.number + 1))
                return
        self._answers[result.answer] += 1
        self._over += 1
        if self._progress is not None:
            self._progress(self._over, len(self._deliveries))

    def report(self, seconds: float) -> Report:
        durations = sorted(self._durations)
        return Report(
            deliveries=len(self._deliveries),
            attempts=len(durations),
            answers=MappingProxyType({answer: self._answers[answer] for answer in Answer}),
            failures=MappingProxyType(dict(sorted(self._failures.items()))),
            seconds=seconds,
            p50_seconds=_quantile(durations, 0.50),
            p99_seconds=_quantile(durations, 0.99),
            max_seconds=_quantile(durations, 1.0),
        )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed; 0 where there are none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
