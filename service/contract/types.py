"""The typed value of every record on the topics, schema version 1.

These types change only by adding optional fields. Conventions: money is an integer in the currency's minor unit with
the currency beside it; times are aware datetimes in UTC, RFC 3339 on the wire; a reference is always a bare id; what
Stripe did not say is null. Statuses and other enumerations are open: a value Stripe adds tomorrow passes as it is.
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
    application_fee_amount_minor: int | None = None
    currency: str | None = None
    customer_id: str | None = None
    customer_account_id: str | None = None
    latest_charge_id: str | None = None
    invoice_id: str | None = None
    payment_method_id: str | None = None
    payment_method_type: str | None = None
    capture_method: str | None = None
    setup_future_usage: str | None = None
    on_behalf_of_id: str | None = None
    transfer_destination_id: str | None = None
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
    customer_id: str | None = None
    customer_account_id: str | None = None
    reason: str | None = None
    failure_reason: str | None = None
    pending_reason: str | None = None
    balance_transaction_id: str | None = None
    failure_balance_transaction_id: str | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class Charge(Data, frozen=True, kw_only=True):
    """A Stripe Charge. `refunds` holds the refunds that the payload embeds (API versions before 2022-11-15).

    `fee_minor` is Stripe's fee in the currency of the balance, where the payload says it (an expanded balance
    transaction, or the charge itself long ago).
    """

    charge_id: str
    payment_intent_id: str | None = None
    invoice_id: str | None = None
    status: str | None = None
    amount_minor: int | None = None
    amount_captured_minor: int | None = None
    amount_refunded_minor: int | None = None
    application_fee_amount_minor: int | None = None
    fee_minor: int | None = None
    captured: bool | None = None
    paid: bool | None = None
    refunded: bool | None = None
    disputed: bool | None = None
    dispute_id: str | None = None
    currency: str | None = None
    customer_id: str | None = None
    payment_method_id: str | None = None
    payment_method_type: str | None = None
    card_brand: str | None = None
    card_last4: str | None = None
    failure_code: str | None = None
    decline_code: str | None = None
    failure_message: str | None = None
    outcome_type: str | None = None
    outcome_reason: str | None = None
    network_status: str | None = None
    balance_transaction_id: str | None = None
    on_behalf_of_id: str | None = None
    transfer_destination_id: str | None = None
    refunds: tuple[Refund, ...] = ()
    refunds_have_more: bool | None = None
    description: str | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class Dispute(Data, frozen=True, kw_only=True):
    """A Stripe Dispute.

    `balance_change_minor` is what it has come to on the account's balance so far, fees apart: negative once funds are
    withdrawn, 0 again when they are reinstated, null while nothing moved. It is in `balance_currency`. `dispute_id` is
    null for disputes older than their ids (2013).
    """

    dispute_id: str | None = None
    charge_id: str | None = None
    payment_intent_id: str | None = None
    status: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    reason: str | None = None
    is_charge_refundable: bool | None = None
    evidence_due_by: Moment | None = None
    balance_change_minor: int | None = None
    balance_fee_minor: int | None = None
    balance_currency: str | None = None
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
    customer_account_id: str | None = None
    customer_email: str | None = None
    client_reference_id: str | None = None
    payment_link_id: str | None = None
    amount_subtotal_minor: int | None = None
    amount_total_minor: int | None = None
    amount_discount_minor: int | None = None
    amount_shipping_minor: int | None = None
    amount_tax_minor: int | None = None
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
    """One price of a subscription. Items of one subscription may have different periods (flexible billing).

    A subscription from before there were items (2015-10-16) has one, for its plan, under the subscription's own id.
    """

    subscription_item_id: str | None = None
    price_id: str | None = None
    product_id: str | None = None
    quantity: int | None = None
    unit_amount_minor: int | None = None
    unit_amount_decimal: str | None = None
    currency: str | None = None
    interval: str | None = None
    interval_count: int | None = None
    current_period_start: Moment | None = None
    current_period_end: Moment | None = None


class PendingUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that a subscription takes once their invoice is paid; gone at `expires_at` if it is not."""

    expires_at: Moment | None = None
    billing_cycle_anchor: Moment | None = None
    trial_end: Moment | None = None
    items: tuple[SubscriptionItem, ...] = ()


