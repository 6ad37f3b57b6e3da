"""A dedupe store in this process's memory: for one worker, and as the twin of the shared stores in tests."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from service.events import ClaimKey, ClaimState
from service.ports import Clock


@dataclass(frozen=True, slots=True)
class _Lease:
    owner: str
    until: float


class MemoryDedupeStore:
    """Claims in two dicts, leased and done.

    `max_entries` bounds each of them; beyond it the oldest are forgotten, which costs a duplicate, never an event.
    Each call runs without an await in it, and so is atomic. Forgotten with the process: then every event of a resend
    is published again, and the projections' ledgers absorb it.
    """

    def __init__(
        self, clock: Clock, *, lease_seconds: float = 30, retention_seconds: float = 31 * 86_400, max_entries: int
    ) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._retention_seconds = retention_seconds
        self._max_entries = max_entries
        # Lease and retention are constants, so insertion order is the order in which entries run out.
        self._leases: OrderedDict[ClaimKey, _Lease] = OrderedDict()
        self._done_until: OrderedDict[ClaimKey, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._leases) + len(self._done_until)

    async def claim(self, keys: Collection[ClaimKey], *, owner: str) -> Mapping[ClaimKey, ClaimState]:
        """See `DedupeStore.claim`."""
        self._forget_expired()
        return {key: self._claim(key, owner) for key in dict.fromkeys(keys)}

    async def look(self, keys: Collection[ClaimKey]) -> Mapping[ClaimKey, ClaimState]:
        """See `DedupeStore.look`."""
        self._forget_expired()
        return {key: self._state(key) for key in keys}

    async def confirm(self, keys: Collection[ClaimKey]) -> None:
        """See `DedupeStore.confirm`."""
        done_until = self._clock.monotonic() + self._retention_seconds
        for key in keys:
            self._leases.pop(key, None)
            self._done_until.pop(key, None)
            self._done_until[key] = done_until
        self._forget_expired()

    async def release(self, keys: Collection[ClaimKey], *, owner: str) -> None:
        """See `DedupeStore.release`."""
        for key in keys:
            lease = self._leases.get(key)
            if lease is not None and lease.owner == owner:
                del self._leases[key]

    async def close(self) -> None:
        """Nothing to give back."""

    def _claim(self, key: ClaimKey, owner: str) -> ClaimState:
        state = self._state(key)
        if state is ClaimState.NEW:
            self._leases[key] = _Lease(owner, self._clock.monotonic() + self._lease_seconds)
        return state

    def _state(self, key: ClaimKey) -> ClaimState:
        if key in self._done_until:
            return ClaimState.DONE
        return ClaimState.IN_FLIGHT if key in self._leases else ClaimState.NEW

    def _forget_expired(self) -> None:
        now = self._clock.monotonic()
        leases, done_until = self._leases, self._done_until
        while leases and (len(leases) > self._max_entries or next(iter(leases.values())).until <= now):
            leases.popitem(last=False)
        while done_until and (len(done_until) > self._max_entries or next(iter(done_until.values())) <= now):
            done_until.popitem(last=False)
