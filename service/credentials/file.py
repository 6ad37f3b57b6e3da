"""The file of credentials: 0600, encrypted where there is a key, replaced as a whole and synced before anything else.

    {"version": 1, "endpoints": {…}}          without a key
    {"version": 1, "encrypted": "gAAAA…"}     with one: the same endpoints as a Fernet token

Fernet is AES-128-CBC with HMAC-SHA256: what was changed without the key is not read.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from service.credentials.book import Credentials, EndpointCredentials
from service.errors import ConfigurationError, JobHeld
from service.events import Secret

VERSION: Final = 1
FILE_BYTES_MAX: Final = 4 * 1024 * 1024

T = TypeVar("T")


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    endpoints: dict[str, EndpointCredentials] | None = None
    encrypted: str | None = None


def new_key() -> str:
    """A new key for a file of credentials: 32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode()


@dataclass(frozen=True, slots=True)
class CredentialsFile:
    """One file. Raises `ConfigurationError`, naming `secrets.store` or `secrets.key`, for what cannot be used.

    `key` may be several, with blanks or line ends between: the first encrypts, all of them decrypt.
    """

    path: Path
    key: Secret | None = field(default=None, repr=False)

    def read(self) -> Credentials:
        """What is kept; nothing where there is no file yet."""
        try:
            with self.path.open("rb") as file:
                text = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return Credentials()
        except OSError as error:
            raise ConfigurationError(f"secrets.store: {self.path} cannot be read: {error.strerror}") from None
        return Credentials(self._endpoints(text))

    def write(self, credentials: Credentials) -> None:
        """Replace the file; it is on the disk when this returns, and whole at any moment in between."""
        temporary = self.path.with_name(f"{self.path.name}.new")
        try:
            self._sync(temporary, self._text(credentials))
            temporary.replace(self.path)
            # The new name itself is only on the disk once its folder is.
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise ConfigurationError(f"secrets.store: {self.path} cannot be written: {error.strerror}") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only process on this machine that changes the file. Raises `JobHeld` where another one is."""
        try:
            descriptor = os.open(
                self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise ConfigurationError(f"secrets.store: {self.path} cannot be written: {error.strerror}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JobHeld(f"{self.path} is being changed by another process") from None
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _sync(path: Path, text: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # one that a crash left behind may have had other rights
            file.write(text)
            file.flush()
            os.fsync(descriptor)

    def _text(self, credentials: Credentials) -> bytes:
        endpoints = dict(credentials.endpoints)
        if self.key is None:
            return _encoded(_File(VERSION, endpoints=endpoints))
        return _encoded(_File(VERSION, encrypted=self._fernet(self.key).encrypt(_encoded(endpoints)).decode()))

    def _endpoints(self, text: bytes) -> dict[str, EndpointCredentials]:
        if len(text) > FILE_BYTES_MAX:
            raise ConfigurationError(f"secrets.store: {self.path} is longer than {FILE_BYTES_MAX} bytes")
        file = self._decoded(text, _File)
        if file.version != VERSION:
            raise ConfigurationError(f"secrets.store: {self.path} is of version {file.version}; this one reads 1")
        if file.encrypted is None:
            return file.endpoints or {}
        if self.key is None:
            raise ConfigurationError(f"secrets.key: is needed: {self.path} is encrypted (or secrets.key_file)")
        try:
            plain = self._fernet(self.key).decrypt(file.encrypted)
        except InvalidToken:
            raise ConfigurationError(
                f"secrets.key: is not the key that {self.path} was encrypted with, or the file was changed without it"
            ) from None
        return self._decoded(plain, dict[str, EndpointCredentials])

    def _decoded(self, text: bytes, expected: type[T]) -> T:
        try:
            return msgspec.json.decode(text, type=expected, dec_hook=_decode_secret)
        except msgspec.MsgspecError:
            # Its own message may quote what stands there.
            raise ConfigurationError(f"secrets.store: {self.path} is no file of credentials") from None

    @staticmethod
    def _fernet(key: Secret) -> MultiFernet:
        try:
            return MultiFernet([Fernet(each) for each in key.value.split()])
        except ValueError:
            raise ConfigurationError(
                "secrets.key: must be 32 bytes in URL-safe base64, as `stripe-ingest secrets key` prints them"
            ) from None


def _encoded(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_encode_secret), indent=2)


def _encode_secret(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.value
    raise NotImplementedError


def _decode_secret(expected: type, value: Any) -> Any:
    if expected is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError
