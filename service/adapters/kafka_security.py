"""How a client proves itself to the brokers: TLS and SASL as one frozen value."""

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from service.errors import ConfigurationError
from service.events import Secret

SecurityProtocol: TypeAlias = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class SaslCredentials:
    """Who the client is, by SASL."""

    mechanism: SaslMechanism
    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """The same for every client of a process. The default is plain text, for a broker on this machine."""

    protocol: SecurityProtocol = "PLAINTEXT"
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    sasl: SaslCredentials | None = None

    def client_arguments(self) -> dict[str, Any]:
        """The keyword arguments of aiokafka's clients."""
        arguments: dict[str, Any] = {"security_protocol": self.protocol, "ssl_context": self.tls}
        if self.sasl is not None:
            arguments |= {
                "sasl_mechanism": self.sasl.mechanism,
                "sasl_plain_username": self.sasl.username,
                "sasl_plain_password": self.sasl.password.value,
            }
        return arguments


def tls_context(*, ca_file: str | None, certificate_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """Verify brokers against `ca_file`, else the system's; show the client's own certificate where there is one.

    Raises `ConfigurationError` naming the file's setting when one cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigurationError(f"kafka.security.ca_file: cannot be used ({error.strerror or error})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate_file is not None:
        try:
            # An empty password makes an encrypted key an error here instead of a prompt on the terminal.
            context.load_cert_chain(certificate_file, key_file, password="")
        except OSError as error:
            raise ConfigurationError(
                f"kafka.security.certificate_file, key_file: cannot be used ({error.strerror or error})"
            ) from error
    return context
