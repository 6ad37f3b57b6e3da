"""Payments: a row per payment intent, or per charge that has none, from all objects that belong to it.

A row stands as soon as any event names its payment: a refund that comes first makes a row with what it knows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

from service.contract import (
    Category,
    Charge,
    CheckoutSession,
    Data,
    Dispute,
    Event,
    InvoicePayment,
    PaymentIntent,
    Refund,
)
from service.projections.columns import last_event_of
from service.projections.model import Links, ObjectKey, ObjectState, Observation, Row, RowSet
from service.projections.observing import observe_embedded_refunds, observe_object
from service.projections.refunded_amount import refunded_amount

_HELD_BACK: Final = frozenset(
    {"needs_response", "under_review", "lost", "appeal_needs_response", "appeal_under_review"}
)
_OBSERVED: Final = frozenset({"payment_intent", "charge", "refund", "dispute", "checkout_session", "invoice_payment"})


@dataclass(frozen=True, slots=True)
class Payments:
    """The table `payments`."""

    name: str = "payments"
    ledger: str = "payment_events"
    categories: tuple[Category, ...] = ("payment", "refund")

    def observe(self, event: Event) -> tuple[Observation, ...]:
        """See `Projection.observe`."""
        return (*observe_object(event, _OBSERVED), *observe_embedded_refunds(event))

    def links(self, observation: Observation) -> Links:
        """See `Projection.links`."""
        match observation.data:
            case PaymentIntent() as intent:
                return _links(intent.payment_intent_id, refs=(intent.latest_charge_id, intent.invoice_id))
            case Charge() as charge:
                return _links(charge.payment_intent_id or charge.charge_id, refs=(charge.invoice_id,))
            case Refund() | Dispute() as part:
                return _links(part.payment_intent_id, refs=(part.charge_id,), via=part.charge_id)
            case CheckoutSession() as session:
                # In subscription mode a session knows no payment intent, only the invoice that it pays.
                return _links(session.payment_intent_id, refs=(session.invoice_id,), via=session.invoice_id)
            case InvoicePayment() as paid:
                return _links(paid.payment_intent_id, refs=(paid.invoice_id,), via=paid.charge_id)
            case _:
                return _links(None)

    def rows(self, root: ObjectKey, states: Sequence[ObjectState]) -> RowSet:
        """See `Projection.rows`. A charge that turns out to have a payment intent has no row of its own."""
        payment = _Payment.of(root, states)
        if not states or _belongs_elsewhere(root, payment.charges):
            return RowSet((), owned={"payments": "payment_id"})
        columns = {name: column(payment) for name, column in COLUMNS.items()} | last_event_of(states)
        return RowSet((Row("payments", root, columns),), owned={})


def _links(root: str | None, refs: Iterable[str | None] = (), via: str | None = None) -> Links:
    if root is None:
        return Links(roots=frozenset(), refs=frozenset(), via=via)
    return Links(roots=frozenset({root}), refs=frozenset(ref for ref in refs if ref is not None), via=None)


def _belongs_elsewhere(root: ObjectKey, charges: Iterable[tuple[ObjectState, Charge]]) -> bool:
    return any(
        charge.charge_id == root.object_id and charge.payment_intent_id not in (None, root.object_id)
        for _, charge in charges
    )


# The one object of each type that speaks for a payment ---------------------------------------------------------------

_D = TypeVar("_D", bound=Data)


@dataclass(frozen=True, slots=True)
class _Payment:
    """All charges, refunds and disputes of one payment; and of each type of object the one that speaks for it."""

    speakers: Mapping[str, Data]
    charges: Sequence[tuple[ObjectState, Charge]]
    refunds: Sequence[tuple[ObjectState, Refund]]
    disputes: Sequence[tuple[ObjectState, Dispute]]

    @classmethod
    def of(cls, root: ObjectKey, states: Sequence[ObjectState]) -> "_Payment":
        charges, refunds, disputes = _of_type(Charge, states), _of_type(Refund, states), _of_type(Dispute, states)
        intent = next((i for _, i in _of_type(PaymentIntent, states) if i.payment_intent_id == root.object_id), None)
        speakers = {
            "payment_intent": intent,
            "charge": _main_charge(intent, charges),
            "refund": _latest(refunds),
            "dispute": _latest(disputes),
            "checkout_session": _main_session(_of_type(CheckoutSession, states)),
            "invoice_payment": _latest(_of_type(InvoicePayment, states)),
        }
        return cls({name: data for name, data in speakers.items() if data is not None}, charges, refunds, disputes)


def _of_type(data_type: type[_D], states: Iterable[ObjectState]) -> list[tuple[ObjectState, _D]]:
    return [(state, state.data) for state in states if isinstance(state.data, data_type)]


def _main_charge(intent: PaymentIntent | None, charges: Sequence[tuple[ObjectState, Charge]]) -> Charge | None:
    """The charge that the payment intent names, seen or not: another one is a failed attempt. Else the latest."""
    if intent is None or intent.latest_charge_id is None:
        return _latest(charges)
    return next((charge for _, charge in charges if charge.charge_id == intent.latest_charge_id), None)


def _main_session(sessions: Sequence[tuple[ObjectState, CheckoutSession]]) -> CheckoutSession | None:
    """The latest that was completed, else the latest: a customer may leave one and pay in another."""
    return _latest([s for s in sessions if s[1].status == "complete"]) or _latest(sessions)


def _latest(objects: Sequence[tuple[ObjectState, _D]]) -> _D | None:
    return max(objects, key=_age)[1] if objects else None


def _age(item: tuple[ObjectState, Data]) -> tuple[datetime, str]:
    state, data = item
    created_at: datetime | None = getattr(data, "created_at", None)
    return created_at or state.last_event_at, state.key.object_id


# Columns -------------------------------------------------------------------------------------------------------------

_Column: TypeAlias = Callable[[_Payment], Any]


def _owner(*sources: str) -> _Column:
    """The field of the first object that was seen. It owns the column: its null counts (a failure is over)."""
    pairs = [tuple(source.split(".")) for source in sources]

    def column(payment: _Payment) -> Any:
        for object_type, field in pairs:
            if object_type in payment.speakers:
                return getattr(payment.speakers[object_type], field)
        return None

    return column


def _known(*sources: str) -> _Column:
    """The first value that any object knows: for facts that some API versions tell on one object, some on another."""
    pairs = [tuple(source.split(".")) for source in sources]

    def column(payment: _Payment) -> Any:
        for object_type, field in pairs:
            value = getattr(payment.speakers.get(object_type), field, None)
            if value is not None:
                return value
        return None

    return column


def _received(payment: _Payment) -> int | None:
    intent = payment.speakers.get("payment_intent")
    if isinstance(intent, PaymentIntent) and intent.amount_received_minor is not None:
        return intent.amount_received_minor
    charge = payment.speakers.get("charge")
    if not isinstance(charge, Charge) or charge.status is None:
        return None
    if charge.status != "succeeded" or charge.captured is False:
        return 0
    return charge.amount_minor if charge.amount_captured_minor is None else charge.amount_captured_minor


def _refunded(payment: _Payment) -> int:
    charge = payment.speakers.get("charge")
    main_charge_id = charge.charge_id if isinstance(charge, Charge) else None
    return refunded_amount(payment.charges, payment.refunds, main_charge_id)


def _disputed(payment: _Payment) -> bool:
    return bool(payment.disputes) or any(charge.disputed for _, charge in payment.charges)


def _amount_disputed(payment: _Payment) -> int | None:
    """What disputes hold back or have taken, in the payment's currency; None where it is not known.

    The balance tells it best: of a charge that was refunded in part a dispute takes the rest only. Without its word, an
    inquiry (`warning_…`) moves no money, nor does a dispute that was won.
    """
    if not payment.disputes:
        return None if any(charge.disputed for _, charge in payment.charges) else 0
    currency = COLUMNS["currency"](payment)
    amounts = [_held_back(dispute, currency) for _, dispute in payment.disputes]
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def _held_back(dispute: Dispute, currency: str | None) -> int | None:
    if dispute.balance_change_minor is not None and dispute.balance_currency == currency:
        return -dispute.balance_change_minor
    if dispute.status not in _HELD_BACK:
        return 0
    return dispute.amount_minor if dispute.currency in (None, currency) else None


def _metadata(payment: _Payment) -> Mapping[str, str]:
    return _owner("payment_intent.metadata", "charge.metadata")(payment) or {}


COLUMNS: Final[Mapping[str, _Column]] = {
    "status": _owner("payment_intent.status", "charge.status"),
    "amount_minor": _known("payment_intent.amount_minor", "charge.amount_minor"),
    "amount_received_minor": _received,
    "amount_capturable_minor": _owner("payment_intent.amount_capturable_minor"),
    "amount_refunded_minor": _refunded,
    "amount_disputed_minor": _amount_disputed,
    "application_fee_amount_minor": _known(
        "charge.application_fee_amount_minor", "payment_intent.application_fee_amount_minor"
    ),
    "fee_minor": _known("charge.fee_minor"),
    "currency": _known("payment_intent.currency", "charge.currency", "refund.currency", "dispute.currency"),
    "customer_id": _known("payment_intent.customer_id", "charge.customer_id", "checkout_session.customer_id"),
    "customer_account_id": _known("payment_intent.customer_account_id", "checkout_session.customer_account_id"),
    "charge_id": _known("payment_intent.latest_charge_id", "charge.charge_id", "refund.charge_id", "dispute.charge_id"),
    "invoice_id": _known(
        "payment_intent.invoice_id", "charge.invoice_id", "invoice_payment.invoice_id", "checkout_session.invoice_id"
    ),
    "checkout_session_id": _owner("checkout_session.checkout_session_id"),
    "payment_method_type": _known("charge.payment_method_type", "payment_intent.payment_method_type"),
    "failure_code": _owner("payment_intent.failure_code", "charge.failure_code"),
    "decline_code": _owner("payment_intent.decline_code", "charge.decline_code"),
    "failure_message": _owner("payment_intent.failure_message", "charge.failure_message"),
    "disputed": _disputed,
    "dispute_id": _owner("dispute.dispute_id"),
    "dispute_status": _owner("dispute.status"),
    "dispute_reason": _owner("dispute.reason"),
    "canceled_at": _owner("payment_intent.canceled_at"),
    "cancellation_reason": _owner("payment_intent.cancellation_reason"),
    "description": _owner("payment_intent.description", "charge.description"),
    "metadata": _metadata,
    "created_at": _owner("payment_intent.created_at", "charge.created_at"),
}
"""Which object says what: a column's one owner, and who speaks while the owner was not seen."""

PAYMENTS: Final = Payments()
