"""What every `JobStore` promises. A test module inherits the class and gives a harness for its store."""

import asyncio
from typing import Protocol

import pytest

from service.errors import JobHeld
from service.ports import JobStore


class JobHarness(Protocol):
    """A store with nothing in it, and time that passes on command."""

    @property
    def store(self) -> JobStore: ...

    async def let_leases_expire(self) -> None:
        """Make it later than the end of every lease."""
        ...


async def begin(harness: JobHarness, owner: str, job: str = "reconcile") -> bytes | None:
    return await harness.store.begin(job, owner=owner, lease_seconds=30)


async def save(harness: JobHarness, owner: str, progress: bytes) -> None:
    await harness.store.save("reconcile", progress, owner=owner, lease_seconds=30)


class JobStoreContract:
    """Inherited by a test class whose module has a fixture `harness`."""

    async def test_a_job_that_was_never_done_has_no_progress(self, harness: JobHarness) -> None:
        assert await begin(harness, "a") is None

    async def test_progress_is_found_again_by_whoever_goes_on(self, harness: JobHarness) -> None:
        await begin(harness, "a")
        await save(harness, "a", b"page 1")
        await save(harness, "a", b"page 2")
        await harness.store.end("reconcile", owner="a")

        assert await begin(harness, "b") == b"page 2"

    async def test_a_job_in_hand_is_nobody_elses(self, harness: JobHarness) -> None:
        await begin(harness, "a")

        with pytest.raises(JobHeld):
            await begin(harness, "b")
        assert await begin(harness, "a") is None

    async def test_a_job_whose_lease_ran_out_is_taken_over(self, harness: JobHarness) -> None:
        await begin(harness, "a")
        await save(harness, "a", b"page 1")
        await harness.let_leases_expire()

        assert await begin(harness, "b") == b"page 1"

    async def test_who_lost_the_lease_changes_nothing_any_more(self, harness: JobHarness) -> None:
        await begin(harness, "a")
        await harness.let_leases_expire()
        await begin(harness, "b")
        await save(harness, "b", b"page 7")

        with pytest.raises(JobHeld):
            await save(harness, "a", b"page 1")
        await harness.store.end("reconcile", owner="a")

        with pytest.raises(JobHeld):
            await begin(harness, "c")
        assert await begin(harness, "b") == b"page 7"

    async def test_a_lease_that_ran_out_unnoticed_is_still_its_owners(self, harness: JobHarness) -> None:
        await begin(harness, "a")
        await harness.let_leases_expire()

        await save(harness, "a", b"page 1")

        with pytest.raises(JobHeld):
            await begin(harness, "b")

    async def test_nobody_saves_what_he_has_not_begun(self, harness: JobHarness) -> None:
        with pytest.raises(JobHeld):
            await save(harness, "a", b"page 1")

    async def test_jobs_are_apart(self, harness: JobHarness) -> None:
        await begin(harness, "a")

        assert await begin(harness, "b", "backfill") is None

    async def test_of_many_at_once_one_gets_the_job(self, harness: JobHarness) -> None:
        async def try_to(owner: str) -> bool:
            try:
                await begin(harness, owner)
            except JobHeld:
                return False
            return True

        assert sum(await asyncio.gather(*(try_to(f"owner {n}") for n in range(10)))) == 1
