"""`python -m tests.alerting.planted BUG ARGUMENTS…`: `stripe-ingest ARGUMENTS…` with a bug in it.

Some alerts tell of our own mistakes. Nobody knows of one that is still there, so one is planted. What it changes is
imported with the bug: a release's number is read when the modules that show it are.
"""

import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

TRIGGER: Final = "planted"
"""The event type, or a part of a key, at which a bug shows."""


def internal_error() -> None:
    """Normalizing one event type raises what nobody has foreseen."""
    ingest: Any = import_module("service.receiver.ingest")
    normalize = ingest.normalize

    def broken(known: Any, redaction: Any) -> Any:
        event = normalize(known, redaction)
        if TRIGGER in getattr(event, "event_type", ""):
            raise ZeroDivisionError(TRIGGER)
        return event

    ingest.normalize = broken


def dedupe_unforeseen() -> None:
    """The dedupe store's adapter raises what nobody has foreseen, for every tenth claim."""
    store: Any = import_module("service.adapters.dedupe_postgres").PostgresDedupeStore
    claim = store.claim
    calls = 0

    async def broken(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 10 == 0:
            raise ZeroDivisionError(TRIGGER)
        return await claim(self, *arguments, **named)

    store.claim = broken


def few_confirmations() -> None:
    """There is room for 20 confirmations that wait for the dedupe store, where there is room for 100,000."""
    deduplicator: Any = import_module("service.receiver.dedupe").Deduplicator
    made = deduplicator.__init__

    def broken(self: Any, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named | {"confirms_max": 20})

    deduplicator.__init__ = broken


def other_version() -> None:
    """A release that is not the others'."""
    version = importlib.metadata.version

    def another(distribution_name: str) -> str:
        return "99.0.0" if distribution_name == "stripe-ingest" else version(distribution_name)

    importlib.metadata.version = another


BUGS: Final[Mapping[str, Callable[[], None]]] = {
    bug.__name__.replace("_", "-"): bug for bug in (internal_error, dedupe_unforeseen, few_confirmations, other_version)
}


def main() -> None:
    """Plant the bug, then be the command."""
    _, bug, *arguments = sys.argv
    BUGS[bug]()
    sys.argv = ["stripe-ingest", *arguments]
    import_module("service.__main__").main()


if __name__ == "__main__":
    main()
