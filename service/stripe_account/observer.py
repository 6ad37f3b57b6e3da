"""What a reader of Stripe's API tells whoever measures it."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class RetryReason(StrEnum):
    """Why Stripe is asked once more."""

    RATE_LIMITED = "rate_limited"
    """429: we, or others with this account, ask too often."""
    SERVER_ERROR = "server_error"
    """5xx."""
    CONFLICT = "conflict"
    """409: somebody changes the object at this moment."""
    NO_ANSWER = "no_answer"
    """No connection, no TLS, or no whole answer in time."""
    UNREADABLE = "unreadable"
    """An answer that is none of Stripe's: a proxy's page, or one without a `Date`."""


class StripeObserver(Protocol):
    """Counts. Calls are cheap and never raise; labels come from closed sets."""

    def requested(self) -> None:
        """A request goes out; one that is made again counts again."""
        ...

    def retried(self, reason: RetryReason) -> None:
        """A request will be made again."""
        ...


@dataclass(slots=True)
class StripeCounts:
    """An observer that remembers: for what a command says at its end."""

    requests: int = 0
    retries: Counter[RetryReason] = field(default_factory=Counter)

    def requested(self) -> None:
        """See `StripeObserver.requested`."""
        self.requests += 1

    def retried(self, reason: RetryReason) -> None:
        """See `StripeObserver.retried`."""
        self.retries[reason] += 1
