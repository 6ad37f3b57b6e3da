"""Idempotency keys as Stripe keeps them: what was begun with one is done once, and its answer repeated for a day."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from service.simulator.events import DAY
from service.simulator.fake_stripe.refusals import IDEMPOTENCY_ERROR, Refusal

KEYS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, but for the headers that every answer has."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Asker(NamedTuple):
    """Whose Idempotency-Key it is: the same text is another key for another account, and in the other mode."""

    account: str
    livemode: bool
    key: str


class Idempotency:
    """The keys that were used, with what was asked and answered."""

    def __init__(self) -> None:
        self._told: OrderedDict[Asker, tuple[float, bytes, Answer]] = OrderedDict()
        self._under_way: set[Asker] = set()

    @contextmanager
    def under_way(self, asker: Asker) -> Iterator[None]:
        """Refuse whoever comes with the same key meanwhile. Raises `Refusal` where somebody has come before."""
        self._refuse_beside(asker)
        self._under_way.add(asker)
        try:
            yield
        finally:
            self._under_way.discard(asker)

    def once(self, asker: Asker, asked: bytes, now: float, do: Callable[[], Answer]) -> Answer:
        """The answer of `do`, or, where this key's request was begun within the last day, its answer once more.

        Raises `Refusal`: for a key that has been used for something else, and what `do` raises.
        """
        self._refuse_beside(asker)
        at, before, answer = self._told.get(asker, (now - DAY, b"", None))
        if answer is None or now - at >= DAY:
            answer = do()
            self._told[asker] = (now, asked, answer)
            self._told.move_to_end(asker)
            if len(self._told) > KEYS_MAX:
                self._told.popitem(last=False)
            return answer
        if before != asked:
            raise Refusal(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were first used with."
                f" Try using a key other than '{asker.key}' if you meant to execute a different request.",
                kind=IDEMPOTENCY_ERROR,
            )
        return replace(answer, headers={**answer.headers, "Idempotent-Replayed": "true"})

    def _refuse_beside(self, asker: Asker) -> None:
        if asker in self._under_way:
            raise Refusal(
                409,
                "There is currently another in-progress request using this Idempotent Key (that probably means you"
                f" submitted twice, and the other request is still going through): {asker.key}. Please try again"
                " later.",
                kind=IDEMPOTENCY_ERROR,
                code="idempotency_key_in_use",
            )
