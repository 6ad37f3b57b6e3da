"""Traces: what is told of the pieces of work on an event's way, in OpenTelemetry's and W3C's terms.

The port, and what stands behind it where nobody wants to be told: ids, which records and log lines carry all the same,
and nothing else. What sends spans to a collector is `telemetry.tracing`.
"""

import random
from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Final, Literal, Protocol, Self, TypeAlias

Kind: TypeAlias = Literal["server", "producer", "consumer", "client", "internal"]

Attributes: TypeAlias = Mapping[str, str | int | float | bool]
"""Never a payload's values but ids, and nothing personal."""

NONE: Final[Attributes] = MappingProxyType({})


class Span(Protocol):
    """A piece of work that takes time, as part of a trace. `with` times it, and notes what was raised in it.

    Calls are cheap and never raise. What is never started, or never ended, is never told of; after its end a span stays
    as it is.
    """

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, the same for all spans of the trace."""
        ...

    @property
    def traceparent(self) -> str:
        """W3C's header for whoever goes on with the trace; its flag says whether the trace is recorded."""
        ...

    def child(self, name: str, kind: Kind = "internal", attributes: Attributes = NONE) -> "Span":
        """A part of this work: it has its ids at once, and begins when it is started."""
        ...

    def start(self) -> None:
        """It begins now."""
        ...

    def end(self, attributes: Attributes = NONE, *, error: str | None = None) -> None:
        """It is over, with these attributes more; `error` is the tag of what went wrong."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracing(Protocol):
    """Begins traces."""

    def root(self, name: str, kind: Kind = "internal", attributes: Attributes = NONE) -> Span:
        """The first span of a new trace."""
        ...

    def following(self, name: str, kind: Kind, attributes: Attributes, traceparents: Iterable[str | None]) -> Span:
        """Work on what came of other traces' spans: part of its trace where that is one, else linked with each.

        What is no `traceparent` is passed over. They are read only where spans are told of.
        """
        ...


class Untold:
    """A span, with all its children, that nobody is told of."""

    __slots__ = ("_trace_id", "_traceparent")

    def __init__(self, trace_id: str, flags: str) -> None:
        self._trace_id = trace_id
        self._traceparent = f"00-{trace_id}-{random.getrandbits(64) or 1:016x}-{flags}"

    @property
    def trace_id(self) -> str:
        """See `Span.trace_id`."""
        return self._trace_id

    @property
    def traceparent(self) -> str:
        """See `Span.traceparent`."""
        return self._traceparent

    def child(self, name: str, kind: Kind = "internal", attributes: Attributes = NONE) -> Self:  # noqa: ARG002 -- the port's
        """See `Span.child`."""
        return self

    def start(self) -> None:
        """See `Span.start`."""

    def end(self, attributes: Attributes = NONE, *, error: str | None = None) -> None:
        """See `Span.end`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class NoTracing:
    """Traces that nobody is told of. Their flag is set: whoever reads the records may record what he does with them."""

    def root(self, name: str, kind: Kind = "internal", attributes: Attributes = NONE) -> Untold:  # noqa: ARG002 -- the port's
        """See `Tracing.root`."""
        return Untold(new_trace_id(), "01")

    def following(
        self,
        name: str,  # noqa: ARG002 -- the port's
        kind: Kind,  # noqa: ARG002
        attributes: Attributes,  # noqa: ARG002
        traceparents: Iterable[str | None],  # noqa: ARG002
    ) -> Untold:
        """See `Tracing.following`."""
        return _NOBODYS


def new_trace_id() -> str:
    """Not all zeros, which W3C's header must not say. It is no secret: the system's randomness would cost more."""
    return f"{random.getrandbits(128) or 1:032x}"


_NOBODYS: Final = Untold(new_trace_id(), "00")

NO_TRACING: Final = NoTracing()
