"""Spans: which are told of, with which ids, and that a collector's troubles are nobody else's."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id, format_trace_id
from structlog.testing import capture_logs

from service.bootstrap.tracing import check_tracing
from service.config import Config, TracingConfig
from service.consumer.spans import BatchSpans
from service.errors import BrokerUnavailable
from service.events import ConsumedRecord, Partition
from service.telemetry import tracing as module
from service.telemetry.tracing import LINKS_MAX, QUEUE_SPANS_MAX, OtlpTracing, _Counting
from service.tracing import NO_TRACING, Tracing
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


class Kept(SpanExporter):
    """What was sent; a gate to wait at, or a failure."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.calls = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.calls += 1
        self.gate.wait(20)
        if self.failure is not None:
            raise self.failure
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


@asynccontextmanager
async def tracing(kept: Kept, ratio: float = 1.0) -> AsyncIterator[OtlpTracing]:
    made = await asyncio.to_thread(OtlpTracing, _Counting(kept), sample_ratio=ratio)
    try:
        yield made
    finally:
        await made.close(timeout_seconds=5)


def record(
    traceparent: str | None, *, topic: str = "stripe.payments", number: int = 0, offset: int = 7
) -> ConsumedRecord:
    headers = () if traceparent is None else (("traceparent", traceparent.encode()),)
    return ConsumedRecord(Partition(topic, number), offset, b"pi_1", b"{}", headers, 0)


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return format_trace_id(span.context.trace_id), format_span_id(span.context.span_id)


async def test_spans_have_the_ids_that_were_told_before_they_began() -> None:
    kept = Kept()
    async with tracing(kept) as made:
        root = made.root("POST /webhooks/shop", "server", {"http.request.method": "POST"})
        sending = root.child("send stripe.payments", "producer")
        with root, sending:
            pass

    sent, whole = kept.spans
    assert f"00-{'-'.join(ids(whole))}-01" == root.traceparent
    assert f"00-{'-'.join(ids(sent))}-01" == sending.traceparent
    assert root.trace_id == sending.trace_id == ids(whole)[0]
    assert sent.parent is not None
    assert format_span_id(sent.parent.span_id) == ids(whole)[1]
    assert whole.parent is None
    assert whole.attributes == {"http.request.method": "POST"}


async def test_what_was_never_started_or_never_ended_is_not_told_of() -> None:
    kept = Kept()
    async with tracing(kept) as made:
        root = made.root("refused")
        root.start()
        root.child("never started").end()

    assert kept.spans == []


async def test_the_first_end_counts() -> None:
    kept = Kept()
    async with tracing(kept) as made:
        with made.root("send") as span:
            span.end({"messaging.kafka.offset": 7})
            span.end({"messaging.kafka.offset": 8}, error="broker_unavailable")

    (only,) = kept.spans
    assert only.attributes == {"messaging.kafka.offset": 7}
    assert only.status.is_unset


async def test_what_is_raised_is_named_by_its_tag_and_says_nothing_more() -> None:
    kept = Kept()
    async with tracing(kept) as made:
        for failure in (BrokerUnavailable("jenny@example.com"), ValueError("jenny@example.com")):
            with pytest.raises(type(failure)), made.root("send"):
                raise failure

    assert [dict(span.attributes or {}) for span in kept.spans] == [
        {"error.type": "broker_unavailable"},
        {"error.type": "ValueError"},
    ]
    assert not any("jenny" in span.to_json() for span in kept.spans)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
async def test_a_trace_is_recorded_whole_or_not_at_all_and_its_header_says_which(ratio: float) -> None:
    kept = Kept()
    flags = []
    async with tracing(kept, ratio) as made:
        for _ in range(2000):
            with made.root("root") as root, root.child("child") as child:
                pass
            flags.append(child.traceparent[-2:])
            assert root.traceparent[:36] == child.traceparent[:36]
            assert root.traceparent[-2:] == flags[-1]

    assert set(flags) <= {"00", "01"}
    assert flags.count("01") == pytest.approx(2000 * ratio, abs=120)
    assert len(kept.spans) == 2 * flags.count("01")


async def test_every_process_decides_alike_about_a_trace() -> None:
    kept = Kept()
    async with tracing(Kept(), 0.5) as receiver, tracing(kept, 0.5) as consumer:
        roots = [receiver.root("root") for _ in range(200)]
        # As they come from a receiver that does not trace: the flag is set on all.
        for root in roots:
            with BatchSpans(consumer).processing([record(root.traceparent[:-2] + "01")]):
                pass

    recorded = {root.trace_id for root in roots if root.traceparent.endswith("01")}
    assert {ids(span)[0] for span in kept.spans} == recorded


async def test_a_batch_of_one_record_goes_on_with_its_trace() -> None:
    kept = Kept()
    async with tracing(kept) as made:
        sending = made.root("send stripe.payments", "producer")
        spans = BatchSpans(made, "stripe-ingest.payments")
        with spans.processing([record(sending.traceparent)]) as processing, spans.committing(processing):
            pass

    commit, process = kept.spans
    assert process.parent is not None
    assert format_span_id(process.parent.span_id) == sending.traceparent[36:52]
    assert {ids(span)[0] for span in (commit, process)} == {sending.trace_id}
    assert process.name == "process stripe.payments"
    assert process.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "stripe.payments",
        "messaging.consumer.group.name": "stripe-ingest.payments",
        "messaging.batch.message_count": 1,
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 7,
    }
    assert commit.parent is not None
    assert format_span_id(commit.parent.span_id) == ids(process)[1]


