"""Says what is wrong with a history, by class.

It knows what was sent, answered, appended and applied, and believes none of the parts: what rows must say comes from an
oracle that folds everything at once, and from the stories themselves.

lost_ack          an answer of 2xx before the record was in the log; or a record in the log that is neither applied nor
                  dead-lettered
duplicate_effect  an event has had more than one effect on an object
duplicate_record  a second record of an event that nothing explains (no outcome was unknown, no lease or mark was lost),
                  or a lease taken from its holder
phantom           a record or an effect of something that Stripe has not sent, or an answer of 2xx to it
misrouted         a record on the wrong topic, under the wrong key, or of the wrong mode
diverged          rows that are not what the events come to
stale_regress     an object's state went back in time
unanswered        no answer in time, or a refusal although nothing was wrong any more
unbounded         something that did not end, or failed where nobody took notice
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from service.contract import Event
from service.events import ConsumedEvent, ConsumedRecord, Position
from service.projections import PROJECTIONS
from service.records import decode
from tests.simulation.history import Attempt, History, Publishing
from tests.simulation.processes import (
    ANSWER_SECONDS,
    DEDUPE_SECONDS,
    FROZEN_SECONDS_MAX,
    LEASE_SECONDS,
    TOPICS,
    Platform,
)
from tests.simulation.stories import Story, Told
from tests.support.histories import oracle_rows

CLASSES: Final = (
    "lost_ack",
    "duplicate_effect",
    "duplicate_record",
    "phantom",
    "misrouted",
    "diverged",
    "stale_regress",
    "unanswered",
    "unbounded",
)

ANSWER_SLACK_SECONDS: Final = 1.0
HEALING_SECONDS: Final = 60.0
"""How long after the last fault a delivery may still be refused: a lease may have to run out."""

Findings = dict[str, list[str]]


class Checker:
    """What one history has come to."""

    def __init__(
        self,
        history: History,
        platform: Platform,
        story: Story,
        *,
        livemode: bool,
        signed: Collection[tuple[str, str]],
        accepted: Collection[str],
        healed_at: float,
    ) -> None:
        self._history = history
        self._platform = platform
        self._story = story
        self._livemode = livemode
        self._signed = signed
        self._accepted = accepted
        self._healed_at = healed_at
        self._told: Mapping[str, Told] = {told.event_id: told for told in story.events}
        self._records = {topic: platform.kafka.records(topic) for topic in TOPICS.data}
        self._quarantined = platform.kafka.records(TOPICS.quarantine)
        self._appended_at = {position: at for publishing in history.publishings for at, position in publishing.appended}

    def findings(self) -> Findings:
        """Class → what was found, in words; empty classes are left out."""
        found: Findings = defaultdict(list)
        for name in CLASSES:
            found[name] += getattr(self, f"_{name}")()
        return {name: each for name, each in found.items() if each}

    def doubled_records(self) -> int:
        """Data records beyond the first of their event; the ledgers absorb them."""
        ids = Counter(
            record_id(record) for records in self._records.values() for record in records if self._is_ours(record)
        )
        return sum(count - 1 for count in ids.values())

    # The classes ---------------------------------------------------------------------------------------------------

    def _lost_ack(self) -> Iterator[str]:
        first: dict[tuple[bool, str], float] = {}
        for publishing in self._history.publishings:
            topic, name = publishing.identity
            for at, _ in publishing.appended:
                key = (topic == TOPICS.quarantine, name)
                first[key] = min(at, first.get(key, at))
        for attempt in self._history.attempts:
            if attempt.status != 200 or not attempt.genuine or attempt.ended is None:
                continue
            recorded = first.get((attempt.said == "quarantined", attempt.event_id))
            if recorded is None or recorded > attempt.ended:
                yield f"{attempt.said} was said of {attempt.event_id} at {attempt.ended:.3f}, its record: {recorded}"
        yield from self._unaccounted()

    def _unaccounted(self) -> Iterator[str]:
        """Records that a projection neither applied nor dead-lettered."""
        letters = {_origin(record) for record in self._platform.kafka.records(TOPICS.dead_letter)}
        for name, database in self._platform.databases.items():
            projection, group = PROJECTIONS[name], TOPICS.group(name)
            for category in projection.categories:
                for record in self._records[TOPICS.of(category)]:
                    item = decode(record)
                    place = (group, record.partition.topic, record.partition.number, record.offset)
                    if not isinstance(item, ConsumedEvent) or item.event.event_id in self._platform.refused[name]:
                        if place not in letters:
                            yield f"poison at {place} is not dead-lettered"
                        continue
                    for seen in projection.observe(item.event):
                        if seen.event_id not in database.ledger.get(seen.key, {}):
                            yield f"{seen.event_id} is in the log, and {name} has not applied it to {seen.key.object_id}"

    def _duplicate_effect(self) -> Sequence[str]:
        return self._history.double_effects

    def _duplicate_record(self) -> Iterator[str]:
        yield from self._history.stolen
        for identity, publishings in self._history.by_identity().items():
            if identity[0] == TOPICS.dead_letter:
                continue
            for number, later in enumerate(publishings):
                for earlier in publishings[:number]:
                    if not self._explained(identity, earlier, later):
                        yield f"a second record of {identity[1]} by {later.by} at {later.begun:.3f}"

    def _explained(self, identity: tuple[str, str], earlier: Publishing, later: Publishing) -> bool:
        """Whether a correct receiver may have published again: the dedupe store could not know better."""
        if "unchecked" in (earlier.mark, later.mark):
            return True
        claimed_at = self._asked_at(earlier)
        if any(claimed_at <= forgot <= later.begun for forgot in self._history.forgot):
            return True
        if self._elsewhere(earlier, later):
            return True
        forgot_at = max((at for at in self._history.forgot if at <= later.begun), default=-1.0)
        remembered = any(
            forgot_at < at < self._asked_at(later)
            for key, at in self._history.confirms
            if key.id == identity[1] and (key.scope == "event") == (identity[0] != TOPICS.quarantine)
        )
        return not remembered and later.begun >= claimed_at + LEASE_SECONDS

    def _asked_at(self, publishing: Publishing) -> float:
        """When the dedupe store was asked before a publishing, at the earliest."""
        begun = publishing.begun
        still = self._history.stood_still(publishing.by, begun - FROZEN_SECONDS_MAX, begun)
        return begun - DEDUPE_SECONDS - still

    def _elsewhere(self, earlier: Publishing, later: Publishing) -> bool:
        """A quarantined body is kept once for each endpoint that it came to."""
        return earlier.identity[0] == TOPICS.quarantine and earlier.endpoint != later.endpoint

    def _phantom(self) -> Iterator[str]:
        for attempt in self._history.attempts:
            if not attempt.genuine and attempt.status is not None and attempt.status < 400:
                yield f"{attempt.status} was answered to what Stripe has not sent ({attempt.event_id})"
        sent = {attempt.event_id for attempt in self._history.attempts if attempt.genuine}
        for records in self._records.values():
            for record in records:
                if self._is_ours(record) and record_id(record) not in sent:
                    yield f"a record of {record_id(record)}, which Stripe has not sent"
        for record in self._quarantined:
            name = (hashlib.sha256(record.value or b"").hexdigest(), _header(record, "endpoint"))
            if name not in self._signed:
                yield f"a quarantined body that Stripe has not sent to {name[1]}"
        for name_, database in self._platform.databases.items():
            for observations in database.ledger.values():
                for event_id in observations:
                    if event_id not in sent:
                        yield f"{name_} has applied {event_id}, which Stripe has not sent"

    def _misrouted(self) -> Iterator[str]:
        for topic, records in self._records.items():
            for record in records:
                told = self._told.get(record_id(record)) if self._is_ours(record) else None
                if told is None:
                    continue
                if topic != f"stripe.{told.family}":
                    yield f"{told.event_id} is on {topic}, not on stripe.{told.family}"
                if record.key != told.key.encode():
                    yield f"{told.event_id} has the key {record.key!r}, not {told.key}"
                item = decode(record)
                if isinstance(item, ConsumedEvent) and item.event.livemode != self._livemode:
                    yield f"{told.event_id} is of the wrong mode"
                if _header(record, "endpoint") == "stranger":
                    yield f"{told.event_id} came by the endpoint of the other mode"
        for record in self._quarantined:
            if _header(record, "endpoint") != "stranger" and _header(record, "event_id") in self._told:
                yield f"{_header(record, 'event_id')} is quarantined, and there is nothing wrong with it"

    def _diverged(self) -> Iterator[str]:
        for name, database in self._platform.databases.items():
            projection = PROJECTIONS[name]
            topics = {TOPICS.of(category) for category in projection.categories}
            events = [event for event in self._events(topics) if event.event_id not in self._platform.refused[name]]
            wanted = oracle_rows(projection, events)
            found = {identity: row.columns for identity, row in database.rows.items()}
            for identity in sorted(wanted.keys() | found.keys()):
                if found.get(identity) != wanted.get(identity):
                    yield f"{identity[0]} {identity[1].object_id}: {_difference(wanted.get(identity), found.get(identity))}"
            if set(self._told) <= set(self._accepted) and not self._platform.refused[name]:
                yield from self._false(found)

    def _false(self, found: Mapping[tuple[str, Any], Mapping[str, Any]]) -> Iterator[str]:
        """Facts of the story that rows say otherwise."""
        rows = {(table, key.object_id): columns for (table, key), columns in found.items()}
        tables = {table for table, _ in rows}
        for table in sorted(tables & self._story.facts.keys()):
            for object_id, facts in self._story.facts[table].items():
                row = rows.get((table, object_id), {})
                for column, fact in facts.items():
                    if row.get(column) != fact:
                        yield f"{table} {object_id}: {column} is {row.get(column)!r}, and the story says {fact!r}"

    def _stale_regress(self) -> Sequence[str]:
        return self._history.regressions

    def _unanswered(self) -> Iterator[str]:
        for attempt in self._history.attempts:
            yield from self._answer(attempt)
        for event_id, at in self._history.given_up.items():
            if at > self._healed_at + HEALING_SECONDS and event_id not in self._accepted:
                yield f"{event_id} was never taken, the last time at {at:.0f}, all being well since {self._healed_at:.0f}"

    def _answer(self, attempt: Attempt) -> Iterator[str]:
        if attempt.reached is None or attempt.receiver_died or attempt.cancelled:
            return
        who = f"{attempt.event_id} at {attempt.endpoint}, attempt {attempt.number}"
        if attempt.ended is None:
            yield f"{who}: no answer"
        elif self._took(attempt.receiver, attempt.reached, attempt.ended) > ANSWER_SECONDS + ANSWER_SLACK_SECONDS:
            yield f"{who}: an answer after {attempt.ended - attempt.reached:.1f} s"
        elif attempt.said == "internal_error":
            yield f"{who}: {attempt.status} {attempt.said}"
        elif attempt.genuine and attempt.status != 200 and attempt.begun > self._healed_at + HEALING_SECONDS:
            yield f"{who}: {attempt.status} {attempt.said} at {attempt.begun:.0f}, all being well"

    def _took(self, receiver: str | None, reached: float, ended: float) -> float:
        return ended - reached - self._history.stood_still(receiver, reached, ended)

    def _unbounded(self) -> Sequence[str]:
        return self._history.overdue

    # What the log says ---------------------------------------------------------------------------------------------

    def _is_ours(self, record: ConsumedRecord) -> bool:
        position = Position(record.partition.topic, record.partition.number, record.offset)
        return position not in self._history.planted_records

    def _events(self, topics: Collection[str]) -> Sequence[Event]:
        records = [record for topic in sorted(topics) for record in self._records[topic]]
        return [item.event for item in map(decode, records) if isinstance(item, ConsumedEvent)]


def record_id(record: ConsumedRecord) -> str:
    """The event id that a data record is about."""
    return _header(record, "ce_id") or ""


def _header(record: ConsumedRecord, name: str) -> str | None:
    value = dict(record.headers).get(name)
    return None if value is None else value.decode()


def _origin(record: ConsumedRecord) -> tuple[str | None, str | None, int, int]:
    return (
        _header(record, "consumer_group"),
        _header(record, "original_topic"),
        int(_header(record, "original_partition") or -1),
        int(_header(record, "original_offset") or -1),
    )


def _difference(wanted: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> str:
    if wanted is None or found is None:
        return "is there and should not be" if wanted is None else "is missing"
    return ", ".join(
        f"{column} is {found.get(column)!r}, not {wanted.get(column)!r}"
        for column in sorted(wanted.keys() | found.keys())
        if found.get(column) != wanted.get(column)
    )
