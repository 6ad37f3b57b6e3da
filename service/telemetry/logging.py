"""Structured logs: one canonical line per delivery and per consumed batch, JSON or readable.

No body, signature or secret is ever given to a logger; `_mask` is the net below, for what a library may say.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, Literal

import orjson
import structlog

from service.telemetry.lines import LineWriter

VALUE_CHARS_MAX: Final = 2000
"""A longer value is cut: a hostile or broken value must not flood the log."""

UNREADABLE: Final = frozenset({"trace_id", "secret", "body_bytes", "api_version", "age_seconds", "livemode", "outcome"})
"""Fields that machines want on every line, and that make a line too long for a person's terminal."""

_SECRETS: Final = re.compile(r"(whsec_|sk_live_|sk_test_|rk_live_|rk_test_)[A-Za-z0-9_]+|(://[^/\s:@]*):[^/\s@]+@")
_MARKS: Final = ("whsec_", "k_live_", "k_test_", "://")
"""One of these is in everything that `_SECRETS` matches."""


def configure(format_: Literal["auto", "json", "console"], level: str) -> None:
    """Set up structlog and route the standard library's loggers (aiohttp's, aiokafka's) through it, to stderr."""
    readable = format_ == "console" or (format_ == "auto" and sys.stderr.isatty())
    shared: list[Callable[..., Any]] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable, key="timestamp"),
    ]
    rendering: list[Callable[..., Any]] = (
        [
            structlog.processors.ExceptionRenderer(),
            _mask,
            _brief,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="timestamp", pad_event_to=24),
        ]
        if readable
        else [
            # show_locals would print the frame's variables: bodies and secrets among them.
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
            ),
            _mask,
            structlog.processors.JSONRenderer(serializer=_serialize),
        ]
    )
    handler = _handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _library_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # It warns of every retry, which is what the supervised producer is for; below INFO it shows keys and values.
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("service").setLevel(threshold)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _handler() -> logging.Handler:
    """To stderr. Where that is no file of the system's, but a variable, there is nothing to wait for."""
    try:
        return LineWriter(sys.stderr.fileno())
    except (AttributeError, OSError):  # there is none at all, or it is no file
        return logging.StreamHandler(sys.stderr)


def _library_name(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["logger"] = record.name
    return event


def _brief(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: value for key, value in event.items() if key not in UNREADABLE and value not in (None, "default")}


def _mask(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {key: _masked(value) for key, value in event.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        # Looked for as fixed strings first, which is much cheaper than the pattern: hardly any value has one.
        if any(mark in value for mark in _MARKS):
            value = _SECRETS.sub(r"\1\2***@" if "://" in value else r"\1***", value)
        return value[:VALUE_CHARS_MAX]
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, Mapping):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(item) for item in value]
    return value


def _serialize(event: Any, **_: Any) -> str:
    """JSON that never raises: a logger that fails would turn a log line into a refused delivery."""
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):  # lone surrogates, integers over 64 bits
        return json.dumps(event, default=repr, ensure_ascii=True)
