"""Ties that the events cannot decide: Stripe is asked what the object is like now, and its answer is one more event.

Two events of one second that no link and no rank puts in order leave a state that may be either's. That is counted in
the state; a snapshot, which is of a later second, ends it. This happens in a job of its own: never while a delivery or
a batch waits, and never for more than so many objects at a time.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from service.errors import StripePermissionMissing
from service.ports import Clock, StripeList, UndecidedObjects
from service.recovery.backfill import Backfill, Named
from service.recovery.snapshots import LISTS
from service.recovery.sources import Source

READS_MAX: Final = 100
"""Objects that are read in one run."""

SETTLING: Final = timedelta(minutes=1)
"""How long after an object's last event it is left alone: the next one may decide."""

ASKED_AGAIN: Final = timedelta(days=1)
"""How long one that was read is left alone. Stripe may have it no more, or nobody applies what is published: read in
every run, a hundred of them would keep all others from their turn."""


class Ties:
    """Settles one source's, and remembers which it has asked Stripe about."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked: dict[Named, datetime] = {}

    async def found(self, source: Source, objects: UndecidedObjects) -> Sequence[Named]:
        """The objects that it is time to ask about."""
        now = self._clock.now()
        self._asked = {named: at for named, at in self._asked.items() if now - at < ASKED_AGAIN}
        undecided = await objects.undecided(
            account=source.account,
            livemode=source.livemode,
            before=now - SETTLING,
            limit=READS_MAX + len(self._asked),
        )
        named = (Named(LISTS[object_type], object_id) for object_type, object_id in undecided if object_type in LISTS)
        return [each for each in named if each not in self._asked][:READS_MAX]

    async def settle(self, found: Sequence[Named], backfill: Backfill) -> Counter[str]:
        """Have their states settled by what Stripe says of them now; how many came to what.

        A list that the key may not read is passed over.
        """
        lists: defaultdict[StripeList, list[Named]] = defaultdict(list)
        for each in found:
            lists[each.list].append(each)
        outcomes: Counter[str] = Counter()
        for members in lists.values():
            try:
                counts = await backfill.read_named(members)
            except StripePermissionMissing:
                outcomes["not_permitted"] += len(members)
            else:
                outcomes.update(
                    published=counts.published,
                    duplicate=counts.duplicates,
                    unprocessable=counts.unprocessable,
                    gone=counts.gone,
                )
            self._asked |= dict.fromkeys(members, self._clock.now())
        return outcomes
