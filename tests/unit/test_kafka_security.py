"""TLS and SASL parameters reach the client, and nothing else sees the password."""

from pathlib import Path

import pytest

from service.adapters.kafka_security import KafkaSecurity, SaslCredentials, tls_context
from service.errors import ConfigurationError
from service.events import Secret


def test_credentials_reach_the_client_and_no_repr() -> None:
    security = KafkaSecurity("SASL_SSL", sasl=SaslCredentials("SCRAM-SHA-512", "ingest", Secret("hunter2")))

    arguments = security.client_arguments()

    assert arguments["sasl_plain_password"] == "hunter2"
    assert (arguments["security_protocol"], arguments["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert "hunter2" not in repr(security)


def test_plain_text_sends_no_credentials() -> None:
    assert KafkaSecurity().client_arguments() == {"security_protocol": "PLAINTEXT", "ssl_context": None}


def test_a_missing_file_is_named_by_its_setting(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")

    with pytest.raises(ConfigurationError, match=r"kafka\.security\.ca_file"):
        tls_context(ca_file=missing, certificate_file=None, key_file=None)
    with pytest.raises(ConfigurationError, match=r"kafka\.security\.certificate_file"):
        tls_context(ca_file=None, certificate_file=missing, key_file=missing)


def test_tls_verifies_the_brokers_name() -> None:
    context = tls_context(ca_file=None, certificate_file=None, key_file=None)

    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