async def test_a_batch_of_several_is_a_trace_of_its_own_linked_with_each_recorded_one_up_to_a_bound() -> None:
    kept = Kept()
    async with tracing(kept) as made:
        sent = [made.root("send").traceparent for _ in range(LINKS_MAX + 10)]
        strange = [None, "", "garbage", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'2' * 16}-00", sent[0] + "-x"]
        records = [record(each, number=number % 2) for number, each in enumerate([*strange, *sent])]
        with BatchSpans(made).processing(records):
            pass

    (only,) = kept.spans
    assert only.parent is None
    assert [f"00-{link.context.trace_id:032x}-{link.context.span_id:016x}-01" for link in only.links] == sent[
        :LINKS_MAX
    ]
    assert ids(only)[0] not in {each[3:35] for each in sent}
    assert only.attributes is not None
    assert only.attributes["messaging.batch.message_count"] == len(records)
    assert "messaging.destination.partition.id" not in only.attributes


async def test_a_batch_without_a_recorded_trace_is_not_told_of() -> None:
    kept = Kept()
    async with tracing(kept) as made:
        with BatchSpans(made).processing([record(None), record(f"00-{'1' * 32}-{'2' * 16}-00")]):
            pass

    assert kept.spans == []


async def test_a_collector_that_is_slow_costs_spans_and_no_memory_and_no_time() -> None:
    kept = Kept()
    kept.gate.clear()
    loop = asyncio.get_running_loop()
    async with tracing(kept) as made:
        with made.root("first"):
            pass
        for _ in range(QUEUE_SPANS_MAX + 1000):
            with made.root("more"):
                pass
        await eventually(lambda: kept.calls == 1, what="the collector is asked")
        kept.gate.set()

    assert len(kept.spans) <= QUEUE_SPANS_MAX + module.BATCH_SPANS_MAX
    assert loop.is_running()


async def test_a_collector_that_fails_is_told_of_seldom_and_without_its_words() -> None:
    kept = Kept()
    kept.failure = OSError("jenny@example.com")
    with capture_logs() as lines:
        async with tracing(kept) as made:
            for _ in range(3):
                with made.root("root"):
                    pass

    assert lines == [{"event": "tracing.not_sent", "log_level": "warning", "reason": "OSError", "spans": 3}]


async def test_the_end_does_not_wait_for_a_collector_that_has_fallen_silent() -> None:
    kept = Kept()
    kept.gate.clear()
    made = await asyncio.to_thread(OtlpTracing, kept, sample_ratio=1.0)
    with made.root("root"):
        pass
    loop = asyncio.get_running_loop()

    started = loop.time()
    await made.close(timeout_seconds=0.1)

    assert loop.time() - started < 2
    kept.gate.set()


async def test_a_collector_that_is_away_is_no_concern_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXPORT_SECONDS_MAX", 0.2)
    with capture_logs() as lines:
        made = await asyncio.to_thread(OtlpTracing.to, "http://127.0.0.1:9", sample_ratio=1.0)
        with made.root("root"):
            pass
        await made.close(timeout_seconds=10)

    assert [(line["event"], line["spans"]) for line in lines] == [("tracing.not_sent", 1)]


def test_without_tracing_there_are_ids_and_nothing_else() -> None:
    root = NO_TRACING.root("POST /webhooks/shop", "server")

    assert root.child("send stripe.payments").traceparent == root.traceparent
    assert root.traceparent[3:35] == root.trace_id
    assert root.traceparent.endswith("-01")
    assert NO_TRACING.root("another").trace_id != root.trace_id


def test_without_tracing_no_record_is_read_for_it() -> None:
    tracing: Tracing = NO_TRACING

    span = tracing.following("process", "consumer", {}, (1 // 0 for _ in range(1)))  # type: ignore[misc]

    with span:
        assert span.traceparent.endswith("-00")


def run(code: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: what it imports, this one has."""
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
    )


def test_where_it_is_not_asked_for_nothing_of_it_is_imported() -> None:
    ran = run(
        "import asyncio, sys\n"
        "import service.bootstrap.receiver, service.bootstrap.consumer, service.commands.receive\n"
        "from service.bootstrap.tracing import tracing\n"
        "from service.config import Config\n"
        "async def main():\n"
        "    async with tracing(Config()) as made:\n"
        "        with made.root('x') as span: print(span.traceparent)\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )

    header, imported = ran.stdout.splitlines()
    assert header.startswith("00-")
    assert imported == "[]"


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.exporter", "google"])
def test_where_its_package_is_missing_the_message_says_what_to_install(missing: str) -> None:
    ran = run(
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from service.bootstrap.tracing import check_tracing\n"
        "from service.config import Config, TracingConfig\n"
        "from service.errors import ConfigurationError\n"
        "try:\n"
        "    check_tracing(Config(tracing=TracingConfig(otlp_endpoint='http://127.0.0.1:4318')))\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )

    assert ran.stdout.strip() == (
        'tracing.otlp_endpoint: needs a package that is not installed: pip install "stripe-ingest[otel]"'
    )


def test_where_it_is_there_nothing_is_wrong() -> None:
    check_tracing(Config(tracing=TracingConfig(otlp_endpoint="http://127.0.0.1:4318")))
    check_tracing(Config())
