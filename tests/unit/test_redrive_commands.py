"""`dead-letter` and `quarantine` on a cluster in memory: what they print, what they ask, and what they end with."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from msgspec.structs import replace
from rich.console import Console

from service.__main__ import main
from service.adapters.memory_kafka import MemoryKafka, MemoryPublisher, MemoryRecordLog
from service.clock import SystemClock
from service.config import Config
from service.errors import BrokerUnavailable, PublishRefused
from service.events import ConsumedRecord, InvalidRecord, Partition, Position, QuarantineReason, Record, Unprocessable
from service.records import Topics, dead_letter, encode, quarantine
from service.recovery import redrive as module
from tests.contracts.projection_store import event, intent
from tests.unit.normalize.building import endpoint

TOPICS = Topics("stripe")
GROUP = TOPICS.group("payments")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str

    @property
    def lines(self) -> Sequence[Mapping[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run: TypeAlias = Callable[..., Ended]


class InterruptedPublisher(MemoryPublisher):
    """Somebody presses Ctrl-C while it publishes."""

    async def publish(self, record: Record, *, deadline: float) -> Position:
        signal.raise_signal(signal.SIGINT)
        return await super().publish(record, deadline=deadline)


@dataclass
class World:
    """What the commands find."""

    kafka: MemoryKafka = field(default_factory=lambda: MemoryKafka(SystemClock()))

    def __post_init__(self) -> None:
        for name in (*TOPICS.data, TOPICS.quarantine, TOPICS.dead_letter):
            self.kafka.create_topic(name)
        self.publisher = MemoryPublisher(self.kafka)

    def bury(
        self,
        count: int,
        *,
        group: str = GROUP,
        reason: str = "schema_mismatch",
        event_type: str = "payment_intent.updated",
    ) -> None:
        for number in range(count):
            given = replace(event(f"evt_{number}", intent(number), at=number), endpoint="shop", event_type=event_type)
            made = encode(given, topics=TOPICS, ingest_source="webhook", include_raw=False, traceparent="")
            origin = ConsumedRecord(Partition(made.topic, 3), number, made.key, made.value, made.headers, 0)
            self.kafka.append(dead_letter(InvalidRecord(origin, reason, "$.data"), topics=TOPICS, consumer_group=group))

    def park(self, body: bytes) -> None:
        unprocessable = Unprocessable(
            QuarantineReason.MALFORMED_JSON, "body", None, endpoint(), body, datetime(2026, 11, 20, tzinfo=UTC)
        )
        self.kafka.append(quarantine(unprocessable, topics=TOPICS, ingest_source="webhook", traceparent=""))

    @property
    def replayed(self) -> int:
        return len(self.kafka.records(TOPICS.of("payment")))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    @asynccontextmanager
    async def log(_: Config) -> AsyncIterator[MemoryRecordLog]:
        yield MemoryRecordLog(made.kafka)

    @asynccontextmanager
    async def publisher(_: Config) -> AsyncIterator[MemoryPublisher]:
        yield made.publisher

    monkeypatch.setattr("service.bootstrap.kafka.record_log", log)
    monkeypatch.setattr("service.bootstrap.kafka.replay_publisher", publisher)
    return made


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line with a configuration of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "service.commands.options.configure", lambda *_: None
    )  # the log of the other tests stays as it is
    for name in [name for name in os.environ if name.startswith("STRIPE")]:
        monkeypatch.delenv(name)
    (tmp_path / "stripe-ingest.toml").write_text(
        '[database]\nurl = "postgresql://nobody@127.0.0.1:1/none"\n'
        '[[endpoints]]\nname = "shop"\nmode = "test"\nsecrets = ["whsec_0123456789abcdef"]\n'
    )

    def ended(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["stripe-ingest", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return Ended(done.value.code, out, err)

    return ended


def answers(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    """Somebody at a terminal, or nobody."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: answer is not None, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answer)


# --- list and show ---------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who looks."""
    monkeypatch.setattr(
        "service.commands.redrive.new_console", lambda: Console(force_terminal=True, width=150, no_color=True)
    )


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_a_list_is_a_table_with_the_counts_at_its_end(run: Run, world: World) -> None:
    world.bury(2)
    world.bury(1, group=TOPICS.group("refunds"), reason="row_refused")

    ended = run("dead-letter", "list")

    assert (ended.code, ended.err) == (0, "")
    rows = ended.out.splitlines()
    *first, age = rows[1].split()
    assert first == ["evt_0", "schema_mismatch", GROUP, "stripe.payments/3/0", "payment_intent.updated"]
    assert age.endswith("s")
    assert rows[-1] == "3 in all: 2 schema_mismatch, 1 row_refused"


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("event_type", ["v2.core.account[requirements].updated", "a[/b]"])
def test_a_table_shows_a_type_with_brackets_as_it_is(run: Run, world: World, event_type: str) -> None:
    world.bury(1, event_type=event_type)

    ended = run("dead-letter", "list")

    assert ended.code == 0
    assert event_type in ended.out.split()


