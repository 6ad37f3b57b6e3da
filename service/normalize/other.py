"""Objects without a type of their own here: what they share with the others."""

from service.contract import Other
from service.normalize.shapes import NOTHING, Malformed, Tree, reference


def read_other(tree: Tree) -> Other:
    """The common references of any object."""
    return Other(
        customer_id=_recognized(tree, "customer"),
        payment_intent_id=_recognized(tree, "payment_intent"),
        charge_id=_recognized(tree, "charge") or _recognized(tree, "source_transaction"),
        invoice_id=_recognized(tree, "invoice"),
        subscription_id=_recognized(tree, "subscription")
        or _recognized(_embedded(_embedded(tree, "parent"), "subscription_details"), "subscription")
        or _recognized(tree, "released_subscription"),
        product_id=_recognized(tree, "product")
        or _recognized(_embedded(_embedded(tree, "pricing"), "price_details"), "product")
        or _recognized(_embedded(tree, "price"), "product")
        or _recognized(_embedded(tree, "plan"), "product"),
    )


def _recognized(tree: Tree, name: str) -> str | None:
    """A field of an object we do not know may mean something else under a name we know; `raw` keeps it."""
    try:
        return reference(tree, name)
    except Malformed:
        return None


def _embedded(tree: Tree, name: str) -> Tree:
    value = tree.get(name)
    return value if type(value) is dict else NOTHING
