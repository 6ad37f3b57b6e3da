"""Ties that the events cannot decide: Stripe is asked what the object is like now, and its answer is one more event.

Two events of one second that no link and no rank puts in order leave a state that may be either's. That is counted in
the state; a snapshot, which is of a later second, ends it. This happens in a job of its own: never while a delivery or
a batch waits, and never for more than so many objects at a time.
"""

from datetime import timedelta
from typing import Final

from service.ports import Clock, UndecidedObjects
from service.recovery.backfill import Backfill, Counts, Named
from service.recovery.snapshots import LISTS
from service.recovery.sources import Source

READS_MAX: Final = 100
"""Objects that are read in one run."""

SETTLING: Final = timedelta(minutes=1)
"""How long after an object's last event it is left alone: the next one may decide."""


async def settle_ties(source: Source, backfill: Backfill, objects: UndecidedObjects, clock: Clock) -> Counts:
    """Have the state of undecided objects settled by what Stripe says of them now."""
    found = await objects.undecided(
        account=source.account, livemode=source.livemode, before=clock.now() - SETTLING, limit=READS_MAX
    )
    named = [Named(LISTS[object_type], object_id) for object_type, object_id in found if object_type in LISTS]
    return await backfill.read_named(named)