@pytest.mark.usefixtures("terminal")
def test_a_table_ends_and_the_counts_do_not(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.commands.redrive.ROWS_SHOWN_MAX", 3)
    world.bury(10)

    ended = run("dead-letter", "list")

    assert ended.out.count("evt_") == 3
    assert "and 7 more" in ended.err
    assert "10 in all" in ended.out


def test_into_a_pipe_a_list_is_lines_with_tabs_and_the_counts_beside_it(run: Run, world: World) -> None:
    world.bury(2)

    ended = run("dead-letter", "list")

    assert [line.split("\t")[:-1] for line in ended.out.splitlines()] == [
        [f"evt_{n}", "schema_mismatch", GROUP, f"stripe.payments/3/{n}", "payment_intent.updated"] for n in range(2)
    ]
    assert ended.err == "2 in all: 2 schema_mismatch\n"


def test_a_list_for_scripts_is_a_line_each_and_one_that_counts(run: Run, world: World) -> None:
    world.park(b'{"email": "PLANTED"')

    ended = run("quarantine", "list", "--json")

    record, counts = ended.lines
    assert (record["reason"], record["detail"], record["endpoint"]) == ("malformed_json", "body", "shop")
    assert record["place"] == "stripe.quarantine/0/0"
    assert datetime.fromisoformat(record["parked_at"]).tzinfo is not None
    assert counts == {"total": 1, "reasons": {"malformed_json": 1}}
    assert "PLANTED" not in ended.out


@pytest.mark.parametrize("group", ["dead-letter", "quarantine"])
def test_where_nothing_is_nothing_is_said(run: Run, world: World, group: str) -> None:
    assert world.replayed == 0
    assert (run(group, "list").code, run(group, "list").err) == (0, "There is nothing.\n")
    assert run(group, "list", "--json").lines == [{"total": 0, "reasons": {}}]
    assert run(group, "show", "evt_1").code == 1
    assert run("dead-letter", "replay").out == "There is nothing.\n"


@pytest.mark.parametrize("command", ["list", "show evt_1", "replay --dry-run", "replay"])
@pytest.mark.parametrize("group", ["dead-letter", "quarantine"])
def test_a_topic_that_is_not_there_is_not_taken_for_an_empty_one(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch, group: str, command: str
) -> None:
    """Of a mistyped prefix it would be wrong to say that nothing is parked."""
    world.bury(1)
    monkeypatch.setenv("STRIPE_INGEST__KAFKA__TOPIC_PREFIX", "strpe")

    ended = run(group, *command.split())

    assert (ended.code, ended.out) == (2, "")
    assert f"strpe.{group}" in ended.err


@pytest.mark.parametrize("name", ["stripe.quarantine/0/1", "evt_1"])
def test_to_show_opens_the_payload(run: Run, world: World, name: str) -> None:
    world.park(b"{")
    body = b'{"id": "evt_1", "amount": 7'
    made = quarantine(
        Unprocessable(
            QuarantineReason.MALFORMED_JSON, "body", "evt_1", endpoint(), body, datetime(2026, 11, 20, tzinfo=UTC)
        ),
        topics=TOPICS, ingest_source="webhook", traceparent="",
    )  # fmt: skip
    world.kafka.append(made)

    (shown,) = run("quarantine", "show", name).lines

    assert shown["value"] == body.decode()
    assert shown["headers"]["event_id"] == "evt_1"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"a": 1.5, "b": [123456789012345678901234567890]}', {"value": {"a": 1.5, "b": [123456789012345678901234567890]}}),
        (b'{"a": NaN}', {"value": '{"a": NaN}'}),
        (b'{"a": 1e999}', {"value": '{"a": 1e999}'}),
        (b"[" * 100_000, {"value": "[" * 100_000}),
        (b"", {"value": ""}),
        ("{}".encode("utf-16"), {"value_base64": "//57AH0A"}),
        (b"{}\xff", {"value_base64": "e33/"}),
    ],
    ids=["json", "not a number", "beyond floats", "deep", "empty", "utf-16", "no text"],
)  # fmt: skip
def test_what_is_shown_is_json_whatever_was_parked(
    run: Run, world: World, body: bytes, shown: Mapping[str, object]
) -> None:
    world.park(body)

    (line,) = run("quarantine", "show", "stripe.quarantine/0/0").out.splitlines()

    read = json.loads(line, parse_constant=pytest.fail)
    assert {name: value for name, value in read.items() if name.startswith("value")} == shown


