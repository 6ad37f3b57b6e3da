"""How much of a payment was refunded, as far as its charges and refunds say: neither alone is enough.

A charge's `amount_refunded` counts every refund that is pending or succeeded, also those of which no refund event
ever came; but it is as old as the charge's last event, and Stripe does not promise a charge event when a refund fails.
Refund events are about one refund each, and need not have come for every one that a charge counts. So, per charge:

    its total
    - the refunds in it that failed or were canceled since     (see `_taken_back`)
    + the succeeded refunds created after its last event       (the total cannot know them)

and never less than its succeeded refunds come to; less what was only authorized and then released, which Stripe counts
as refunded though it was never received. Refunds of a charge that was not seen, or whose events do not say a
total, count when they succeeded. All of it is a function of the states, in no order.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from service.contract import Charge, Refund
from service.projections.model import ObjectState

_TAKEN_BACK: Final = frozenset({"failed", "canceled"})


def refunded_amount(
    charges: Iterable[tuple[ObjectState, Charge]],
    refunds: Iterable[tuple[ObjectState, Refund]],
    main_charge_id: str | None,
) -> int:
    """What was refunded, in the currency's minor unit. A refund that names no charge is the main charge's."""
    by_charge: defaultdict[str | None, list[tuple[ObjectState, Refund]]] = defaultdict(list)
    for state, refund in refunds:
        by_charge[refund.charge_id or main_charge_id].append((state, refund))
    total = 0
    for state, charge in charges:
        total += _of_charge(charge, state.last_event_at, by_charge.pop(charge.charge_id, []))
    return total + sum(_succeeded(refund for _, refund in rest) for rest in by_charge.values())


def _of_charge(charge: Charge, as_of: datetime, refunds: Sequence[tuple[ObjectState, Refund]]) -> int:
    """What was given back of the money that a charge took; what it never took was not given back, but released."""
    succeeded = _succeeded(refund for _, refund in refunds)
    total = charge.amount_refunded_minor
    if total is None:
        return max(0, succeeded - _released(charge))
    later = _succeeded(refund for _, refund in refunds if _is_after(refund, as_of))
    counted = [(state, refund) for state, refund in refunds if not _is_after(refund, as_of)]
    return max(0, max(total - _taken_back(total, as_of, counted) + later, succeeded) - _released(charge))


def _released(charge: Charge) -> int:
    """The part of an authorization that was not captured: once it is let go, Stripe counts it as refunded."""
    if charge.captured is False:
        captured: int | None = 0
    elif charge.amount_captured_minor is not None:
        captured = charge.amount_captured_minor
    else:
        captured = charge.amount_minor
    return max(0, (charge.amount_minor or 0) - (captured or 0))


def _taken_back(total: int, as_of: datetime, refunds: Sequence[tuple[ObjectState, Refund]]) -> int:
    """How much of a charge's total failed or was canceled since.

    A refund whose last event is older than the charge's is out of the total already. One of the same second may be
    in it or not (Stripe's seconds do not tell), and so may one that failed before and was only touched since; it is
    in it if the total has room for it beside the refunds that still stand.
    """
    standing = sum(refund.amount_minor or 0 for _, refund in refunds if refund.status not in _TAKEN_BACK)
    taken_back = 0
    for state, refund in sorted(refunds, key=lambda r: (r[0].last_event_at, r[1].refund_id)):
        amount = refund.amount_minor or 0
        if refund.status in _TAKEN_BACK and state.last_event_at >= as_of and total - taken_back - amount >= standing:
            taken_back += amount
    return taken_back


def _is_after(refund: Refund, as_of: datetime) -> bool:
    return refund.created_at is not None and refund.created_at > as_of


def _succeeded(refunds: Iterable[Refund]) -> int:
    return sum(refund.amount_minor or 0 for refund in refunds if refund.status == "succeeded")
