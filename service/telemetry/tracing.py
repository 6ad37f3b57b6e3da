"""Spans for a collector, by OTLP over HTTP: `service.tracing`'s port on OpenTelemetry's SDK, which is an extra.

Which traces are recorded is decided here, by their ids: a trace that is not costs its ids and nothing else, and every
process comes to the same decision about the same trace. Ended spans go into the SDK's bounded queue, and a thread of
its sends them; a collector that is slow or away costs spans, never a delivery.
"""

import asyncio
import logging
import random
import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import islice
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import structlog
from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from service.errors import IngestError
from service.telemetry.seldom import Seldom
from service.tracing import NONE, Attributes, Kind, Span, Untold, new_trace_id

TRACES_PATH: Final = "/v1/traces"
QUEUE_SPANS_MAX: Final = 4096
BATCH_SPANS_MAX: Final = 512
SEND_SECONDS: Final = 2.0
"""How long spans gather before they are sent."""
EXPORT_SECONDS_MAX: Final = 5.0
"""For sending a batch, with all its retries."""
LINKS_MAX: Final = 128
"""Of a batch with more traces in it the first are linked; also what the SDK keeps at most."""

_VERSION: Final = version("stripe-ingest")
_KINDS: Final = {
    "server": otel.SpanKind.SERVER,
    "producer": otel.SpanKind.PRODUCER,
    "consumer": otel.SpanKind.CONSUMER,
    "client": otel.SpanKind.CLIENT,
    "internal": otel.SpanKind.INTERNAL,
}
_SAMPLED: Final = otel.TraceFlags(otel.TraceFlags.SAMPLED)
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

_log: Final = structlog.get_logger("service.tracing")