@pytest.mark.parametrize("when", ["yesterday", "24", "h", "2026-13-01T00:00:00Z", "999999d"])
def test_a_moment_that_is_none_is_a_usage_error(run: Run, world: World, when: str) -> None:
    assert world.replayed == 0
    ended = run("dead-letter", "list", "--since", when)

    assert ended.code == 2
    assert "--since" in ended.err


def test_the_selection_is_the_options(run: Run, world: World) -> None:
    world.bury(3)
    world.bury(2, group=TOPICS.group("refunds"), reason="row_refused")

    def total(*options: str) -> int:
        ended = run("dead-letter", "list", "--json", *options)
        return int(ended.lines[-1]["total"])

    assert total() == 5
    assert total("--id", "evt_0", "--id", "pi_2") == 3
    assert total("--group", GROUP) == 3
    assert total("--reason", "row_refused") == 2
    assert total("--type", "payment_intent.*") == 5
    assert total("--type", "charge.*") == 0
    assert total("--endpoint", "shop") == 5
    assert total("--endpoint", "other") == 0
    assert total("--since", "1h") == 5
    assert total("--until", "1h") == 0
    assert total("--limit", "4") == 4


# --- replay ----------------------------------------------------------------------------------------------------------


def test_a_replay_tells_of_each_record(run: Run, world: World) -> None:
    world.bury(2)

    ended = run("dead-letter", "replay", "--json")

    assert ended.code == 0
    assert {(line["id"], line["outcome"], line["position"]) for line in ended.lines[:-1]} == {
        ("evt_0", "replayed", "stripe.payments/0/0"),
        ("evt_1", "replayed", "stripe.payments/0/1"),
    }
    assert ended.lines[-1] == {"total": 2, "outcomes": {"replayed": 2}}
    assert run("dead-letter", "replay").out == "2 replayed\n"
    assert world.replayed == 4


def test_a_dry_run_changes_nothing(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, None)
    world.bury(150)

    assert run("dead-letter", "replay", "--dry-run").out == "150 would replay\n"
    assert world.replayed == 0


def test_what_was_not_replayed_is_told_and_is_wrong(run: Run, world: World) -> None:
    world.bury(2)
    world.publisher.fail_next(1, PublishRefused("the broker refuses the record"))

    ended = run("dead-letter", "replay")

    assert ended.code == 1
    assert ended.out in {"1 refused, 1 replayed\n", "1 replayed, 1 refused\n"}
    assert "refused: the broker refuses the record" in ended.err


def test_many_records_need_a_word_and_a_script_does_not_hang(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, None)
    world.bury(101)

    refused = run("dead-letter", "replay")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert world.replayed == 0

    assert run("dead-letter", "replay", "--limit", "100").code == 0
    assert world.replayed == 100
    assert run("dead-letter", "replay", "--yes").code == 0
    assert world.replayed == 201


@pytest.mark.parametrize(("answer", "code_and_replayed"), [("y", (0, 101)), ("n", (130, 0))])
def test_on_a_terminal_somebody_is_asked(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch, answer: str, code_and_replayed: tuple[int, int]
) -> None:
    answers(monkeypatch, answer)
    world.bury(101)

    assert (run("dead-letter", "replay").code, world.replayed) == code_and_replayed


def test_a_broker_that_stays_away_is_a_temporary_failure(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    world.bury(1)
    world.publisher.fail_next(10, BrokerUnavailable("kafka is away"))

    ended = run("dead-letter", "replay", "--json")

    assert ended.code == 75
    assert ended.lines[-1] == {"total": 1, "outcomes": {"unavailable": 1}}
    world.kafka.available = False
    assert run("dead-letter", "list").code == 75


def test_ctrl_c_ends_after_what_is_in_flight(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 2)
    world.bury(50)
    world.publisher = InterruptedPublisher(world.kafka)

    ended = run("dead-letter", "replay", "--json")

    assert ended.code == 130
    told = ended.lines[-1]["total"]
    assert 1 <= told < 50
    assert len(ended.lines) == told + 1
    assert world.replayed == told
    assert "start it again" in ended.err


def test_a_quarantine_replay_names_what_is_wrong_before_anything_starts(run: Run, world: World) -> None:
    world.park(b"{")

    unknown = run("quarantine", "replay", "--endpoint-as", "nobody")
    assert (unknown.code, "there is no endpoint 'nobody'; there are shop" in unknown.err) == (2, True)


def test_a_receivers_own_memory_is_no_store_to_recover_with(run: Run, world: World, tmp_path: Path) -> None:
    world.park(b"{")
    with (tmp_path / "stripe-ingest.toml").open("a", encoding="utf-8") as file:
        file.write('[dedupe]\nurl = "memory://"\n')

    for option in ("--dry-run", "--yes"):
        ended = run("quarantine", "replay", option)
        assert ended.code == 2
        assert "dedupe.url: memory:// is the receiver's own" in ended.err
    assert world.replayed == 0
