"""Refunds, on their own and embedded in a charge."""

from service.contract import Refund
from service.normalize.shapes import (
    Tree,
    child,
    customer_account,
    identity,
    integer,
    metadata,
    reference,
    text,
    timestamp,
)


def read_refund(tree: Tree) -> Refund:
    """A `refund`."""
    charge = child(tree, "charge")
    return Refund(
        refund_id=identity(tree),
        charge_id=reference(tree, "charge") or reference(child(tree, "payment_intent"), "latest_charge"),
        payment_intent_id=reference(tree, "payment_intent") or reference(charge, "payment_intent"),
        status=text(tree, "status"),
        amount_minor=integer(tree, "amount"),
        currency=text(tree, "currency"),
        customer_id=reference(tree, "customer")
        or reference(charge, "customer")
        or reference(child(tree, "payment_intent"), "customer"),
        customer_account_id=customer_account(tree),
        reason=text(tree, "reason"),
        failure_reason=text(tree, "failure_reason"),
        pending_reason=text(tree, "pending_reason"),
        failure_balance_transaction_id=reference(tree, "failure_balance_transaction"),
        balance_transaction_id=reference(tree, "balance_transaction"),
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )
