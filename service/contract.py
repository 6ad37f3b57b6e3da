"""The published contract: the typed value of every record on the topics, schema version 1.

Services downstream import these types (or read the JSON they describe); they change only by adding optional fields.
Conventions: money is an integer in the currency's minor unit with the currency beside it; times are aware datetimes
in UTC, RFC 3339 on the wire; a reference is always a bare id; what Stripe did not say is null. Statuses and other
enumerations are open: a value Stripe adds tomorrow passes through as it is.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

SCHEMA_VERSION: Final = 1

Category: TypeAlias = Literal["payment", "refund", "subscription", "customer", "catalog", "other"]
"""A topic's family; one event has one category and goes to one topic."""

Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
"""An aware datetime. A time without a zone could not be ordered among the others: it is no record of this contract."""

Metadata: TypeAlias = Mapping[str, str]


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """What an event says about its object: the normalized fields of one object type."""


class PaymentIntent(Data, frozen=True, kw_only=True):
    """A Stripe PaymentIntent."""

    payment_intent_id: str
    status: str | None = None
    amount_minor: int | None = None
    amount_received_minor: int | None = None
    amount_capturable_minor: int | None = None
    currency: str | None = None
    customer_id: str | None = None
    latest_charge_id: str | None = None
    invoice_id: str | None = None
    payment_method_id: str | None = None
    payment_method_type: str | None = None
    capture_method: str | None = None
    failure_code: str | None = None
    decline_code: str | None = None
    failure_message: str | None = None
    canceled_at: Moment | None = None
    cancellation_reason: str | None = None
    description: str | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class Refund(Data, frozen=True, kw_only=True):
    """A Stripe Refund, whichever family of events it came in."""

    refund_id: str
    charge_id: str | None = None
    payment_intent_id: str | None = None
    status: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    reason: str | None = None
    failure_reason: str | None = None
    balance_transaction_id: str | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class Charge(Data, frozen=True, kw_only=True):
    """A Stripe Charge. `refunds` holds the refunds that the payload embeds (API versions before 2022-11-15)."""

    charge_id: str
    payment_intent_id: str | None = None
    invoice_id: str | None = None
    status: str | None = None
    amount_minor: int | None = None
    amount_captured_minor: int | None = None
    amount_refunded_minor: int | None = None
    captured: bool | None = None
    refunded: bool | None = None
    disputed: bool | None = None
    currency: str | None = None
    customer_id: str | None = None
    payment_method_id: str | None = None
    payment_method_type: str | None = None
    failure_code: str | None = None
    decline_code: str | None = None
    failure_message: str | None = None
    balance_transaction_id: str | None = None
    refunds: tuple[Refund, ...] = ()
    description: str | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class Dispute(Data, frozen=True, kw_only=True):
    """A Stripe Dispute."""

    dispute_id: str
    charge_id: str | None = None
    payment_intent_id: str | None = None
    status: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    reason: str | None = None
    is_charge_refundable: bool | None = None
    evidence_due_by: Moment | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class CheckoutSession(Data, frozen=True, kw_only=True):
    """A Stripe Checkout Session."""

    checkout_session_id: str
    mode: str | None = None
    status: str | None = None
    payment_status: str | None = None
    payment_intent_id: str | None = None
    subscription_id: str | None = None
    setup_intent_id: str | None = None
    invoice_id: str | None = None
    customer_id: str | None = None
    customer_email: str | None = None
    client_reference_id: str | None = None
    payment_link_id: str | None = None
    amount_subtotal_minor: int | None = None
    amount_total_minor: int | None = None
    currency: str | None = None
    expires_at: Moment | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class InvoicePayment(Data, frozen=True, kw_only=True):
    """A Stripe InvoicePayment: from API version basil on the only link between an invoice and its payment."""

    invoice_payment_id: str
    invoice_id: str | None = None
    payment_type: str | None = None
    payment_intent_id: str | None = None
    charge_id: str | None = None
    payment_record_id: str | None = None
    status: str | None = None
    amount_requested_minor: int | None = None
    amount_paid_minor: int | None = None
    currency: str | None = None
    is_default: bool | None = None
    paid_at: Moment | None = None
    created_at: Moment | None = None


class SubscriptionItem(msgspec.Struct, frozen=True, kw_only=True):
    """One price of a subscription. Items of one subscription may have different periods (flexible billing)."""

    subscription_item_id: str
    price_id: str | None = None
    product_id: str | None = None
    quantity: int | None = None
    unit_amount_minor: int | None = None
    currency: str | None = None
    interval: str | None = None
    interval_count: int | None = None
    current_period_start: Moment | None = None
    current_period_end: Moment | None = None


