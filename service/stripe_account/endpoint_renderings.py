"""Where one event comes in several API versions. An account's endpoints have one each, and each renders it in its own.

Such renderings differ in what they know; of each event the one that comes first is kept. Pure.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from service.config import Config
from service.normalize.envelope import DEFAULT_ACCOUNT

ALL_EVENTS: Final = "*"

_BOTH: Final = frozenset[str]({"live", "test"})


@dataclass(frozen=True, slots=True)
class Rendering:
    """What an endpoint takes, and in which API version; None is its account's, whichever that is."""

    name: str
    account: str
    modes: frozenset[str]
    connect: bool
    events: tuple[str, ...]
    """Never empty."""
    api_version: str | None


@dataclass(frozen=True, slots=True)
class Mixed:
    """Two endpoints that take the same event types in different API versions."""

    one: Rendering
    other: Rendering
    events: tuple[str, ...]

    def __str__(self) -> str:
        more = len(self.events) - 1
        events = (
            "every type" if self.events == (ALL_EVENTS,) else self.events[0] + (f" and {more} more" if more else "")
        )
        return (
            f"{self.one.name} and {self.other.name} take {events} in different API versions"
            f" ({self.one.api_version}, {self.other.api_version}): of each such event the rendering that comes first"
            " is kept"
        )


def mixed_versions(renderings: Iterable[Rendering]) -> Sequence[Mixed]:
    """The pairs whose API versions are known to differ, where they take the same types of one account and mode."""
    return [
        Mixed(one, other, both)
        for one, other in combinations(renderings, 2)
        if None not in {one.api_version, other.api_version}
        and one.api_version != other.api_version
        and (both := taken_by_both(one, other))
    ]


def taken_by_both(one: Rendering, other: Rendering) -> tuple[str, ...]:
    """The event types of which both get the same events."""
    if one.account != other.account or one.connect is not other.connect or not one.modes & other.modes:
        return ()
    if ALL_EVENTS in one.events:
        return other.events
    return one.events if ALL_EVENTS in other.events else tuple(each for each in one.events if each in other.events)


def takes(events: Collection[str], event_type: str) -> bool:
    """Whether an endpoint with these events gets this type; Stripe leaves a few out of "all", and nobody says which."""
    return event_type in events or ALL_EVENTS in events


def configured_renderings(config: Config) -> Sequence[Rendering]:
    """What the configuration says of it."""
    return [
        Rendering(
            name=each.name,
            account=each.account or DEFAULT_ACCOUNT,
            modes=_BOTH if each.mode is None or each.mode == "any" else frozenset({each.mode}),
            connect=each.connect,
            events=each.events or (ALL_EVENTS,),
            api_version=each.api_version,
        )
        for each in config.endpoints
    ]
