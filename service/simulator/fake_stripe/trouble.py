"""Trouble on request: what an API client must live with, at the moment that a test says or at seeded random."""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from service.simulator.fake_stripe.refusals import API_ERROR, Refusal

SECONDS_TOLD_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class RateLimited:
    """A 429. `retry_after` is its Retry-After in seconds, None for none (which Stripe does not promise)."""

    retry_after: int | None = 1


@dataclass(frozen=True, slots=True)
class Failing:
    """An answer 5xx, before anything was done.

    Or after everything was: with `done`, an Idempotency-Key repeats the failure, and what was made is there.
    """

    status: int = 500
    done: bool = False


class Lost(Enum):
    """A connection that breaks, and where."""

    BEFORE = "before"
    """Nothing of what was asked is done."""
    AFTER = "after"
    """Everything is done, and the answer never comes: what an Idempotency-Key is for."""
    WITHIN = "within"
    """Half of the answer comes."""


@dataclass(frozen=True, slots=True)
class Slow:
    """An answer that comes so many seconds late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Held:
    """A request that waits until somebody lets it go: `reached` says that it is there, `release` lets it go."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


Kind: TypeAlias = RateLimited | Failing | Lost | Slow | Held


class TokenBucket:
    """Lets `per_second` requests through on the average, and `burst` at once."""

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take a token: 0, or the seconds until there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_second


@dataclass(slots=True)
class _Planned:
    kind: Kind
    method: str | None
    path: str
    skip: int
    times: float
    strikes: Callable[[], bool]


class Trouble:
    """What goes wrong, and when. `rate_limited` counts the answers 429 so far."""

    def __init__(self) -> None:
        self.rate_limited = 0
        self._planned: list[_Planned] = []
        self._rate: tuple[float, int] | None = None
        self._buckets: dict[object, TokenBucket] = {}

    def next(
        self, kind: Kind, *, times: int = 1, after: int = 0, method: str | None = None, path: str = "/v1/"
    ) -> None:
        """Happen to the next `times` requests whose path begins with `path`, once `after` of them have gone by."""
        self._planned.append(_Planned(kind, method, path, after, times, lambda: True))

    def share(self, kind: Kind, share: float, *, seed: int, method: str | None = None, path: str = "/v1/") -> None:
        """Happen to this share (0 to 1) of the requests until `clear`, as the seed has it."""
        chance = random.Random(f"stripe-trouble:{seed}")  # noqa: S311 -- repeatable on purpose, nothing is secret
        self._planned.append(_Planned(kind, method, path, 0, math.inf, lambda: chance.random() < share))

    def limit(self, per_second: float, *, burst: int | None = None) -> None:
        """Answer 429 to what an account asks for above this rate; `burst` (a second's requests) may come at once."""
        if per_second <= 0:
            raise ValueError("a rate is above 0")
        self._rate = (per_second, burst or max(1, math.ceil(per_second)))
        self._buckets.clear()

    def clear(self) -> None:
        """No more trouble: nothing planned, no rate limit."""
        self._planned.clear()
        self._rate = None

    @property
    def planned(self) -> int:
        """How many kinds of trouble are still to come, or go on."""
        return len(self._planned)

    def take(self, method: str, path: str) -> Kind | None:
        """What happens to this request, if anything."""
        for planned in self._planned:
            if not path.startswith(planned.path) or planned.method not in {None, method}:
                continue
            if planned.skip > 0:
                planned.skip -= 1
                continue
            if not planned.strikes():
                continue
            planned.times -= 1
            if planned.times <= 0:
                self._planned.remove(planned)
            return planned.kind
        return None

    def pass_through(self, whose: object, now: float) -> None:
        """Count a request of somebody's against the rate limit; `now` is monotonic. Raises Stripe's 429."""
        if self._rate is None:
            return
        per_second, burst = self._rate
        bucket = self._buckets.setdefault(whose, TokenBucket(per_second, burst, now))
        if wait := bucket.take(now):
            raise self.refusal(RateLimited(min(SECONDS_TOLD_MAX, max(1, math.ceil(wait)))))

    def refusal(self, kind: RateLimited | Failing) -> Refusal:
        """The answer of a failure that has one."""
        if isinstance(kind, Failing):
            return Refusal(
                kind.status,
                "Sorry! There was an error while talking to one of our backends. Support has been notified.",
                kind=API_ERROR,
                # To ask again with the same key would give the same.
                headers={"Stripe-Should-Retry": "false"} if kind.done else {},
            )
        self.rate_limited += 1
        headers = {"Stripe-Rate-Limited-Reason": "global-rate"}
        if kind.retry_after is not None:
            headers["Retry-After"] = str(kind.retry_after)
        return Refusal(
            429,
            "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
            code="rate_limit",
            headers=headers,
        )
