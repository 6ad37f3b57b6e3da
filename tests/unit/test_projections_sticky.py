"""Every field is decided on: its null is news, or it says nothing."""

import msgspec
import pytest

from service.contract import DATA_TYPES, Data, Event, Invoice, PaymentIntent, Subscription
from service.projections import PROJECTIONS
from service.projections.ordering import fold
from service.projections.sticky import STICKY_FIELDS, TAKEN_BACK
from tests.support.histories import at, event, observation

# Stated here a second time: a field that is added to the contract has to be decided on.
STICKY = {
    "payment_intent": """status amount_minor amount_received_minor amount_capturable_minor currency customer_id
        customer_account_id latest_charge_id invoice_id capture_method on_behalf_of_id transfer_destination_id canceled_at
        cancellation_reason created_at""",
    "charge": """payment_intent_id invoice_id status amount_minor amount_captured_minor amount_refunded_minor
        application_fee_amount_minor fee_minor captured paid refunded disputed dispute_id currency customer_id
        payment_method_id payment_method_type card_brand card_last4 failure_code decline_code failure_message
        outcome_type network_status balance_transaction_id on_behalf_of_id transfer_destination_id refunds_have_more created_at""",
    "refund": """charge_id payment_intent_id status amount_minor currency customer_id customer_account_id reason failure_reason
        balance_transaction_id failure_balance_transaction_id created_at""",
    "dispute": """dispute_id charge_id payment_intent_id status amount_minor currency reason is_charge_refundable
        balance_change_minor balance_fee_minor balance_currency created_at""",
    "checkout_session": """mode status payment_status payment_intent_id subscription_id setup_intent_id invoice_id
        customer_id customer_account_id customer_email client_reference_id payment_link_id amount_subtotal_minor
        amount_total_minor amount_discount_minor amount_shipping_minor amount_tax_minor currency expires_at
        created_at""",
    "invoice_payment": """invoice_id payment_type payment_intent_id charge_id payment_record_id status
        amount_requested_minor amount_paid_minor currency is_default paid_at created_at""",
    "subscription": """subscription_id customer_id customer_account_id status current_period_start current_period_end
        cancel_at_period_end cancellation_scheduled ended_at start_date billing_cycle_anchor billing_mode
        items_have_more latest_invoice_id transfer_destination_id collection_method currency created_at""",
    "invoice": """invoice_id number subscription_id customer_id customer_account_id payment_intent_id charge_id status
        billing_reason collection_method amount_due_minor amount_paid_minor amount_remaining_minor
        amount_overpaid_minor subtotal_minor total_minor currency attempt_count period_start period_end paid_at
        paid_out_of_band finalized_at voided_at lines_have_more created_at""",
    "product": "name active product_type created_at updated_at",
    "price": """product_id active currency unit_amount_minor unit_amount_decimal price_type billing_scheme interval
        interval_count usage_type tiers_mode tax_behavior created_at""",
    "plan": """product_id active currency unit_amount_minor unit_amount_decimal price_type billing_scheme interval
        interval_count usage_type tiers_mode lookup_key tax_behavior created_at""",
}


@pytest.mark.parametrize("object_type", STICKY)
def test_a_field_is_kept_or_its_null_is_news(object_type: str) -> None:
    nullable = {f.name for f in msgspec.structs.fields(DATA_TYPES[object_type]) if f.default is None}
    assert set(STICKY_FIELDS[object_type]) == set(STICKY[object_type].split())
    assert TAKEN_BACK[object_type] == nullable - set(STICKY[object_type].split())


def test_every_object_that_a_projection_folds_is_decided_on() -> None:
    observed = {
        name
        for name, data_type in DATA_TYPES.items()
        for projection in PROJECTIONS.values()
        if projection.observe(_event_of(name, data_type))
    }
    assert observed == set(STICKY)


def _event_of(object_type: str, data_type: type[Data]) -> Event:
    prefix = {"subscription": "customer.subscription", "checkout_session": "checkout.session"}
    id_field = next(f.name for f in msgspec.structs.fields(data_type) if f.name.endswith("_id"))
    built = event("payment_intent.created", PaymentIntent(payment_intent_id="x"))
    return msgspec.structs.replace(
        built,
        event_type=f"{prefix.get(object_type, object_type)}.updated",
        object_type=object_type,
        object_id="x",
        data=data_type(**{id_field: "x"}),
    )


def test_what_a_rendering_does_not_know_stays_and_what_was_taken_back_goes() -> None:
    first = Subscription(subscription_id="sub_1", billing_mode="flexible", cancel_at=at(9), pause_behavior="void")
    second = Subscription(subscription_id="sub_1", status="active")
    state = fold(
        [
            observation("customer.subscription.updated", first, event_id="evt_1"),
            observation("customer.subscription.updated", second, second=1, event_id="evt_2"),
        ]
    ).state
    assert state.data == Subscription(subscription_id="sub_1", status="active", billing_mode="flexible")


def test_an_invoice_stays_paid_in_a_rendering_that_has_no_status() -> None:
    paid = Invoice(invoice_id="in_1", status="paid", paid_at=at(1), next_payment_attempt=at(9))
    state = fold(
        [
            observation("invoice.paid", paid, event_id="evt_1"),
            observation("invoice.updated", Invoice(invoice_id="in_1"), second=1, event_id="evt_2"),
        ]
    ).state
    assert state.data == Invoice(invoice_id="in_1", status="paid", paid_at=at(1))
