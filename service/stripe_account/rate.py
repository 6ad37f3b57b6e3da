"""How often Stripe may be asked: a bucket of one token, which is the same as an even distance between requests."""

from typing import Final

_CLOCK_SECONDS: Final = 1e-6
"""What a sleep may end early by, or a sum of times be off: less is no wait."""


class TokenBucket:
    """Lets through so many per second and never two at once, whatever has not been used before.

    A bucket of more tokens would let a burst through after each pause; Stripe counts every second by itself. The
    clock is the caller's: times are seconds of any clock that does not go back.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._free_at = float("-inf")

    def wait(self, now: float) -> float:
        """The seconds until the next may go; 0 where it may now."""
        wait = self._free_at - now
        return wait if wait > _CLOCK_SECONDS else 0.0

    def take(self, now: float) -> None:
        """One goes now: to be called after `wait` has said 0, with nothing in between."""
        self._free_at = max(now, self._free_at) + self._interval

    def hold(self, until: float) -> None:
        """Let nothing through before `until`; a hold that is over sooner changes nothing."""
        self._free_at = max(self._free_at, until)
