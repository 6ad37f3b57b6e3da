"""The job store in memory: the twin of the Postgres one under the same contract tests."""

from dataclasses import dataclass

from service.errors import JobHeld
from service.ports import Clock


@dataclass(slots=True)
class _Job:
    owner: str
    until: float
    progress: bytes | None = None


class MemoryJobStore:
    """`ports.JobStore` in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, _Job] = {}

    async def begin(self, job: str, *, owner: str, lease_seconds: float) -> bytes | None:
        """See `JobStore.begin`."""
        now = self._clock.monotonic()
        found = self._jobs.setdefault(job, _Job(owner, now))
        if found.owner != owner and found.until > now:
            raise JobHeld(
                f"another process is doing {job}; one that was killed keeps it for {lease_seconds:g} s at most"
            )
        found.owner, found.until = owner, now + lease_seconds
        return found.progress

    async def save(self, job: str, progress: bytes, *, owner: str, lease_seconds: float) -> None:
        """See `JobStore.save`."""
        found = self._jobs.get(job)
        if found is None or found.owner != owner:
            raise JobHeld(f"another process is doing {job}")
        found.progress, found.until = progress, self._clock.monotonic() + lease_seconds

    async def end(self, job: str, *, owner: str) -> None:
        """See `JobStore.end`."""
        found = self._jobs.get(job)
        if found is not None and found.owner == owner:
            found.until = self._clock.monotonic()

    async def close(self) -> None:
        """Nothing to give back."""
