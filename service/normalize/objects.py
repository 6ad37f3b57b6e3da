"""Any Stripe object, normalized: the one table from its `object` to its type and reader."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from service.contract import Data
from service.normalize.catalog import read_plan, read_price, read_product
from service.normalize.customers import read_customer
from service.normalize.event_types import category_of
from service.normalize.other import read_other
from service.normalize.payments import (
    read_charge,
    read_checkout_session,
    read_dispute,
    read_invoice_payment,
    read_payment_intent,
)
from service.normalize.refunds import read_refund
from service.normalize.shapes import Malformed, Tree, optional_identity
from service.normalize.subscriptions import read_invoice, read_subscription

Reader = Callable[[Tree], Data]

OBJECT_TYPE: Final = re.compile(r"[A-Za-z0-9_.]{1,100}")
"""It becomes part of the header `ce_dataschema`, which is a URI."""

READERS: Final[Mapping[str, Reader]] = {
    "payment_intent": read_payment_intent,
    "charge": read_charge,
    "refund": read_refund,
    "dispute": read_dispute,
    "checkout_session": read_checkout_session,
    "invoice_payment": read_invoice_payment,
    "subscription": read_subscription,
    "invoice": read_invoice,
    "customer": read_customer,
    "product": read_product,
    "price": read_price,
    "plan": read_plan,
}
"""`object_type` → its reader; any other has `read_other`."""


@dataclass(frozen=True, slots=True)
class NormalizedObject:
    """A Stripe object as an event's value has it. `object_id` is None for the few that have none.

    `reader` is what made `data`: the object as it was before is read by the same.
    """

    object_type: str
    object_id: str | None
    data: Data
    reader: Reader


def normalize_object(tree: Tree, *, event_type: str) -> NormalizedObject:
    """Normalize one Stripe object, chosen by its own `object`; `event_type` speaks for one that does not say.

    On the topic of everything else `data` is always `Other`, so that a record says how to read it: a thin event there
    names a typed object without carrying it. Raises `Malformed` with the field that cannot be read.
    """
    object_type = type_of(tree, event_type)
    reader = read_other if category_of(event_type) == "other" else READERS.get(object_type, read_other)
    return NormalizedObject(object_type, optional_identity(tree), reader(tree), reader)


def type_of(tree: Tree, event_type: str) -> str:
    """The object's type in our spelling. The stubs of deleted objects once came without `object`."""
    stripes = tree.get("object")
    if type(stripes) is str and OBJECT_TYPE.fullmatch(stripes):
        return spelled(stripes)
    if stripes is None:
        resource = event_type.rpartition(".")[0]
        return spelled(resource) if resource == "checkout.session" else resource.rpartition(".")[2] or event_type
    raise Malformed("object")


def spelled(stripes: str) -> str:
    """Our name of a Stripe object: Stripe's, but for the session, whose name is also a table's and a field's."""
    return "checkout_session" if stripes == "checkout.session" else stripes
