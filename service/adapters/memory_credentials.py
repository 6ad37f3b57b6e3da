"""The credential store in memory: the twin of the file under the same contract tests, with writes that fail on command.

One object stands for one disk: it outlives the process that a test lets crash, and the next one reads it again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from service.credentials.book import Credentials
from service.errors import ConfigurationError, JobHeld


@dataclass(slots=True)
class _Failure:
    """`left` more writes go well; the one after them raises, having taken effect or not."""

    left: int
    kept: bool
    error: BaseException


class MemoryCredentialStore:
    """`ports.CredentialStore` in memory."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._kept = credentials or Credentials()
        self._held = False
        self._failure: _Failure | None = None
        self._writes: list[Credentials] = []

    @property
    def writes(self) -> Sequence[Credentials]:
        """What was kept, one after the other: each is what another process may have read."""
        return tuple(self._writes)

    def fail_after(self, writes: int, *, kept: bool = False, error: BaseException | None = None) -> None:
        """Let so many more writes go well and the next one raise: once, then all is as before.

        With `kept` it raises after the write took effect, as where a process dies before it can go on; without, before.
        `error` is what it raises, else the `ConfigurationError` of a full disk.
        """
        full = ConfigurationError("secrets.store: cannot be written: No space left on device")
        self._failure = _Failure(writes, kept, error or full)

    def read(self) -> Credentials:
        """See `CredentialStore.read`."""
        return self._kept

    def write(self, credentials: Credentials) -> None:
        """See `CredentialStore.write`."""
        failure = self._due()
        if failure is None or failure.kept:
            self._kept = credentials
            self._writes.append(credentials)
        if failure is not None:
            raise failure.error

    @contextmanager
    def held(self) -> Iterator[None]:
        """See `CredentialStore.held`."""
        if self._held:
            raise JobHeld("the credentials are being changed by another process")
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _due(self) -> _Failure | None:
        failure = self._failure
        if failure is None:
            return None
        if failure.left > 0:
            failure.left -= 1
            return None
        self._failure = None
        return failure
