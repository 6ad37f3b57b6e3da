"""The rebuild's own course, without a database: what it asks for, in which order, and what it counts."""

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from service.__main__ import main
from service.adapters.memory_kafka import MemoryKafka, MemoryRecordLog
from service.commands.rebuild import VALUE_CHARACTERS_MAX, as_json, shortened
from service.contract import PaymentIntent, Refund
from service.errors import BrokerUnavailable, ConfigurationError, RowRefused, StoreUnavailable
from service.events import ConsumedEvent
from service.ports import RebuildPage
from service.projections.differences import (
    Difference,
    LedgerEntry,
    StoredState,
    entry_differences,
    row_differences,
    state_differences,
)
from service.projections.model import ObjectKey, ObjectState
from service.records import decode
from service.recovery.rebuild import ATTEMPTS, STAGED_RECORDS, FromTopics, Tally, rebuild, records_in
from tests.contracts.projection_store import PAYMENTS, event, intent
from tests.support.histories import observation
from tests.support.memory_log import new_kafka, put

KEY = ObjectKey("acct_1", True, "pi_1")


@dataclass
class Pages:
    """A `RebuildStore` that gives pages made beforehand, refuses events, and fails as it is told to."""

    of_objects: deque[RebuildPage] = field(default_factory=deque)
    of_rows: deque[RebuildPage] = field(default_factory=deque)
    faults: deque[Exception] = field(default_factory=deque)
    faults_of_rows: deque[Exception] = field(default_factory=deque)
    refused: frozenset[str] = frozenset()
    staged: list[str] = field(default_factory=list)
    asked: list[tuple[str, ObjectKey | None]] = field(default_factory=list)

    async def totals(self) -> dict[str, int]:
        return {"objects": 1, "rows": 1}

    async def stage(self, events: Sequence[ConsumedEvent]) -> int:
        if self.faults:
            raise self.faults.popleft()
        ids = [consumed.event.event_id for consumed in events]
        if self.refused.intersection(ids):
            raise RowRefused("refused", "22003")
        self.staged += ids
        return sum(event_id.endswith("ahead") for event_id in ids)

    async def objects(self, after: ObjectKey | None) -> RebuildPage:
        self.asked.append(("objects", after))
        if self.faults:
            raise self.faults.popleft()
        return self.of_objects.popleft() if self.of_objects else RebuildPage("objects", 0)

    async def rows(self, after: ObjectKey | None) -> RebuildPage:
        self.asked.append(("rows", after))
        if self.faults_of_rows:
            raise self.faults_of_rows.popleft()
        return self.of_rows.popleft() if self.of_rows else RebuildPage("rows", 0)

    async def close(self) -> None:
        """Nothing to give back."""


def difference(column: str | None = "status") -> Difference:
    return Difference("differs" if column else "missing", "payments", KEY, column, "x", "y")


async def tallied(store: Pages, topics: FromTopics | None = None) -> Tally:
    tally = Tally()
    async for page in rebuild(store, asyncio.Event(), topics=topics):
        tally.add(page)
    return tally


def topics_of(kafka: MemoryKafka) -> FromTopics:
    return FromTopics(MemoryRecordLog(kafka), (PAYMENTS.topic,), decode)


async def test_rows_are_walked_after_all_objects_and_each_page_begins_where_the_last_one_ended() -> None:
    second = ObjectKey("acct_1", True, "pi_2")
    store = Pages(
        of_objects=deque([RebuildPage("objects", 2, (difference(),), KEY), RebuildPage("objects", 1, (), second)]),
        of_rows=deque([RebuildPage("rows", 1, (difference(), difference(None)), KEY)]),
    )

    tally = await tallied(store)

    assert store.asked == [("objects", None), ("objects", KEY), ("objects", second), ("rows", None), ("rows", KEY)]
    assert tally.looked_at == {"objects": 3, "rows": 1}
    assert tally.differences == {("payments", "status"): 2, ("payments", "missing"): 1}


async def test_a_stop_is_heard_between_pages_and_no_other_walk_begins() -> None:
    store, stop, seen = Pages(of_objects=deque([RebuildPage("objects", 1, (), KEY)] * 3)), asyncio.Event(), 0
    async for _ in rebuild(store, stop):
        seen += 1
        if seen == 2:
            stop.set()

    assert seen == 2
    assert len(store.asked) == 2


