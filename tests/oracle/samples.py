"""The events that are judged: those of a folder, the simulator's, and the specimens."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from service.contract import Event
from service.events import Endpoint, Secret, Unprocessable, VerifiedEvent
from service.normalize import normalize
from service.simulator.events import SAMPLE_EVENT_TYPES, sample
from tests.oracle.cases import CASES
from tests.oracle.specimens import specimens

CREATED: Final = 1_700_000_000
RECEIVED_AT: Final = datetime(2026, 11, 20, 10, 0, 1, 123_000, UTC)


@dataclass(frozen=True)
class Sample:
    """An event and where it is from; `path` is set for a file's."""

    name: str
    tree: Any
    path: Path | None = None

    @property
    def api_version(self) -> str | None:
        """The version that rendered it; `simulator` and `specimen` have none of their own."""
        version = self.tree.get("api_version")
        return version if isinstance(version, str) else None


def samples_below(folder: Path) -> Iterator[Sample]:
    """Every event file below a folder. Fixtures repeat ids or leave them out: each gets its own."""
    for path in sorted(folder.rglob("*.json")):
        content = path.read_bytes()
        tree = orjson.loads(content)
        tree["id"] = f"evt_{hashlib.sha256(content).hexdigest()[:24]}"
        if tree.get("created") is None:
            tree["created"] = "2023-11-14T22:13:20.000Z" if tree.get("object") == "v2.core.event" else CREATED
        yield Sample(path.relative_to(folder).as_posix(), tree, path)


def own_samples() -> Iterator[Sample]:
    """What the project has of its own."""
    for event_type in SAMPLE_EVENT_TYPES:
        yield Sample(f"simulator: {event_type}", sample(event_type, seed=1, created=CREATED))
    for name, tree in CASES.items():
        yield Sample(f"case: {name}", tree)
    for specimen in specimens():
        yield Sample(f"specimen: {specimen.name}", specimen.event)


def delivered(tree: Any) -> VerifiedEvent:
    """The event as an endpoint of its own mode gets it."""
    return VerifiedEvent(
        endpoint=Endpoint(
            name="shop",
            path="/webhooks/shop",
            secrets=(Secret("whsec_x"),),
            mode="live" if tree.get("livemode") else "test",
        ),
        body=orjson.dumps(tree),
        received_at=RECEIVED_AT,
        signed_at=RECEIVED_AT,
        secret_fingerprint="0123456789ab",
    )


def outcome_of(tree: Any) -> Event | Unprocessable:
    """What normalization makes of it."""
    return normalize(delivered(tree))
