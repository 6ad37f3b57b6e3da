"""A collector that takes spans by OTLP over HTTP, on a free loopback port."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it came over the wire."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    """The spans that it is linked with, as trace id-span id."""
    attributes: dict[str, object]
    resource: dict[str, object]
    failed: bool
    start: int
    end: int

    @property
    def ids(self) -> str:
        return f"{self.trace_id}-{self.span_id}"


@dataclass
class Collector:
    """What it has got; `status` is what it answers."""

    url: str = ""
    status: int = 200
    requests: int = 0
    spans: list[Received] = field(default_factory=list)

    def named(self, prefix: str) -> list[Received]:
        return [span for span in self.spans if span.name.startswith(prefix)]

    async def take(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.status == 200:
            given = ExportTraceServiceRequest.FromString(await request.read())
            for group in given.resource_spans:
                resource = _plain(group.resource.attributes)
                self.spans += [_received(span, resource) for scope in group.scope_spans for span in scope.spans]
        return web.Response(status=self.status)


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """A collector that answers, inside the block."""
    made = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield made
    finally:
        await runner.cleanup()


def _received(span: WireSpan, resource: dict[str, object]) -> Received:
    return Received(
        name=span.name,
        kind=WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple(f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in span.links),
        attributes=_plain(span.attributes),
        resource=resource,
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
    )


def _plain(attributes: Iterable[KeyValue]) -> dict[str, object]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in attributes}