class Subscription(Data, frozen=True, kw_only=True):
    """A Stripe Subscription.

    `current_period_start` and `current_period_end` are the subscription's own where the API version has them, else
    the earliest start and the latest end of its items. `cancellation_scheduled` is true when `cancel_at_period_end`
    is, or `cancel_at` is set. `pause_behavior` and `pause_resumes_at` are about collection (the status stays as it
    is); `paused_reason` says why the status is `paused`. `items_have_more` is true where Stripe has cut the list off.
    `subscription_id` is null for subscriptions older than their ids (2013). `coupon_ids` is null where a discount is
    only named: an id does not tell its coupon.
    """

    subscription_id: str | None = None
    customer_id: str | None = None
    customer_account_id: str | None = None
    status: str | None = None
    current_period_start: Moment | None = None
    current_period_end: Moment | None = None
    cancel_at: Moment | None = None
    cancel_at_period_end: bool | None = None
    cancellation_scheduled: bool | None = None
    cancellation_reason: str | None = None
    cancellation_feedback: str | None = None
    canceled_at: Moment | None = None
    ended_at: Moment | None = None
    start_date: Moment | None = None
    trial_start: Moment | None = None
    trial_end: Moment | None = None
    billing_cycle_anchor: Moment | None = None
    billing_mode: str | None = None
    days_until_due: int | None = None
    pause_behavior: str | None = None
    pause_resumes_at: Moment | None = None
    paused_reason: str | None = None
    pending_update: PendingUpdate | None = None
    items: tuple[SubscriptionItem, ...] = ()
    items_have_more: bool | None = None
    latest_invoice_id: str | None = None
    default_payment_method_id: str | None = None
    schedule_id: str | None = None
    discount_ids: tuple[str, ...] = ()
    coupon_ids: tuple[str, ...] | None = None
    transfer_destination_id: str | None = None
    collection_method: str | None = None
    currency: str | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an invoice. Its period is the time paid for; the invoice's is when its items were collected."""

    invoice_line_id: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    description: str | None = None
    quantity: int | None = None
    price_id: str | None = None
    product_id: str | None = None
    subscription_id: str | None = None
    subscription_item_id: str | None = None
    invoice_item_id: str | None = None
    proration: bool | None = None
    period_start: Moment | None = None
    period_end: Moment | None = None


class Invoice(Data, frozen=True, kw_only=True):
    """A Stripe Invoice. `invoice_id` is null only for the preview in `invoice.upcoming`."""

    invoice_id: str | None = None
    number: str | None = None
    subscription_id: str | None = None
    customer_id: str | None = None
    customer_account_id: str | None = None
    payment_intent_id: str | None = None
    charge_id: str | None = None
    status: str | None = None
    billing_reason: str | None = None
    collection_method: str | None = None
    amount_due_minor: int | None = None
    amount_paid_minor: int | None = None
    amount_remaining_minor: int | None = None
    amount_overpaid_minor: int | None = None
    subtotal_minor: int | None = None
    total_minor: int | None = None
    tax_minor: int | None = None
    discount_minor: int | None = None
    currency: str | None = None
    attempt_count: int | None = None
    next_payment_attempt: Moment | None = None
    period_start: Moment | None = None
    period_end: Moment | None = None
    due_date: Moment | None = None
    paid_at: Moment | None = None
    paid_out_of_band: bool | None = None
    finalized_at: Moment | None = None
    voided_at: Moment | None = None
    lines: tuple[InvoiceLine, ...] = ()
    lines_have_more: bool | None = None
    metadata: Metadata = {}
    created_at: Moment | None = None


class Customer(Data, frozen=True, kw_only=True):
    """A Stripe Customer. `deleted` is true for the stub that some API versions send for a deleted one."""

    customer_id: str
    customer_account_id: str | None = None
    email: str | None = None
    name: str | None = None
    phone: str | None = None
    description: str | None = None
    currency: str | None = None
    delinquent: bool | None = None
    balance_minor: int | None = None
    default_payment_method_id: str | None = None
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
    """A Stripe Price, or Plan, under the id that both share.

    `unit_amount_decimal` stays the string that Stripe sends: it may hold fractions of a minor unit.
    """

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
    trial_period_days: int | None = None
    usage_type: str | None = None
    tiers_mode: str | None = None
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
    "plan": Price,
}
"""`object_type` → the type of `data`; any other object type has `Other`, and so has every event of category `other`."""


NO_RAW: Final = msgspec.Raw(b"null")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One normalized Stripe event: the value of one record.

    `account` is never null: the event's, else the endpoint's configured account, else "default". `context` is the way
    to it from whoever the endpoint belongs to, as an organization's endpoint tells it: `org_…/acct_…`.
    `created_at` is Stripe's, in whole seconds (a thin event's in milliseconds); `received_at` is ours, in milliseconds.
    `snapshot_event` is the id of the snapshot event that a thin one says is its twin.
    `previous` holds the normalized fields that changed, with their old values as they stand on the wire.
    `raw` is Stripe's event byte for byte where the publisher keeps it (always for `Other`), else null (`NO_RAW`). Where
    the publisher redacts fields, it is the event without them, written again.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    category: Category
    event_id: str
    event_type: str
    account: str
    context: str | None = None
    livemode: bool
    endpoint: str
    created_at: Moment
    received_at: Moment
    api_version: str | None
    request_id: str | None
    idempotency_key: str | None
    object_type: str
    object_id: str | None
    snapshot_event: str | None = None
    data: Data
    previous: Mapping[str, Any] | None
    raw: msgspec.Raw
