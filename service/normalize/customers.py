"""Customers."""

from service.contract import Customer
from service.normalize.shapes import Tree, child, first, flag, identity, integer, metadata, reference, text, timestamp


def read_customer(tree: Tree) -> Customer:
    """A `customer`, whole, or the stub `{id, object, deleted}` of a deleted one."""
    return Customer(
        customer_id=identity(tree),
        customer_account_id=reference(tree, "customer_account"),
        email=text(tree, "email"),
        name=text(tree, "name"),
        phone=text(tree, "phone"),
        description=text(tree, "description"),
        currency=text(tree, "currency"),
        delinquent=flag(tree, "delinquent"),
        balance_minor=first(integer(tree, "balance"), integer(tree, "account_balance")),
        default_payment_method_id=reference(child(tree, "invoice_settings"), "default_payment_method")
        or reference(tree, "default_source")
        or reference(tree, "default_card"),
        deleted=flag(tree, "deleted") or False,
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )
