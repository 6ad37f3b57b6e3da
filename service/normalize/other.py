"""Objects without a type of their own here: what they share with the others."""

from service.contract import Other
from service.normalize.shapes import Malformed, Tree, reference


def read_other(tree: Tree) -> Other:
    """The common references of any object."""
    return Other(
        customer_id=_recognized(tree, "customer"),
        payment_intent_id=_recognized(tree, "payment_intent"),
        charge_id=_recognized(tree, "charge"),
        invoice_id=_recognized(tree, "invoice"),
        subscription_id=_recognized(tree, "subscription"),
        product_id=_recognized(tree, "product"),
    )


def _recognized(tree: Tree, name: str) -> str | None:
    """A field of an object we do not know may mean something else under a name we know; `raw` keeps it."""
    try:
        return reference(tree, name)
    except Malformed:
        return None
