"""When certificates expire, by what is in their files."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cryptography import x509


def expires(pem_file: str | Path, now: datetime) -> datetime:
    """When a file of certificates in PEM is no longer good for what it is for.

    Of several that is when the first of them expires that is valid now: of an authority's old and new certificate one
    does not know which is in use. Where all have expired, it is when the last one did. Raises `OSError`, and
    `ValueError` where there is no certificate.
    """
    with _unreadable_is_a_value_error():
        ends = sorted(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(Path(pem_file).read_bytes()))
    return next((end for end in ends if end > now), ends[-1])


def der_expires(certificate: bytes) -> datetime:
    """When a certificate in DER expires. Raises `ValueError`."""
    with _unreadable_is_a_value_error():
        return x509.load_der_x509_certificate(certificate).not_valid_after_utc


@contextmanager
def _unreadable_is_a_value_error() -> Iterator[None]:
    """A certificate of a version that there is not is an error of the parser's own, which is no `ValueError`."""
    try:
        yield
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from None
