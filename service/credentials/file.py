"""The file of credentials: 0600, encrypted where there is a key, replaced as a whole and synced before anything else.

    {"version": 1, "endpoints": {…}}                            without a key
    {"version": 1, "key": "3f9a…", "encrypted": "gAAAA…"}       with one: the same endpoints as a Fernet token

Fernet is AES-128-CBC with HMAC-SHA256: what was changed without the key is not read. `key` is the fingerprint of the
one that it was encrypted with, for the message to whoever has another.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from service.credentials.book import Credentials, EndpointCredentials, is_signing_secret
from service.errors import ConfigurationError, JobHeld
from service.events import Secret
from service.signature import fingerprint

VERSION: Final = 1
FILE_BYTES_MAX: Final = 4 * 1024 * 1024

OTHERS_WRITE: Final = 0o002
ANYBODY_ELSE: Final = 0o077
"""Rights of the group and of others."""

T = TypeVar("T")


class _Versioned(msgspec.Struct):
    """What every version's file has, whatever else is in it."""

    version: int


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    endpoints: dict[str, EndpointCredentials] | None = None
    key: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{12}$")] | None = None
    encrypted: str | None = None


def new_key() -> str:
    """A new key for a file of credentials: 32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode()


@dataclass(frozen=True, slots=True)
class CredentialsFile:
    """One file. Raises `ConfigurationError`, naming `secrets.store` or `secrets.key`, for what cannot be used.

    `key` may be several, with blanks or line ends between: the first encrypts, all of them decrypt. With a key, a file
    that is not encrypted is refused: whoever can write there could otherwise put in secrets of his own, and sign with
    them. Without one, a file that anybody but its owner has rights to is refused, as ssh does with its keys.

    Where the path is a symbolic link, the file that it leads to is replaced, never the link.
    """

    path: Path
    key: Secret | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._fernet()  # a key that is none is told at once, not when the first secret is to be kept

    @property
    def key_fingerprint(self) -> str | None:
        """The name of the key that encrypts; None without one."""
        return None if self.key is None else fingerprint(Secret(self.key.value.split()[0]))

    def read(self) -> Credentials:
        """What is kept; nothing where there is no file yet."""
        return self._read(plain_refused=self.key is not None)

    def read_to_encrypt(self) -> Credentials:
        """What is kept, also where it is not encrypted although there is a key: to be written with it."""
        return self._read(plain_refused=False)

    def write(self, credentials: Credentials) -> None:
        """Replace the file; it is on the disk when this returns, and whole at any moment in between.

        To be called within `held`. Started by root, it leaves the file to the user whom it belongs to (a new one: the
        folder), so that a receiver which is another user's can read it.
        """
        text = self._text(credentials)
        if len(text) > FILE_BYTES_MAX:
            raise ConfigurationError(f"secrets.store: would be longer than {FILE_BYTES_MAX} bytes")
        target = self._target()
        temporary = target.with_name(f"{target.name}.new")
        try:
            self._sync(temporary, text, self._owner(target))
            temporary.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise self._refused("written", error) from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only process on this machine that changes the file. Raises `JobHeld` where another one is."""
        target = self._target()
        lock = target.with_name(f"{target.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._refused("written", error) from None
        try:
            try:
                _give(descriptor, self._owner(target))
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JobHeld(f"{self.path} is being changed by another process") from None
            except OSError as error:
                raise self._refused("locked", error) from None
            yield
        finally:
            os.close(descriptor)

    def _target(self) -> Path:
        return Path(os.path.realpath(self.path))

    def _owner(self, target: Path) -> tuple[int, int] | None:
        """Whose the file is to be, where that is not simply who writes it."""
        user = os.geteuid()
        try:
            there = target.stat()
        except FileNotFoundError:
            if user != 0:
                return None
            there = target.parent.stat()
        if there.st_uid == user:
            return None
        if user != 0:
            raise ConfigurationError(
                f"secrets.store: {self.path} belongs to another user (uid {there.st_uid}), who could not read it any"
                " more: change it as that user"
            )
        return there.st_uid, there.st_gid

    @staticmethod
    def _sync(path: Path, text: bytes, owner: tuple[int, int] | None) -> None:
        # One that a crash has left behind, or that somebody has laid there for us to follow.
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask takes away
            _give(descriptor, owner)
            file.write(text)
            file.flush()
            os.fsync(descriptor)

    def _read(self, *, plain_refused: bool) -> Credentials:
        try:
            # A pipe in its place would else be waited for.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if not self._target().parent.is_dir():
                raise self._refused("read", error) from None
            return Credentials()
        except OSError as error:
            raise self._refused("read", error) from None
        try:
            with os.fdopen(descriptor, "rb") as opened:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise ConfigurationError(f"secrets.store: {self.path} is no regular file")
                text = opened.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            raise self._refused("read", error) from None
        if len(text) > FILE_BYTES_MAX:
            raise ConfigurationError(f"secrets.store: {self.path} is longer than {FILE_BYTES_MAX} bytes")
        file = self._file(text)
        self._check_rights(status.st_mode, encrypted=file.encrypted is not None)
        if file.encrypted is None and plain_refused:
            raise ConfigurationError(
                f"secrets.store: {self.path} is not encrypted, and there is a secrets.key:"
                " `stripe-ingest secrets encrypt` encrypts it"
            )
        endpoints = self._endpoints(file)
        self._check(endpoints)
        return Credentials(MappingProxyType(endpoints))

    def _file(self, text: bytes) -> _File:
        version = self._decoded(text, _Versioned).version
        if version != VERSION:
            raise ConfigurationError(f"secrets.store: {self.path} is of version {version}; this one reads {VERSION}")
        file = self._decoded(text, _File)
        if (file.endpoints is None) == (file.encrypted is None):
            raise self._no_credentials()
        return file

    def _check_rights(self, mode: int, *, encrypted: bool) -> None:
        if not mode & (OTHERS_WRITE if encrypted else ANYBODY_ELSE):
            return
        can = "written by everybody" if mode & OTHERS_WRITE else "read by others"
        raise ConfigurationError(
            f"secrets.store: {self.path} can be {can} (mode {stat.S_IMODE(mode):04o}): `chmod 600 {self.path}`"
            + ("" if encrypted else ", or give it a secrets.key")
        )

    def _endpoints(self, file: _File) -> dict[str, EndpointCredentials]:
        if file.encrypted is None:
            return file.endpoints or {}
        fernet = self._fernet()
        by = f" with the key {file.key}" if file.key is not None else ""
        if fernet is None:
            raise ConfigurationError(
                f"secrets.key: is needed: {self.path} is encrypted{by} (or secrets.key_file, or"
                " STRIPE_INGEST__SECRETS__KEY)"
            )
        try:
            # As bytes: of text that is not ASCII it would raise something else.
            plain = fernet.decrypt(file.encrypted.encode())
        except InvalidToken:
            raise ConfigurationError(self._not_decrypted(file.key)) from None
        return self._decoded(plain, dict[str, EndpointCredentials])

    def _not_decrypted(self, key: str | None) -> str:
        here = [fingerprint(Secret(each)) for each in self.key.value.split()] if self.key is not None else []
        if key in here:
            return f"secrets.store: {self.path} was changed without the key {key} that it was encrypted with"
        if key is None:
            return f"secrets.key: is not the key of {self.path}, or the file was changed without it"
        return f"secrets.key: {self.path} was encrypted with the key {key}; here is {', '.join(here)}"

    def _check(self, endpoints: Mapping[str, EndpointCredentials]) -> None:
        """What a hand may have put there that the types alone let pass."""
        for name, credentials in endpoints.items():
            if not all(is_signing_secret(each.value) for each in credentials.signing):
                raise ConfigurationError(
                    f"secrets.store: {self.path}: a signing secret of {name!r} does not begin with whsec_, or has"
                    " blanks in it"
                )
            creation = credentials.creation
            times = [each.added_at for each in credentials.signing] + ([creation.begun_at] if creation else [])
            if any(time.tzinfo is None for time in times):
                raise ConfigurationError(f"secrets.store: {self.path}: a time of {name!r} has no time zone")

    def _text(self, credentials: Credentials) -> bytes:
        endpoints = dict(credentials.endpoints)
        fernet = self._fernet()
        if fernet is None:
            return _encoded(_File(VERSION, endpoints=endpoints))
        encrypted = fernet.encrypt(_encoded(endpoints)).decode()
        return _encoded(_File(VERSION, key=self.key_fingerprint, encrypted=encrypted))

    def _decoded(self, text: bytes, expected: type[T]) -> T:
        try:
            return msgspec.json.decode(text, type=expected, dec_hook=_decode_secret)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # Its own message may quote what stands there.
            raise self._no_credentials() from None

    def _no_credentials(self) -> ConfigurationError:
        return ConfigurationError(f"secrets.store: {self.path} is no file of credentials, or was cut short or changed")

    def _refused(self, what: str, error: OSError) -> ConfigurationError:
        if error.errno == errno.ENOENT:
            return ConfigurationError(f"secrets.store: the folder of {self.path} is not there")
        return ConfigurationError(f"secrets.store: {self.path} cannot be {what}: {error.strerror}")

    def _fernet(self) -> MultiFernet | None:
        if self.key is None:
            return None
        try:
            return MultiFernet([Fernet(each) for each in self.key.value.split()])
        except ValueError:
            raise ConfigurationError(
                "secrets.key: must be 32 bytes in URL-safe base64, as `stripe-ingest secrets key` prints them"
            ) from None


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: a new file is not, however well it was synced itself, before its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give(descriptor: int, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        os.fchown(descriptor, *owner)


def _encoded(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_encode_other), indent=2)


def _encode_other(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError


def _decode_secret(expected: type, value: Any) -> Any:
    if expected is not Secret:
        raise NotImplementedError
    if not isinstance(value, str):
        raise msgspec.ValidationError("Expected `str`")
    return Secret(value)
