"""Encryption of bodies that cannot be redacted by path, and the keys of redaction."""

import base64
import binascii
import hashlib
import hmac
import os
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


class CannotUnseal(ValueError):
    """A sealed body was sealed under another key or another record key, or was changed."""


@dataclass(frozen=True, slots=True)
class RedactionKeys:
    """Independent keys from the one that is configured: what one of them gives away says nothing of the others."""

    hashing: bytes = field(repr=False)
    sealing: bytes = field(repr=False)
    naming: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: str) -> Self:
        """Derive them. Raises `ConfigurationError` where the secret is too short, or no base64."""
        try:
            material = base64.b64decode(secret, validate=True)
        except (binascii.Error, ValueError):
            material = b""
        if len(material) < KEY_BYTES_MIN:
            raise ConfigurationError(
                f"kafka.redact_key: must be at least {KEY_BYTES_MIN} random bytes in base64,"
                " as `openssl rand -base64 32` writes them"
            )
        return cls(*(_derived(material, purpose) for purpose in ("hashing", "sealing", "naming")))


def _derived(material: bytes, purpose: str) -> bytes:
    info = f"stripe-ingest redaction {purpose}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(material)


@dataclass(frozen=True, slots=True)
class Sealing:
    """Seals bodies for whoever holds the key."""

    keys: RedactionKeys = field(repr=False)

    def seal(self, body: bytes, *, record_key: bytes) -> bytes:
        """Nonce, ciphertext and tag. Under another record's key it cannot be unsealed: bodies cannot be swapped."""
        # Random nonces of 96 bits are safe for 2^32 bodies under one key.
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self.keys.sealing).encrypt(nonce, body, record_key)

    def unseal(self, sealed: bytes, *, record_key: bytes) -> bytes:
        """The body. Raises `CannotUnseal`."""
        if len(sealed) < SEALING_BYTES:
            raise CannotUnseal("this is too short for a sealed body")
        try:
            return AESGCM(self.keys.sealing).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], record_key)
        except InvalidTag:
            raise CannotUnseal("this was sealed with another redact_key, or changed since") from None

    def name(self, body: bytes) -> str:
        """A body's name: the same for the same bytes, but nobody without the key can try out what the bytes were."""
        return hmac.digest(self.keys.naming, body, hashlib.sha256).hex()
