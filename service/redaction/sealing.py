"""Encryption of bodies that cannot be redacted by path, and the keys of redaction."""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.errors import ConfigurationError

ALGORITHM: Final = "aes-256-gcm"
"""What the record header `encryption` says."""

KEY_BYTES_MIN: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
SEALING_BYTES: Final = NONCE_BYTES + TAG_BYTES
"""What a sealed body is longer."""

FINGERPRINT_BYTES: Final = 8
"""Enough to tell keys from one another. Derived like a key: it gives nothing of the others away."""


class CannotUnseal(ValueError):
    """A sealed body was sealed under another key or another record key, or was changed."""


@dataclass(frozen=True, slots=True)
class RedactionKeys:
    """Independent keys from the one that is configured: what one of them gives away says nothing of the others.

    `opening` is by fingerprint: the sealing keys of the configured key and of those that were it before.
    """

    hashing: bytes = field(repr=False)
    sealing: bytes = field(repr=False)
    naming: bytes = field(repr=False)
    fingerprint: str
    opening: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, secrets: str) -> Self:
        """Derive them. Of several lines, the first is the key, and the others only open what they have sealed.

        Raises `ConfigurationError` where one is too short, or no base64.
        """
        lines = [line for line in secrets.splitlines() if line.strip()] or [""]
        materials = [_material(line.strip()) for line in lines]
        opening = {_fingerprint(material): _derived(material, "sealing") for material in materials}
        hashing, sealing, naming = (_derived(materials[0], purpose) for purpose in ("hashing", "sealing", "naming"))
        return cls(hashing, sealing, naming, _fingerprint(materials[0]), opening)


def _material(secret: str) -> bytes:
    try:
        material = base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        material = b""
    if len(material) < KEY_BYTES_MIN:
        raise ConfigurationError(
            f"kafka.redact_key: must be at least {KEY_BYTES_MIN} random bytes in base64,"
            " as `openssl rand -base64 32` writes them"
        )
    return material


def _derived(material: bytes, purpose: str) -> bytes:
    info = f"stripe-ingest redaction {purpose}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(material)


def _fingerprint(material: bytes) -> str:
    return _derived(material, "fingerprint")[:FINGERPRINT_BYTES].hex()


@dataclass(frozen=True, slots=True)
class Sealing:
    """Seals bodies for whoever holds the key."""

    keys: RedactionKeys = field(repr=False)

    def seal(self, body: bytes, *, record_key: bytes) -> bytes:
        """Nonce, ciphertext and tag. Under another record's key it cannot be unsealed: bodies cannot be swapped."""
        # Random nonces of 96 bits are safe for 2^32 bodies under one key.
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self.keys.sealing).encrypt(nonce, body, record_key)

    def unseal(self, sealed: bytes, *, record_key: bytes, fingerprint: str | None = None) -> bytes:
        """The body. `fingerprint` is of the key that has sealed it, None where that is not known.

        Raises `CannotUnseal`.
        """
        if len(sealed) < SEALING_BYTES:
            raise CannotUnseal("this is too short for a sealed body")
        for key in self._candidates(fingerprint):
            try:
                return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], record_key)
            except InvalidTag:
                continue
        raise CannotUnseal("this was sealed with another redact_key, or changed since")

    def _candidates(self, fingerprint: str | None) -> Iterable[bytes]:
        if fingerprint is None:
            return self.keys.opening.values()
        if fingerprint not in self.keys.opening:
            raise CannotUnseal(
                f"this was sealed with the redact_key {fingerprint}; here is {', '.join(self.keys.opening)}"
            )
        return (self.keys.opening[fingerprint],)

    def name(self, body: bytes) -> str:
        """A body's name: the same for the same bytes, but nobody without the key can try out what the bytes were."""
        return hmac.digest(self.keys.naming, body, hashlib.sha256).hex()
