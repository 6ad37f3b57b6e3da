"""A job that one process does at a time, and goes on with where it, or another, was interrupted."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Generic, TypeVar

import msgspec

from service.errors import IngestError
from service.ports import JobStore

LEASE_SECONDS: Final = 180.0
"""Longer than publishing a page may take. Where Stripe wants minutes of quiet another process may take over meanwhile,
which then does some of the work twice, and no harm."""

P = TypeVar("P", bound=msgspec.Struct)


class Job(Generic[P]):
    """One that this process has the lease on; `progress` is as it was found, and as it is told afterwards."""

    def __init__(self, name: str, store: JobStore, owner: str, progress: P) -> None:
        self.progress = progress
        self._name = name
        self._store = store
        self._owner = owner

    async def save(self, progress: P) -> None:
        """Remember how far it is. Raises `JobHeld` where another process has taken over."""
        text = msgspec.json.encode(progress)
        await self._store.save(self._name, text, owner=self._owner, lease_seconds=LEASE_SECONDS)
        self.progress = progress


@asynccontextmanager
async def job(name: str, store: JobStore, beginning: P) -> AsyncIterator[Job[P]]:
    """Have the lease on a job inside the block. Raises `JobHeld` while another process has it.

    What an earlier version has written of its progress and this one cannot read counts as none: all of a job may be
    done again.
    """
    owner = secrets.token_hex(8)
    found = await store.begin(name, owner=owner, lease_seconds=LEASE_SECONDS)
    try:
        progress = beginning if found is None else msgspec.json.decode(found, type=type(beginning))
    except msgspec.DecodeError:
        progress = beginning
    try:
        yield Job(name, store, owner, progress)
    finally:
        with suppress(IngestError):  # else it runs out by itself
            await store.end(name, owner=owner)
