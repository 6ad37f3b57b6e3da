"""When the certificates of files expire, and how that is shown."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.adapters.certificates import der_expires, expires
from service.bootstrap.certificates import show_kafka_certificates
from service.config import Config, KafkaConfig, KafkaSecurityConfig
from service.telemetry.metrics import ProcessRegistry
from tests.support.certificates import make_certificate

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def bundle(folder: Path, *ends: datetime) -> Path:
    file = folder / "bundle.pem"
    file.write_bytes(
        b"".join(make_certificate(folder / f"{index}.pem", ends=end).read_bytes() for index, end in enumerate(ends))
    )
    return file


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((7,), 7),
        ((90, 7, 30), 7),
        ((-3, 30), 30),
        ((-3,), -3),
        ((-3, -1), -1),
    ],
)
def test_a_file_expires_with_the_first_certificate_that_is_valid_now(
    tmp_path: Path, ends: tuple[int, ...], expected: int
) -> None:
    assert expires(bundle(tmp_path, *(NOW + days * DAY for days in ends)), NOW) == NOW + expected * DAY


def test_a_file_without_a_certificate_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"nothing")

    with pytest.raises(ValueError, match="PEM"):
        expires(tmp_path / "empty.pem", NOW)
    with pytest.raises(OSError, match="missing"):
        expires(tmp_path / "missing.pem", NOW)


def test_a_certificate_of_a_version_that_there_is_not_is_an_error_like_any_other(tmp_path: Path) -> None:
    file = make_certificate(tmp_path / "good.pem", ends=NOW + DAY)
    good = ssl.PEM_cert_to_DER_cert(file.read_text()[file.read_text().index("-----BEGIN CERT") :])
    version_3, version_8 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"
    bad = good.replace(version_3, version_8, 1)
    (tmp_path / "bad.pem").write_text(ssl.DER_cert_to_PEM_cert(bad))

    assert der_expires(good) == NOW + DAY
    with pytest.raises(ValueError, match="version"):
        der_expires(bad)
    with pytest.raises(ValueError, match="version"):
        expires(tmp_path / "bad.pem", NOW)


def shown(registry: ProcessRegistry, certificate: str) -> float | None:
    name = "stripe_ingest_certificate_not_after_timestamp_seconds"
    return registry.get_sample_value(name, {"certificate": certificate})


def configured(protocol: str, **files: Path) -> Config:
    security = KafkaSecurityConfig(protocol=protocol, **{name: str(file) for name, file in files.items()})  # type: ignore[arg-type]
    return Config(kafka=KafkaConfig(security=security))


def test_both_of_kafkas_files_are_shown(tmp_path: Path) -> None:
    registry = ProcessRegistry()
    ca = make_certificate(tmp_path / "ca.pem", ends=NOW + 300 * DAY)
    client = make_certificate(tmp_path / "client.pem", ends=NOW + 30 * DAY)

    show_kafka_certificates(configured("SSL", ca_file=ca, certificate_file=client), registry)

    assert shown(registry, "kafka/ca") == (NOW + 300 * DAY).timestamp()
    assert shown(registry, "kafka/client") == (NOW + 30 * DAY).timestamp()


def test_where_there_is_no_tls_or_no_file_nothing_is_shown(tmp_path: Path) -> None:
    registry = ProcessRegistry()
    ca = make_certificate(tmp_path / "ca.pem", ends=NOW + DAY)

    show_kafka_certificates(configured("PLAINTEXT", ca_file=ca), registry)
    show_kafka_certificates(configured("SASL_SSL"), registry)

    assert (shown(registry, "kafka/ca"), shown(registry, "kafka/client")) == (None, None)


def test_a_file_that_only_the_tls_library_can_read_is_told_and_keeps_nobody_from_starting(tmp_path: Path) -> None:
    registry = ProcessRegistry()
    (tmp_path / "odd.pem").write_bytes(
        b"-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n-----END TRUSTED CERTIFICATE-----\n"
    )

    with capture_logs() as lines:
        show_kafka_certificates(configured("SSL", ca_file=tmp_path / "odd.pem"), registry)

    assert shown(registry, "kafka/ca") is None
    assert [(line["event"], line["certificate"]) for line in lines] == [("certificate.unread", "kafka/ca")]
