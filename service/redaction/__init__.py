"""Fields that never leave the receiver: dropped or hashed by path before an event is read, sealed where it cannot be.

kafka.redact ─parse_paths─▶ RedactionPath*  ┐
kafka.redact_key ─▶ RedactionKeys           ┴▶ Redaction: apply(tree), sealing.seal(body)
"""

from service.redaction.paths import RedactionPath, parse_paths
from service.redaction.redacting import HASHED, HASHES_MAX, Redaction, TooManyHashes
from service.redaction.sealing import ALGORITHM, SEALING_BYTES, CannotUnseal, RedactionKeys, Sealing

__all__ = [
    "ALGORITHM",
    "HASHED",
    "HASHES_MAX",
    "SEALING_BYTES",
    "CannotUnseal",
    "Redaction",
    "RedactionKeys",
    "RedactionPath",
    "Sealing",
    "TooManyHashes",
    "parse_paths",
]