@pytest.mark.parametrize("faults", [1, ATTEMPTS - 1])
async def test_a_lock_that_was_not_given_is_asked_for_again(faults: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.recovery.rebuild._BACKOFF_SECONDS", 0.0)
    store = Pages(
        of_objects=deque([RebuildPage("objects", 1, (), KEY)]),
        faults=deque([StoreUnavailable("a lock", "55P03")] * faults),
    )

    assert (await tallied(store)).looked_at["objects"] == 1


@pytest.mark.parametrize(
    ("sqlstate", "attempts"), [("55P03", ATTEMPTS), ("57014", ATTEMPTS), (None, 1), ("08006", 1), ("57P01", 1)]
)
async def test_a_database_that_does_not_get_better_ends_it_and_one_that_is_gone_at_once(
    sqlstate: str | None, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.recovery.rebuild._BACKOFF_SECONDS", 0.0)
    store = Pages(faults=deque([StoreUnavailable("away", sqlstate)] * (ATTEMPTS + 1)))

    with pytest.raises(StoreUnavailable):
        await tallied(store)

    assert len(store.asked) == attempts


async def test_a_stop_ends_the_waiting_for_a_lock_without_an_error() -> None:
    stop = asyncio.Event()

    class Locked(Pages):
        async def objects(self, after: ObjectKey | None) -> RebuildPage:
            stop.set()
            return await super().objects(after)

    store = Locked(faults=deque([StoreUnavailable("a lock", "55P03")]))

    assert [page async for page in rebuild(store, stop)] == []
    assert store.asked == [("objects", None)]


async def test_what_the_database_refuses_is_counted_alone_and_all_else_is_laid_beside_the_ledger() -> None:
    kafka = new_kafka()
    events = [event(f"evt_{n:03}", intent(n), at=n) for n in range(STAGED_RECORDS + 20)]
    put(kafka, PAYMENTS, b"no JSON", *events, event("evt_ahead", intent(1), at=9), b"{}")
    store = Pages(refused=frozenset({"evt_007", "evt_300", f"evt_{STAGED_RECORDS}"}))

    tally = await tallied(store, topics_of(kafka))

    assert tally.invalid == {"not_json": 1, "schema_mismatch": 1, "row_refused": 3}
    assert tally.looked_at["topic"] == len(events) + 3 == await records_in(topics_of(kafka))
    assert tally.ahead == 1
    assert sorted(store.staged) == sorted({*(e.event_id for e in events), "evt_ahead"} - store.refused)


async def test_a_broker_that_goes_away_ends_it_before_anything_was_compared() -> None:
    kafka = new_kafka()
    put(kafka, PAYMENTS, event("evt_1", intent(1), at=0))
    kafka.available = False
    store = Pages()

    with pytest.raises(BrokerUnavailable):
        await tallied(store, topics_of(kafka))

    assert store.asked == []


async def test_a_topic_that_is_not_there_is_said_and_not_taken_for_one_without_records() -> None:
    topics = topics_of(new_kafka())

    with pytest.raises(ConfigurationError, match=PAYMENTS.topic):
        await records_in(topics)
    with pytest.raises(ConfigurationError, match=PAYMENTS.topic):
        await tallied(Pages(), topics)


# Comparing -------------------------------------------------------------------------------------------------------------


def read(object_type: str, text: str) -> PaymentIntent:
    assert object_type == "payment_intent"
    return msgspec.json.decode(text, type=PaymentIntent)


AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
STATE = ObjectState(
    key=KEY,
    object_type="payment_intent",
    data=PaymentIntent(payment_intent_id="pi_1", status="succeeded"),
    last_event_id="evt_1",
    last_event_type="payment_intent.succeeded",
    last_event_at=AT,
    undecided=0,
)
WRITTEN_BEFORE = '{"payment_intent_id": "pi_1", "status": "succeeded"}'


def stored(data: str = WRITTEN_BEFORE, undecided: int = 0) -> StoredState:
    return StoredState("payment_intent", data, "evt_1", "payment_intent.succeeded", AT.isoformat(), undecided)


def test_a_state_that_an_earlier_version_has_written_with_fewer_fields_says_the_same() -> None:
    assert list(state_differences("o", KEY, stored(), STATE, read)) == []


@pytest.mark.parametrize(
    ("stands", "expected"),
    [
        (None, [("missing", None)]),
        (stored('{"payment_intent_id": "pi_1", "status": "x"}'), [("differs", "data")]),
        (stored("[]"), [("differs", "data")]),
        (stored(undecided=2), [("differs", "undecided")]),
    ],
)
def test_a_state_differs_column_by_column(stands: StoredState | None, expected: list[tuple[str, str | None]]) -> None:
    assert [(d.kind, d.column) for d in state_differences("o", KEY, stands, STATE, read)] == expected


def test_a_state_without_any_event_is_extra_and_none_at_all_is_none() -> None:
    assert [d.kind for d in state_differences("o", KEY, stored(), None, read)] == ["extra"]
    assert list(state_differences("o", KEY, None, None, read)) == []


def test_a_ledgers_entry_differs_in_all_that_it_says_whatever_its_mark() -> None:
    told = observation("refund.updated", Refund(refund_id="re_1", charge_id="ch_1"), previous={"status": "pending"})

    def refund(_: str, text: str) -> Refund:
        return msgspec.json.decode(text, type=Refund)

    said, before = '{"refund_id": "re_1", "charge_id": "ch_1"}', '{"status":"pending"}'
    same = LedgerEntry("refund", "refund.updated", None, said, before, True, "ch_1")
    other = LedgerEntry("charge", "refund.failed", None, '{"refund_id": "re_1"}', None, False, None)

    assert list(entry_differences("l", told, "ch_1", same, refund)) == []
    found = [d.column for d in entry_differences("l", told, "ch_1", other, refund)]
    assert found == ["object_type", "event_type", "data", "previous", "via"]
    (missing,) = entry_differences("l", told, "ch_1", None, refund)
    assert (missing.kind, missing.event_id) == ("missing", "evt_1")


def test_a_rows_columns_that_this_version_does_not_know_are_not_its_business() -> None:
    found = list(row_differences("payments", KEY, {"status": "x", "of_a_newer_version": 1}, {"status": "y"}))

    assert [(d.column, d.stands, d.should_be) for d in found] == [("status", "x", "y")]


# Shown -----------------------------------------------------------------------------------------------------------------


def test_long_values_are_cut_for_people_and_whole_for_scripts() -> None:
    long = Difference("differs", "payments", KEY, "metadata", {"k": "v" * 500}, None)

    assert len(shortened(long.stands)) == VALUE_CHARACTERS_MAX
    assert shortened(None) == "-"
    assert shortened(7) == "7"
    assert shortened("a\n\x1b[2Jb") == r"'a\n\x1b[2Jb'"
    assert as_json(long) == {
        "kind": "differs",
        "table": "payments",
        "account": "acct_1",
        "livemode": True,
        "id": "pi_1",
        "event_id": None,
        "column": "metadata",
        "stands": {"k": "v" * 500},
        "should_be": None,
    }


@dataclass
class Ended:
    """How the command ended."""

    code: int | str | None
    out: str
    err: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command on a store made beforehand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("service.commands.options.configure", lambda *_: None)
    for name in [name for name in os.environ if name.startswith("STRIPE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_0123456789abcdef")

    def ended(store: Pages, *arguments: str) -> Ended:
        @asynccontextmanager
        async def given(*_: object, **__: object) -> AsyncIterator[Pages]:
            yield store

        monkeypatch.setattr("service.bootstrap.rebuild.rebuild_store", given)
        monkeypatch.setattr(sys, "argv", ["stripe-ingest", "rebuild", "payments", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return Ended(left.value.code, said.out, said.err)

    return ended


def odd() -> Difference:
    """Of an id that reads like markup, and a value that no machine word holds."""
    return Difference("differs", "payments", ObjectKey("acct_1", True, "gold[/]"), "data", {"amount": 10**30}, {})


def test_people_and_scripts_are_shown_whatever_an_id_or_a_value_holds(run: Callable[..., Ended]) -> None:
    def page() -> RebuildPage:
        return RebuildPage("objects", 1, (odd(),), KEY)

    shown = run(Pages(of_objects=deque([page()])), "--dry-run")
    line, _ = run(Pages(of_objects=deque([page()])), "--json").out.splitlines()

    assert (shown.code, "gold[/]" in shown.out, str(10**30) in shown.out) == (1, True, True)
    assert json.loads(line)["stands"] == {"amount": 10**30}


@pytest.mark.parametrize(("arguments", "code"), [((), 0), (("--dry-run",), 1)])
def test_a_dry_run_says_by_its_exit_code_whether_something_differs(
    run: Callable[..., Ended], arguments: tuple[str, ...], code: int
) -> None:
    found = run(Pages(of_objects=deque([RebuildPage("objects", 1, (difference(),), KEY)])), *arguments)
    nothing = run(Pages(of_objects=deque([RebuildPage("objects", 1, (), KEY)])), *arguments)

    assert (found.code, nothing.code) == (code, 0)
    assert "1 objects: no differences" in nothing.out


@pytest.mark.parametrize("as_json", [False, True])
def test_where_it_fails_what_was_corrected_by_then_is_told(run: Callable[..., Ended], as_json: bool) -> None:
    store = Pages(
        of_objects=deque([RebuildPage("objects", 1, (difference(),), KEY)]),
        of_rows=deque([RebuildPage("rows", 1, (), KEY)]),
    )
    store.faults_of_rows.append(StoreUnavailable("no answer"))

    ended = run(store, *(["--json"] if as_json else []))

    assert ended.code == 75
    assert ended.err.splitlines() == [
        "stopped after 1 objects, at pi_1; run again, it goes over all of it",
        "stripe-ingest: no answer",
    ]
    if as_json:
        summary = json.loads(ended.out.splitlines()[-1])
        assert (summary["corrected"], summary["interrupted"]) == (1, True)
    else:
        assert "1 objects: 1 differences, corrected" in ended.out


def test_where_it_fails_before_it_looked_at_anything_that_alone_is_said(run: Callable[..., Ended]) -> None:
    ended = run(Pages(faults=deque([StoreUnavailable("no answer")])))

    assert (ended.code, ended.out, ended.err) == (75, "", "stripe-ingest: no answer\n")
