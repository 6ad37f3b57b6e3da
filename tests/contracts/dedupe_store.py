"""What every `DedupeStore` promises. A test module inherits the class and gives a harness for its store."""

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Protocol

from service.events import ClaimKey, ClaimState
from service.ports import DedupeStore

NEW, IN_FLIGHT, DONE = ClaimState.NEW, ClaimState.IN_FLIGHT, ClaimState.DONE


class DedupeHarness(Protocol):
    """A store with nothing in it, and time that passes on command."""

    @property
    def store(self) -> DedupeStore: ...

    async def let_leases_expire(self) -> None:
        """Make it later than the end of every lease, and earlier than the end of any retention."""
        ...

    async def let_retention_pass(self) -> None:
        """Make it later than the end of every retention."""
        ...


def key(id_: str, scope: str = "event") -> ClaimKey:
    return ClaimKey(scope, id_)


async def claim(harness: DedupeHarness, id_: str, *, owner: str) -> ClaimState:
    return (await harness.store.claim([key(id_)], owner=owner))[key(id_)]


class DedupeStoreContract:
    """Inherited by a test class whose module has a fixture `harness`."""

    async def test_an_unknown_key_is_new(self, harness: DedupeHarness) -> None:
        assert await claim(harness, "evt_1", owner="a") is NEW

    async def test_a_leased_key_is_in_flight_for_others_and_for_its_owner(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")

        assert await claim(harness, "evt_1", owner="b") is IN_FLIGHT
        assert await claim(harness, "evt_1", owner="a") is IN_FLIGHT

    async def test_a_confirmed_key_is_done_for_everybody(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.store.confirm([key("evt_1")])

        assert await claim(harness, "evt_1", owner="a") is DONE
        assert await claim(harness, "evt_1", owner="b") is DONE

    async def test_an_expired_lease_is_taken_over_with_a_lease_of_its_own(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.let_leases_expire()

        assert await claim(harness, "evt_1", owner="b") is NEW
        assert await claim(harness, "evt_1", owner="a") is IN_FLIGHT

    async def test_done_outlives_the_lease(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.store.confirm([key("evt_1")])
        await harness.let_leases_expire()

        assert await claim(harness, "evt_1", owner="b") is DONE

    async def test_done_ends_with_the_retention(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.store.confirm([key("evt_1")])
        await harness.let_retention_pass()

        assert await claim(harness, "evt_1", owner="b") is NEW
        assert await claim(harness, "evt_1", owner="c") is IN_FLIGHT

    async def test_a_key_forgotten_after_its_retention_can_be_done_again(self, harness: DedupeHarness) -> None:
        await harness.store.confirm([key("evt_1")])
        await harness.let_retention_pass()
        await claim(harness, "evt_1", owner="b")
        await harness.store.confirm([key("evt_1")])

        assert await claim(harness, "evt_1", owner="c") is DONE

    async def test_a_confirm_needs_no_claim(self, harness: DedupeHarness) -> None:
        await harness.store.confirm([key("evt_1")])

        assert await claim(harness, "evt_1", owner="a") is DONE

    async def test_a_confirm_counts_although_another_has_taken_over(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.let_leases_expire()
        await claim(harness, "evt_1", owner="b")
        await harness.store.confirm([key("evt_1")])

        assert await claim(harness, "evt_1", owner="c") is DONE

    async def test_confirming_again_changes_nothing(self, harness: DedupeHarness) -> None:
        await harness.store.confirm([key("evt_1")])
        await harness.store.confirm([key("evt_1")])

        assert await claim(harness, "evt_1", owner="a") is DONE

    async def test_a_released_key_is_new_again(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.store.release([key("evt_1")], owner="a")

        assert await claim(harness, "evt_1", owner="b") is NEW

    async def test_nobody_releases_the_claim_of_another(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.store.release([key("evt_1")], owner="b")

        assert await claim(harness, "evt_1", owner="c") is IN_FLIGHT

    async def test_a_late_release_leaves_the_new_holder_alone(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.let_leases_expire()
        await claim(harness, "evt_1", owner="b")
        await harness.store.release([key("evt_1")], owner="a")

        assert await claim(harness, "evt_1", owner="c") is IN_FLIGHT

    async def test_done_cannot_be_released(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.store.confirm([key("evt_1")])
        await harness.store.release([key("evt_1")], owner="a")

        assert await claim(harness, "evt_1", owner="b") is DONE

    async def test_releasing_what_nobody_holds_is_no_error(self, harness: DedupeHarness) -> None:
        await harness.store.release([key("evt_1")], owner="a")

        assert await claim(harness, "evt_1", owner="a") is NEW

    async def test_one_call_tells_the_state_of_each_of_its_keys(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_leased", owner="a")
        await harness.store.confirm([key("evt_done")])

        found = await harness.store.claim([key("evt_new"), key("evt_done"), key("evt_leased")], owner="b")

        assert found == {key("evt_new"): NEW, key("evt_done"): DONE, key("evt_leased"): IN_FLIGHT}

    async def test_looking_finds_what_claiming_would_and_claims_nothing(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_leased", owner="a")
        await harness.store.confirm([key("evt_done")])
        asked = [key("evt_new"), key("evt_done"), key("evt_leased"), key("evt_new")]

        for _ in range(2):
            found = await harness.store.look(asked)
            assert found == {key("evt_new"): NEW, key("evt_done"): DONE, key("evt_leased"): IN_FLIGHT}
        assert await harness.store.look([]) == {}

    async def test_looking_finds_what_has_run_out_to_be_new(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_leased", owner="a")
        await harness.let_leases_expire()
        assert await harness.store.look([key("evt_leased")]) == {key("evt_leased"): NEW}

        await harness.store.confirm([key("evt_done")])
        await harness.let_retention_pass()
        assert await harness.store.look([key("evt_done")]) == {key("evt_done"): NEW}

    async def test_a_key_that_is_given_twice_is_claimed_once(self, harness: DedupeHarness) -> None:
        assert await harness.store.claim([key("evt_1"), key("evt_1")], owner="a") == {key("evt_1"): NEW}
        await harness.store.confirm([key("evt_1"), key("evt_1")])

        assert await claim(harness, "evt_1", owner="b") is DONE

    async def test_no_keys_are_no_error(self, harness: DedupeHarness) -> None:
        nothing: Collection[ClaimKey] = []

        assert await harness.store.claim(nothing, owner="a") == {}
        await harness.store.confirm(nothing)
        await harness.store.release(nothing, owner="a")

    async def test_scopes_are_apart(self, harness: DedupeHarness) -> None:
        await harness.store.confirm([key("evt_1", scope="quarantine:shop")])

        assert await claim(harness, "evt_1", owner="a") is NEW

    async def test_of_many_concurrent_claimers_one_gets_each_key(self, harness: DedupeHarness) -> None:
        # Every claimer brings the keys in another order: stores that lock rows must not deadlock.
        keys = [key(f"evt_{n}") for n in range(5)]
        answers = await asyncio.gather(
            *(harness.store.claim(keys[n % 5 :] + keys[: n % 5], owner=f"owner {n}") for n in range(20))
        )

        for each in keys:
            assert Counter(answer[each] for answer in answers) == {NEW: 1, IN_FLIGHT: 19}

    async def test_of_many_concurrent_claimers_one_takes_over_an_expired_lease(self, harness: DedupeHarness) -> None:
        await claim(harness, "evt_1", owner="a")
        await harness.let_leases_expire()

        answers = await asyncio.gather(*(claim(harness, "evt_1", owner=f"owner {n}") for n in range(20)))

        assert Counter(answers) == {NEW: 1, IN_FLIGHT: 19}

    async def test_of_many_concurrent_claimers_one_gets_a_key_whose_retention_has_passed(
        self, harness: DedupeHarness
    ) -> None:
        await harness.store.confirm([key("evt_1")])
        await harness.let_retention_pass()

        answers = await asyncio.gather(*(claim(harness, "evt_1", owner=f"owner {n}") for n in range(20)))

        assert Counter(answers) == {NEW: 1, IN_FLIGHT: 19}

    async def test_claims_confirms_and_releases_of_the_same_keys_at_once_do_not_deadlock(
        self, harness: DedupeHarness
    ) -> None:
        keys = [key(f"evt_{n}") for n in range(50)]
        for _ in range(5):
            await asyncio.gather(
                harness.store.claim(keys, owner="a"),
                harness.store.confirm(keys[25:][::-1]),
                harness.store.release(keys[::-1], owner="a"),
                harness.store.claim(keys[::-1], owner="b"),
            )

        found = await harness.store.claim(keys, owner="c")
        assert all(found[each] is DONE for each in keys[25:])
        assert all(found[each] is not DONE for each in keys[:25])
