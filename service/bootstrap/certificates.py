"""Composition of what says when Kafka's certificates expire."""

from typing import Final

import structlog

from service.adapters.certificates import expires
from service.clock import SystemClock
from service.config import Config
from service.telemetry.metrics import ProcessRegistry

_log: Final = structlog.get_logger("service.process")


def show_kafka_certificates(config: Config, registry: ProcessRegistry) -> None:
    """Show when the files' certificates expire that this process has made its TLS context of.

    Once, at the start: the context is the process's for good, and a file that is renewed later mends nothing.
    """
    given = config.kafka.security
    if not given.protocol.endswith("SSL"):
        return
    for name, file in (("kafka/ca", given.ca_file), ("kafka/client", given.certificate_file)):
        if file is None:
            continue
        try:
            ends = expires(file, SystemClock().now())
        except (OSError, ValueError) as error:
            # It was good enough for the TLS library, which knows more kinds of files.
            _log.warning("certificate.unread", certificate=name, reason=type(error).__name__)
        else:
            registry.certificate_not_after.labels(name).set(ends.timestamp())
