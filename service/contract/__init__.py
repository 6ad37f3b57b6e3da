"""The published contract: what services downstream may build on.

Import the types from here, and decode a record's value with `decode`; or read the JSON that the schemas of this folder
describe.
"""

from service.contract.decoding import ContractError, decode
from service.contract.previous import old_values
from service.contract.types import (
    DATA_TYPES,
    NO_RAW,
    SCHEMA_VERSION,
    Category,
    Charge,
    CheckoutSession,
    Customer,
    Data,
    Dispute,
    Event,
    Invoice,
    InvoiceLine,
    InvoicePayment,
    Metadata,
    Moment,
    Other,
    PaymentIntent,
    PendingUpdate,
    Price,
    Product,
    Refund,
    Subscription,
    SubscriptionItem,
)

__all__ = [
    "DATA_TYPES",
    "NO_RAW",
    "SCHEMA_VERSION",
    "Category",
    "Charge",
    "CheckoutSession",
    "ContractError",
    "Customer",
    "Data",
    "Dispute",
    "Event",
    "Invoice",
    "InvoiceLine",
    "InvoicePayment",
    "Metadata",
    "Moment",
    "Other",
    "PaymentIntent",
    "PendingUpdate",
    "Price",
    "Product",
    "Refund",
    "Subscription",
    "SubscriptionItem",
    "decode",
    "old_values",
]
