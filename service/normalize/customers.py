"""Customers."""

from service.contract import Customer
from service.normalize.shapes import Tree, flag, identity, integer, metadata, text, timestamp


def read_customer(tree: Tree) -> Customer:
    """A `customer`, whole, or the stub `{id, object, deleted}` of a deleted one."""
    balance = integer(tree, "balance")
    return Customer(
        customer_id=identity(tree),
        email=text(tree, "email"),
        name=text(tree, "name"),
        phone=text(tree, "phone"),
        description=text(tree, "description"),
        currency=text(tree, "currency"),
        delinquent=flag(tree, "delinquent"),
        balance_minor=integer(tree, "account_balance") if balance is None else balance,
        deleted=flag(tree, "deleted") or False,
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )
