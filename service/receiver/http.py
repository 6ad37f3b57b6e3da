"""The public HTTP side: requests into deliveries, outcomes into answers. The status table is here and nowhere else.

200  accepted | duplicate | quarantined
400  signature_missing | signature_malformed | signature_mismatch | timestamp_outside_tolerance | client_gone
403  address_not_allowed       404  endpoint_unknown      405  method_not_allowed
408  body_too_slow             413  body_too_large        415  encoding_unsupported
503  broker_unavailable | dedupe_unavailable | in_flight | overloaded | shutting_down | internal_error
     (with Retry-After)
"""

import asyncio
import ipaddress
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from service.config import IPNetwork
from service.contract import Event
from service.errors import (
    AddressNotAllowed,
    BodyCutShort,
    BodyTooLarge,
    DeliveryRefused,
    EncodingUnsupported,
    EndpointUnknown,
    IngestError,
    MethodNotAllowed,
    Overloaded,
    PublishRefused,
    ShuttingDown,
    TimestampOutsideTolerance,
    Unavailable,
)
from service.events import Accepted, Delivery, Duplicate, Endpoint, Quarantined
from service.normalize.event_types import CATALOGUE, PING
from service.normalize.vocabulary import unknown_values
from service.receiver.ingest import Ingest, Ingested, ingest
from service.receiver.reading import Reading
from service.receiver.skew import SkewWatch
from service.signature import fingerprint
from service.telemetry.catalogue import UNLISTED
from service.telemetry.instruments import exemplar
from service.telemetry.metrics import ReceiverMetrics
from service.telemetry.traces import traced
from service.tracing import Attributes

BODY_SECONDS_MAX: Final = 3.0
"""The body's part of the answer's time budget."""

BODIES_PER_SLOT: Final = 4
READING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bodies that may be read at once, for each delivery that may be in flight, and their bytes. They are not counted as
in flight: whoever opens connections and sends no signed body would have all slots for as long as a body may take."""

NEWS_TOLD_MAX: Final = 100
"""Of each kind of news, unlisted event types and fields with unknown values, so many are logged, each once; only their
counts go on."""

UNFORESEEN_RETRY_SECONDS: Final = 60

UNMATCHED: Final = "unmatched"
"""The endpoint label of a request that names none: paths are a stranger's to choose."""


class _Brief(logging.Filter):
    """aiohttp tells every unreadable request at length: a traceback, and the stranger's own bytes."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
            record.msg, record.args, record.exc_info = "a request could not be read", (), None
        return True


_protocol_log: Final = logging.getLogger("service.receiver.protocol")
_protocol_log.addFilter(_Brief())

RUNNER_OPTIONS: Final[Mapping[str, Any]] = {
    "access_log": None,  # one canonical line of our own per delivery
    "auto_decompress": False,  # inflating for strangers is a CPU amplifier
    "keepalive_timeout": 75.0,  # also the only bound on slow headers; above a load balancer's idle time
    "lingering_time": 1.0,
    "logger": _protocol_log,
    "max_line_size": 4096,
    "max_field_size": 8190,
    "max_headers": 64,
}
"""aiohttp's server, hardened: what its defaults leave open, and why it is closed here."""

_REQUEST: Final[Attributes] = {"http.request.method": "POST", "url.scheme": "http"}

_log = structlog.get_logger("service.receiver")


@dataclass(frozen=True, slots=True)
class Limits:
    """The receiver's bounds."""

    max_body_bytes: int
    max_in_flight: int
    answer_timeout_seconds: float


@dataclass(slots=True)
class Receiver:
    """The public side of one process."""

    endpoints: Mapping[str, Endpoint]
    """By path; replaced as a whole, never changed."""
    ingest: Ingest
    limits: Limits
    metrics: ReceiverMetrics
    allowed_networks: Sequence[IPNetwork] | None = None
    draining: bool = False
    in_flight: int = 0
    """Deliveries with their body read."""
    _told: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Kind of news → what was told. Each has a budget of its own: a flood of one must not silence the other."""
    skew: SkewWatch = field(init=False)
    reading: Reading = field(init=False)

    def __post_init__(self) -> None:
        self.skew = SkewWatch(self.metrics)
        self.reading = Reading(bodies_max=BODIES_PER_SLOT * self.limits.max_in_flight, bytes_max=READING_BYTES_MAX)
        self.metrics.in_flight_limit.set(self.limits.max_in_flight)
        self._show_endpoints()

    def serve(self, endpoints: Iterable[Endpoint]) -> None:
        """Serve these endpoints and no others, from the next request on; one that has begun keeps its endpoint."""
        self.endpoints = {endpoint.path: endpoint for endpoint in endpoints}
        self._show_endpoints()

    def _show_endpoints(self) -> None:
        self.metrics.serve([endpoint.name for endpoint in self.endpoints.values()])
        self.metrics.active_secrets.clear()
        for endpoint in self.endpoints.values():
            for name in map(fingerprint, endpoint.secrets):
                self.metrics.active_secrets.labels(endpoint.name, name).set(1)
            if not endpoint.secrets:
                self.metrics.active_secrets.labels(endpoint.name, "").set(0)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request, whatever it is: one answer, one log line, one count."""
        started = time.perf_counter()
        line: dict[str, Any] = {"endpoint": UNMATCHED}
        status, headers, body = await self._answer(request, line)
        seconds = time.perf_counter() - started
        endpoint, outcome = line["endpoint"], line["outcome"]
        self.metrics.deliveries.labels(endpoint, outcome).inc()
        self.metrics.duration.labels(endpoint, _result(status)).observe(seconds, exemplar(line.get("trace_id")))
        level = "debug" if endpoint == UNMATCHED else "info" if status == 200 else "warning"
        getattr(_log, level)(f"delivery.{outcome}", status=status, duration_ms=round(seconds * 1000, 2), **line)
        return web.Response(status=status, body=orjson.dumps(body), headers=headers, content_type="application/json")

    async def _answer(
        self, request: web.Request, line: dict[str, Any]
    ) -> tuple[int, dict[str, str], Mapping[str, object]]:
        """Status, headers and body of the answer; `line` gathers the log line's fields."""
        try:
            return 200, {}, self._settled(await self._ingest(request, line), line)
        except DeliveryRefused as refused:
            line["outcome"] = refused.tag
            if isinstance(refused, TimestampOutsideTolerance):
                self.skew.refused(line["endpoint"], refused.skew_seconds)
            # The body may be half read: the connection cannot be used again.
            return refused.status, {"Connection": "close", **refused.headers}, _error(refused)
        except Unavailable as unavailable:
            line["outcome"] = unavailable.tag
            return 503, {"Retry-After": str(unavailable.retry_after_seconds)}, _error(unavailable)
        except PublishRefused as refused:
            # A topic or its permissions are wrong: nothing is lost as long as Stripe keeps it.
            line["outcome"] = refused.tag
            return 503, {"Retry-After": "60"}, {"error": "broker_unavailable", "detail": "the broker refuses records"}
        except Exception as unforeseen:  # noqa: BLE001 -- the last resort of a process that must answer
            line["outcome"] = IngestError.tag
            _log.error("delivery.unforeseen", endpoint=line["endpoint"], **traced(unforeseen))
            # A fault of ours, which the next attempt may not meet: the event is safe with Stripe for three days.
            headers = {"Connection": "close", "Retry-After": str(UNFORESEEN_RETRY_SECONDS)}
            return 503, headers, {"error": IngestError.tag, "detail": "see the receiver's log"}

    async def _ingest(self, request: web.Request, line: dict[str, Any]) -> Ingested:
        deadline = asyncio.get_running_loop().time() + self.limits.answer_timeout_seconds
        endpoint = self._admit(request, line)
        body = await self._body(request, deadline)
        delivery = Delivery(
            endpoint=endpoint,
            body=body,
            signature_headers=tuple(
                value for name, value in request.raw_headers if name.lower() == b"stripe-signature"
            ),
            received_at=self.ingest.clock.now(),
        )
        line["body_bytes"] = len(body)
        with self._slot():
            return await self._traced(delivery, deadline, line)

    async def _traced(self, delivery: Delivery, deadline: float, line: dict[str, Any]) -> Ingested:
        """Ingest, as a trace of its own. A delivery that is refused leaves none: strangers must not fill the collector.

        A `traceparent` of the request is not believed. Stripe sends none, and whoever else does would choose which
        traces his deliveries are part of, and whether they are recorded.
        """
        path = delivery.endpoint.path
        attributes = {**_REQUEST, "http.route": path, "url.path": path, "stripe_ingest.endpoint": line["endpoint"]}
        span = self.ingest.tracing.root(f"POST {path}", "server", attributes)
        span.start()
        try:
            ingested = await ingest(delivery, self.ingest, deadline=deadline, span=span)
        except DeliveryRefused:
            raise
        except Exception as failure:
            line["trace_id"] = span.trace_id
            tag = failure.tag if isinstance(failure, IngestError) else IngestError.tag
            span.end({"http.response.status_code": 503, "stripe_ingest.outcome": tag}, error=tag)
            raise
        span.end({"http.response.status_code": 200, "stripe_ingest.outcome": ingested.outcome.tag})
        return ingested

    def _admit(self, request: web.Request, line: dict[str, Any]) -> Endpoint:
        """The endpoint of a request, before anything of its body is read."""
        endpoint = self.endpoints.get(request.path)
        if endpoint is None:
            raise EndpointUnknown("no endpoint has this path")
        line["endpoint"] = endpoint.name
        if request.method != "POST":
            raise MethodNotAllowed("deliveries are POSTed")
        if self.allowed_networks is not None and not _is_within(request.remote, self.allowed_networks):
            raise AddressNotAllowed("this address is not among receiver.allow_ips")
        if self.draining:
            raise ShuttingDown("this process is stopping")
        self._check_slots()  # here as well: a body that nobody will look at need not be read
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise EncodingUnsupported("the body must not be compressed")
        if (request.content_length or 0) > self.limits.max_body_bytes:
            raise BodyTooLarge(f"the body is over {self.limits.max_body_bytes} bytes")
        return endpoint

    async def _body(self, request: web.Request, deadline: float) -> bytes:
        size = self.limits.max_body_bytes if request.content_length is None else request.content_length
        until = min(asyncio.get_running_loop().time() + BODY_SECONDS_MAX, deadline)
        try:
            async with self.reading.body(size, until=until):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise BodyTooLarge(f"the body is over {self.limits.max_body_bytes} bytes") from None
        except (ConnectionError, web.RequestPayloadError):
            raise BodyCutShort("the body was cut short") from None

    def _settled(self, ingested: Ingested, line: dict[str, Any]) -> Mapping[str, object]:
        """Count and tell a delivery that is safe; return the answer's body."""
        endpoint = ingested.verified.endpoint.name
        line |= {"trace_id": ingested.trace_id, "secret": ingested.verified.secret_fingerprint}
        self.metrics.secret_used.labels(endpoint, ingested.verified.secret_fingerprint).inc()
        verified = ingested.verified
        self.skew.accepted(endpoint, (verified.signed_at - verified.received_at).total_seconds())
        if (event := ingested.event) is not None:
            # The first attempt is made within seconds: what is older was not taken before, or not seen to be.
            resend_age_seconds = (verified.signed_at - event.created_at).total_seconds()
            self.metrics.resend_age.labels(endpoint).observe(max(resend_age_seconds, 0.0))
            line |= {
                "event_id": event.event_id,
                "event_type": event.event_type,
                "account": event.account,
                "livemode": event.livemode,
                "api_version": event.api_version,
                "object_id": event.object_id,
            }
        match ingested.outcome:
            case Accepted(event_id, position):
                line |= {
                    "outcome": "accepted",
                    "topic": position.topic,
                    "partition": position.partition,
                    "offset": position.offset,
                }
                if event is not None:
                    age_seconds = (ingested.verified.received_at - event.created_at).total_seconds()
                    line["age_seconds"] = round(age_seconds, 3)
                    self.metrics.event_age.labels(endpoint).observe(max(age_seconds, 0.0), exemplar(ingested.trace_id))
                    self._count(event, endpoint)
                self.metrics.event_accepted(endpoint)
                return {"status": "accepted", "id": event_id}
            case Duplicate(event_id):
                line["outcome"] = "duplicate"
                return {"status": "duplicate", "id": event_id}
            case Quarantined(event_id, reason):
                line |= {"outcome": "quarantined", "event_id": event_id, "reason": reason.value}
                self.metrics.quarantined.labels(reason.value).inc()
                return {"status": "quarantined", "id": event_id, "reason": reason.value}

    def _count(self, event: Event, endpoint: str) -> None:
        """Count an accepted event, and what of it is news to this version."""
        listed = event.event_type in CATALOGUE
        self.metrics.events.labels(event.category, event.event_type if listed else UNLISTED).inc()
        if event.event_type == PING:
            self.metrics.pings.labels(endpoint).inc()
        if not listed:
            self.metrics.unlisted_events.labels(endpoint).inc()
            if self._is_news("event.unlisted", event.event_type):
                _log.warning("event.unlisted", endpoint=endpoint, event_id=event.event_id, event_type=event.event_type)
        for name in unknown_values(event):
            self.metrics.unknown_values.labels(name).inc()
            if self._is_news("event.unknown_value", name):
                # Never the value, which comes from a payload: the event has it.
                _log.warning("event.unknown_value", endpoint=endpoint, event_id=event.event_id, field=name)

    def _is_news(self, kind: str, what: str) -> bool:
        """Whether this comes for the first time, and is to be told."""
        told = self._told[kind]
        if what in told or len(told) >= NEWS_TOLD_MAX:
            return False
        told.add(what)
        return True

    @contextmanager
    def _slot(self) -> Iterator[None]:
        self._check_slots()
        self.in_flight += 1
        self.metrics.in_flight.set(self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1
            self.metrics.in_flight.set(self.in_flight)

    def _check_slots(self) -> None:
        if self.in_flight >= self.limits.max_in_flight:
            raise Overloaded("too many deliveries are in flight")


def build_app(receiver: Receiver) -> web.Application:
    """The public application: every path and method comes to the one handler, so that every answer is the table's."""
    app = web.Application(client_max_size=receiver.limits.max_body_bytes)
    app.router.add_route("*", "/{path:.*}", receiver.handle, expect_handler=_expect)
    return app


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Answer `Expect: 100-continue` only for a body that could be taken."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        return web.Response(status=417)
    if (request.content_length or 0) <= request.app._client_max_size:  # noqa: SLF001 -- aiohttp has no public name
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


def _result(status: int) -> str:
    """What an answer is to Stripe, which sends again what is not safe."""
    return "safe" if status == 200 else "unavailable" if status >= 500 else "refused"


def _error(error: IngestError) -> Mapping[str, object]:
    return {"error": error.tag, "detail": str(error)}


def _is_within(address: str | None, networks: Sequence[IPNetwork]) -> bool:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    return any(parsed in network for network in networks)
