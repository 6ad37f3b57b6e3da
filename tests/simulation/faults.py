"""What can go wrong in a history, how often it does, and what did."""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import Final


class Fault(StrEnum):
    """A kind of fault, or of something unusual that Stripe does. The values are what tables and traces show."""

    # Kafka, producing
    PUBLISH_SLOW = "publish: slow"
    PUBLISH_REFUSED = "publish: refused for good"
    PUBLISH_LOST = "publish: lost, outcome unknown"
    PUBLISH_ACK_LOST = "publish: appended, ack lost"
    PUBLISH_LATE = "publish: appended after the time-out"
    PUBLISH_TWICE = "publish: appended twice"
    BROKER_AWAY = "broker: away"
    # Kafka, consuming
    REBALANCE = "group: rebalance"
    ZOMBIE = "group: a member goes on with partitions it has lost"
    REDELIVERY = "source: records again, from an earlier offset"
    SOURCE_REFUSED = "source: a question refused"
    SOURCE_SLOW = "source: slow"
    COMMIT_LOST = "source: an offset commit lost"
    POISON_RECORD = "topic: a record that no one can decode"
    # The dedupe store
    DEDUPE_SLOW = "dedupe: slow"
    DEDUPE_REFUSED = "dedupe: refused"
    DEDUPE_LOST = "dedupe: question lost"
    DEDUPE_ANSWER_LOST = "dedupe: answer lost"
    DEDUPE_LATE = "dedupe: done after the time-out"
    RELEASE_LATE = "dedupe: a release done after the lease"
    DEDUPE_AWAY = "dedupe: away"
    DEDUPE_FORGETS = "dedupe: forgets its last writes"
    DEDUPE_RESTART = "dedupe: restarts empty"
    # The projections' database
    STORE_SLOW = "store: slow"
    STORE_REFUSED = "store: refused (08, 40, 53, 57)"
    STORE_LOST = "store: question lost"
    STORE_COMMIT_UNKNOWN = "store: committed, answer lost"
    STORE_LATE = "store: committed after the time-out"
    STORE_AWAY = "store: away"
    STORE_FAILOVER = "store: failover loses its last transactions"
    ROW_REFUSED = "store: a row refused (22, 23)"
    # Processes
    RECEIVER_CRASH = "receiver: killed"
    RECEIVER_RESTART = "receiver: stopped and started"
    RECEIVER_SKEW = "receiver: clock wrong"
    CONSUMER_CRASH = "consumer: killed"
    CONSUMER_RESTART = "consumer: stopped and started"
    RECEIVER_FROZEN = "receiver: frozen for a while"
    CONSUMER_FROZEN = "consumer: frozen for a while"
    # Between Stripe and the receivers
    REQUEST_LOST = "network: request lost"
    REQUEST_LATE = "network: request late"
    ANSWER_LOST = "network: answer lost"
    HUNG_UP = "network: client hangs up"
    # What Stripe and others send
    TWO_EVENTS = "stripe: two events for one change"
    TWO_ENDPOINTS = "stripe: one event to two endpoints"
    RESENT = "stripe: resent by hand"
    RESENT_OFTEN = "stripe: resent by hand again and again"
    SENT_TWICE = "stripe: sent twice at once"
    WRONG_MODE = "stripe: event at an endpoint of the other mode"
    MALFORMED = "stripe: a body that is no event"
    FORGED = "attacker: forged, unsigned or replayed"


SQLSTATES: Final[Sequence[str]] = ("08006", "40001", "40P01", "53300", "57P01", "25006", "55P03")

_OF_STRIPE: Final = frozenset(
    {Fault.TWO_EVENTS, Fault.TWO_ENDPOINTS, Fault.RESENT, Fault.RESENT_OFTEN, Fault.SENT_TWICE}
)
"""What Stripe does on any day, and so in many histories."""


def _likely(kind: Fault, share: float, side: frozenset[str]) -> float:
    """How likely a history has this kind of fault."""
    if side:
        return 0.9 if kind.partition(":")[0] in side else 0.1
    return max(share, 0.4) if kind in _OF_STRIPE else share


_SHARES: Final[Sequence[float]] = (0.02, 0.1, 0.3)
"""How often a fault of a kind that is on strikes, where it can."""


_SIDES: Final[Sequence[frozenset[str]]] = (
    frozenset({"publish", "dedupe", "receiver", "stripe"}),
    frozenset({"group", "source", "store", "consumer"}),
)
"""What is before a record is in the log, and what is after, by the first word of the kinds."""


class Chaos:
    """The seed's decisions. Each history has a random subset of the kinds, so that some are quiet enough to judge.

    In some almost everything befalls one side: what needs three faults at once would else hardly ever happen.
    """

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.counts: Counter[Fault] = Counter()
        self.healed = False
        """Set when nothing is to go wrong any more: then everything must come right."""
        share = chance.choice((0.0, 0.1, 0.3, 0.6))
        side = chance.choice(_SIDES) if chance.random() < 0.4 else frozenset()
        self._shares = {
            kind: chance.choice(_SHARES) * (2 if kind in _OF_STRIPE else 1)
            for kind in Fault
            if chance.random() < _likely(kind, share, side)
        }

    @classmethod
    def none(cls, chance: Random) -> "Chaos":
        """Nothing goes wrong but what is done on purpose."""
        chaos = cls(chance)
        chaos._shares = {}
        return chaos

    def on(self, kind: Fault) -> bool:
        """Whether the history has this kind at all."""
        return kind in self._shares

    def strikes(self, kind: Fault) -> bool:
        """Whether it happens here and now; counted where it does."""
        share = self._shares.get(kind)
        if share is None or self.healed or self.chance.random() >= share:
            return False
        self.counts[kind] += 1
        return True

    def happened(self, kind: Fault) -> None:
        """Count one that was planned."""
        self.counts[kind] += 1

    def latency(self) -> float:
        """A healthy one-way trip on the network, in seconds."""
        return self.chance.expovariate(1 / 0.002)
