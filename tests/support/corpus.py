"""Real-world event payloads that lie beside the repository, where they are there at all."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

CORPUS: Final = Path(__file__).parents[3] / "shared" / "events"

NO_CORPUS: Final = "no real payloads in shared/events beside the repository: nothing to read here"
needs_corpus: Final = pytest.mark.skipif(not CORPUS.is_dir(), reason=NO_CORPUS)

CREATED: Final = 1_700_000_000
"""What an event without a usable `created` gets."""


@dataclass(frozen=True)
class Payload:
    """One stored event, made unique; `changes` says what is not as it is in the file."""

    path: Path
    event: dict[str, Any]
    changes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The path within the corpus."""
        return self.path.relative_to(CORPUS).as_posix()


def payloads() -> Iterator[Payload]:
    """Every event of the corpus, in the order of the paths.

    Fixtures repeat ids and leave some out: each gets an id of its own, made of the file's content.
    """
    for path in sorted(CORPUS.rglob("*.json")):
        content = path.read_bytes()
        event = orjson.loads(content)
        changes = ["id"]
        event["id"] = f"evt_{hashlib.sha256(content).hexdigest()[:24]}"
        if event.get("created") is None:
            event["created"] = "2023-11-14T22:13:20.000Z" if event.get("object") == "v2.core.event" else CREATED
            changes.append("created")
        yield Payload(path, event, tuple(changes))