class OtlpTracing:
    """`tracing.Tracing` that sends spans to a collector.

    To be made after a fork, since it has a thread; and off the event loop, since the SDK looks into files for that.
    """

    def __init__(self, exporter: SpanExporter, *, sample_ratio: float) -> None:
        # An id's lower half is below this: the SDK's own rule, so that others who sample alike keep the same traces.
        self._bound = round(sample_ratio * 2**64)
        self._ids = _Ids()
        self._processor = BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE_SPANS_MAX,
            max_export_batch_size=BATCH_SPANS_MAX,
            schedule_delay_millis=SEND_SECONDS * 1000,
        )
        provider = TracerProvider(
            sampler=ALWAYS_ON,  # of those that are begun at all
            id_generator=self._ids,
            shutdown_on_exit=False,
            resource=Resource.create(
                {
                    "service.name": "stripe-ingest",
                    "service.version": _VERSION,
                    "service.instance.id": str(uuid4()),
                }
            ),
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("service")

    @classmethod
    def to(cls, endpoint: str, *, sample_ratio: float) -> Self:
        """To the collector at this base URL; what else an exporter may be told stands in `OTEL_EXPORTER_OTLP_…`."""
        # It says each attempt that failed, in its own words; `_Seldom` says it once a minute.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + TRACES_PATH, timeout=EXPORT_SECONDS_MAX)
        return cls(_Counting(exporter), sample_ratio=sample_ratio)

    def root(self, name: str, kind: Kind = "internal", attributes: Attributes = NONE) -> Span:
        """See `Tracing.root`."""
        trace_id = new_trace_id()
        if not self._is_sampled(trace_id):
            return Untold(trace_id, "00")
        return _Told(self, trace_id, name, kind, attributes)

    def following(self, name: str, kind: Kind, attributes: Attributes, traceparents: Iterable[str | None]) -> Span:
        """See `Tracing.following`."""
        several = list(traceparents)
        causes = list(islice((cause for each in several if (cause := self._recorded(each)) is not None), LINKS_MAX))
        if not causes:
            return Untold(new_trace_id(), "00")
        if len(several) == 1:
            trace_id = otel.format_trace_id(causes[0].trace_id)
            return _Told(self, trace_id, name, kind, attributes, parent=causes[0], links=causes)
        return _Told(self, new_trace_id(), name, kind, attributes, links=causes)

    async def close(self, *, timeout_seconds: float) -> None:
        """Send what waits, for so long at most."""
        loop = asyncio.get_running_loop()
        sent = asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK's
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(sent.set)

        # The SDK waits for half a minute. A thread that nobody joins ends with the process.
        threading.Thread(target=shut_down, name="tracing-shutdown", daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(sent.wait(), timeout_seconds)

    def begin(self, span: "_Told") -> otel.Span:
        """Start a span of the SDK's for one of ours."""
        self._ids.next = span.ids
        return self._tracer.start_span(
            span.name,
            context=otel.set_span_in_context(otel.NonRecordingSpan(span.parent)) if span.parent is not None else None,
            kind=_KINDS[span.kind],
            attributes=span.attributes,
            links=[otel.Link(cause) for cause in span.links],
        )

    def _is_sampled(self, trace_id: str) -> bool:
        return int(trace_id[16:], 16) < self._bound

    def _recorded(self, traceparent: str | None) -> otel.SpanContext | None:
        """The span that a header names, where it is recorded."""
        found = _TRACEPARENT.fullmatch(traceparent or "")
        if found is None or not int(found[3], 16) & otel.TraceFlags.SAMPLED or not self._is_sampled(found[1]):
            return None
        return otel.SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=_SAMPLED)


class _Told:
    """A span of a recorded trace. It has its ids before it begins: a record names the span that will send it."""

    __slots__ = ("_ended", "_span", "_tracing", "attributes", "ids", "kind", "links", "name", "parent", "trace_id")

    def __init__(
        self,
        tracing: OtlpTracing,
        trace_id: str,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        parent: otel.SpanContext | None = None,
        links: Sequence[otel.SpanContext] = (),
    ) -> None:
        self._tracing = tracing
        self._span: otel.Span | None = None
        self._ended = False
        self.trace_id = trace_id
        self.ids = (int(trace_id, 16), random.getrandbits(64) or 1)
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.parent = parent
        self.links = links

    @property
    def traceparent(self) -> str:
        """See `Span.traceparent`."""
        return f"00-{self.trace_id}-{self.ids[1]:016x}-01"

    def child(self, name: str, kind: Kind = "internal", attributes: Attributes = NONE) -> "_Told":
        """See `Span.child`."""
        parent = otel.SpanContext(*self.ids, is_remote=False, trace_flags=_SAMPLED)
        return _Told(self._tracing, self.trace_id, name, kind, attributes, parent=parent)

    def start(self) -> None:
        """See `Span.start`."""
        if self._span is None:
            self._span = self._tracing.begin(self)

    def end(self, attributes: Attributes = NONE, *, error: str | None = None) -> None:
        """See `Span.end`."""
        if self._span is None or self._ended:
            return
        self._ended = True
        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(otel.StatusCode.ERROR)  # without a description: messages may say too much
        self._span.end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.end()
        else:
            self.end(error=error.tag if isinstance(error, IngestError) else type(error).__name__)


class _Ids(IdGenerator):
    """Gives the SDK the ids that a span has already. Used from the event loop's thread alone."""

    next: tuple[int, int] = (1, 1)

    def generate_trace_id(self) -> int:
        """The trace's."""
        return self.next[0]

    def generate_span_id(self) -> int:
        """The span's."""
        return self.next[1]


class _Counting(SpanExporter):
    """An exporter whose failures are told: seldom, and with how many spans they cost. Called by the SDK's thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._seldom = Seldom()
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; whatever happens, say whether it got there."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 -- the SDK would log it with its message, which may quote anything
            result, reason = SpanExportResult.FAILURE, type(error).__name__
        else:
            reason = "the collector does not take them"
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if self._seldom.due() is not None:
                _log.warning("tracing.not_sent", reason=reason, spans=self._lost)
                self._lost = 0
        return result

    def shutdown(self) -> None:
        """Give up what is under way."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)
