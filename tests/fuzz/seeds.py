"""The bodies that fuzzing starts from: the simulator's samples, and the real payloads where they lie beside."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from service.simulator.events import SAMPLE_EVENT_TYPES, render, sample
from tests.support.corpus import CORPUS, payloads

CREATED: Final = 1_763_699_000

THIN: Final[Mapping[str, Any]] = {
    "id": "evt_test_65",
    "object": "v2.core.event",
    "type": "v1.payment_intent.succeeded",
    "snapshot_event": "evt_1",
    "livemode": False,
    "created": "2026-10-28T12:00:00.123Z",
    "context": "org_1/acct_1",
    "reason": {"type": "request", "request": {"id": "req_v2", "idempotency_key": "idem"}},
    "related_object": {"id": "pi_1", "type": "payment_intent", "url": "/v1/payment_intents/pi_1"},
}


def samples() -> tuple[bytes, ...]:
    """An event of every type that the simulator knows, and a thin one: the same in every check-out."""
    events = (sample(event_type, seed=1, created=CREATED) for event_type in sorted(SAMPLE_EVENT_TYPES))
    return (*(render(event) for event in events), orjson.dumps(THIN))


@lru_cache(maxsize=1)
def seeds() -> tuple[bytes, ...]:
    """The samples and, where there is one, the corpus."""
    corpus = (orjson.dumps(payload.event) for payload in payloads()) if CORPUS.is_dir() else ()
    return (*samples(), *corpus)