class Subscription(Data, frozen=True, kw_only=True):
    """A Stripe Subscription.

    `current_period_start` and `…_end` are the subscription's own where the API version has them, else the earliest
    start and the latest end of its items. A cancellation is scheduled when `cancel_at_period_end` is true or
    `cancel_at` is set.
    """

    subscription_id: str
    customer_id: str | None = None
    status: str | None = None
    current_period_start: Moment | None = None
    current_period_end: Moment | None = None
    cancel_at: Moment | None = None
    cancel_at_period_end: bool | None = None
    canceled_at: Moment | None = None
    ended_at: Moment | None = None
    start_date: Moment | None = None
    trial_start: Moment | None = None
    trial_end: Moment | None = None
    items: tuple[SubscriptionItem, ...] = ()
    latest_invoice_id: str | None = None
    collection_method: str | None = None
    currency: str | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class Invoice(Data, frozen=True, kw_only=True):
    """A Stripe Invoice. `invoice_id` is null only for the preview in `invoice.upcoming`."""

    invoice_id: str | None = None
    number: str | None = None
    subscription_id: str | None = None
    customer_id: str | None = None
    payment_intent_id: str | None = None
    charge_id: str | None = None
    status: str | None = None
    billing_reason: str | None = None
    collection_method: str | None = None
    amount_due_minor: int | None = None
    amount_paid_minor: int | None = None
    amount_remaining_minor: int | None = None
    subtotal_minor: int | None = None
    total_minor: int | None = None
    tax_minor: int | None = None
    currency: str | None = None
    attempt_count: int | None = None
    next_payment_attempt: Moment | None = None
    period_start: Moment | None = None
    period_end: Moment | None = None
    due_date: Moment | None = None
    paid_at: Moment | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class Customer(Data, frozen=True, kw_only=True):
    """A Stripe Customer. `deleted` is true for the stub that some API versions send for a deleted one."""

    customer_id: str
    email: str | None = None
    name: str | None = None
    phone: str | None = None
    description: str | None = None
    currency: str | None = None
    delinquent: bool | None = None
    balance_minor: int | None = None
    deleted: bool = False
    metadata: Metadata = {}
    created_at: Moment | None = None


class Product(Data, frozen=True, kw_only=True):
    """A Stripe Product."""

    product_id: str
    name: str | None = None
    description: str | None = None
    active: bool | None = None
    default_price_id: str | None = None
    product_type: str | None = None
    deleted: bool = False
    metadata: Metadata = {}
    created_at: Moment | None = None
    updated_at: Moment | None = None


class Price(Data, frozen=True, kw_only=True):
    """A Stripe Price. `unit_amount_decimal` stays the string Stripe sends: it may hold fractions of a minor unit."""

    price_id: str
    product_id: str | None = None
    active: bool | None = None
    currency: str | None = None
    unit_amount_minor: int | None = None
    unit_amount_decimal: str | None = None
    price_type: str | None = None
    billing_scheme: str | None = None
    interval: str | None = None
    interval_count: int | None = None
    lookup_key: str | None = None
    nickname: str | None = None
    tax_behavior: str | None = None
    deleted: bool = False
    metadata: Metadata = {}
    created_at: Moment | None = None


class Other(Data, frozen=True, kw_only=True):
    """An object without a type of its own here: the references it shares with others. The rest is in `raw`."""

    customer_id: str | None = None
    payment_intent_id: str | None = None
    charge_id: str | None = None
    invoice_id: str | None = None
    subscription_id: str | None = None
    product_id: str | None = None


DATA_TYPES: Final[Mapping[str, type[Data]]] = {
    "payment_intent": PaymentIntent,
    "charge": Charge,
    "refund": Refund,
    "dispute": Dispute,
    "checkout_session": CheckoutSession,
    "invoice_payment": InvoicePayment,
    "subscription": Subscription,
    "invoice": Invoice,
    "customer": Customer,
    "product": Product,
    "price": Price,
}
"""`object_type` → the type of `data`; any other object type has `Other`, and so has every event of category `other`."""


NO_RAW: Final = msgspec.Raw(b"null")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One normalized Stripe event: the value of one record.

    `account` is never null: the event's, else the endpoint's configured account, else "default".
    `created_at` is Stripe's, in whole seconds (a thin event's in milliseconds); `received_at` is ours, in milliseconds.
    `previous` holds the normalized fields that changed, with their old values as they stand on the wire.
    `raw` is Stripe's event byte for byte where the publisher keeps it (always for `Other`), else `NO_RAW`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    category: Category
    event_id: str
    event_type: str
    account: str
    livemode: bool
    endpoint: str
    created_at: Moment
    received_at: Moment
    api_version: str | None
    request_id: str | None
    idempotency_key: str | None
    object_type: str
    object_id: str | None
    data: Data
    previous: Mapping[str, Any] | None
    raw: msgspec.Raw
