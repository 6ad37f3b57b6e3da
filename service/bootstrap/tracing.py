"""Composition of tracing. The SDK is imported where it is asked for, and nowhere else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from service.config import Config
from service.errors import ConfigurationError
from service.tracing import NO_TRACING, Tracing

if TYPE_CHECKING:
    from service.telemetry.tracing import OtlpTracing

CLOSE_SECONDS_MAX: Final = 3.0
"""For what waits at the end."""


@asynccontextmanager
async def tracing(config: Config) -> AsyncIterator[Tracing]:
    """What tells of spans, inside the block; to a collector where one is configured. Raises `ConfigurationError`."""
    endpoint = config.tracing.otlp_endpoint
    if endpoint is None:
        yield NO_TRACING
        return
    found = await asyncio.to_thread(_otlp_tracing().to, endpoint, sample_ratio=config.tracing.sample_ratio)
    try:
        yield found
    finally:
        await found.close(timeout_seconds=CLOSE_SECONDS_MAX)


def check_tracing(config: Config) -> None:
    """Raise `ConfigurationError` where spans are to be sent, and what sends them is not installed."""
    if config.tracing.otlp_endpoint is not None:
        _otlp_tracing()


def _otlp_tracing() -> "type[OtlpTracing]":
    try:
        from service.telemetry.tracing import OtlpTracing  # noqa: PLC0415 -- its SDK is an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"opentelemetry", "requests", "google"}:
            raise
        raise ConfigurationError(
            'tracing.otlp_endpoint: needs a package that is not installed: pip install "stripe-ingest[otel]"'
        ) from None
    return OtlpTracing
