"""Events in the shapes of old API versions, and objects that are expanded: every field a value, none of them real."""

from typing import Any, Final

from tests.unit.normalize.building import event, updated

AT: Final = 1_600_000_000

_PLAN: Final = {
    "id": "plan_1", "object": "plan", "active": True, "amount": 900, "amount_decimal": "900", "billing_scheme": "tiered",
    "currency": "eur", "interval": "month", "interval_count": 1, "livemode": False, "metadata": {"a": "b"},
    "nickname": "the monthly one", "product": "prod_1", "tiers_mode": "graduated", "trial_period_days": 14,
    "usage_type": "licensed", "created": AT,
}  # fmt: skip
_PRICE: Final = {
    "id": "price_1", "object": "price", "active": True, "billing_scheme": "per_unit", "created": AT, "currency": "eur",
    "lookup_key": "monthly", "metadata": {"a": "b"}, "nickname": "n", "product": {"id": "prod_1", "object": "product", "name": "Tea"},
    "recurring": {"interval": "month", "interval_count": 1, "trial_period_days": 7, "usage_type": "licensed"},
    "tax_behavior": "inclusive", "tiers_mode": "volume", "type": "recurring", "unit_amount": 900, "unit_amount_decimal": "900",
}  # fmt: skip
_BILLING: Final = {
    "address": {"city": "Bremen", "line1": "Am Wall 1"},
    "email": "a@example.org",
    "name": "Ada",
    "phone": "+49",
}
_CARD: Final = {
    "id": "card_1", "object": "card", "address_line1": "Am Wall 1", "brand": "Visa", "type": "Visa", "customer": "cus_1",
    "exp_year": 2030, "fingerprint": "f1", "last4": "4242", "metadata": {}, "name": "Ada",
}  # fmt: skip
_REFUND: Final = {
    "id": "re_1", "object": "refund", "amount": 100, "balance_transaction": "txn_2", "charge": "ch_1", "created": AT,
    "currency": "eur", "customer": "cus_1", "failure_balance_transaction": "txn_3", "failure_reason": "lost_or_stolen_card",
    "metadata": {"why": "torn"}, "payment_intent": "pi_1", "pending_reason": "processing", "reason": "duplicate",
    "receipt_number": "1-2", "status": "succeeded",
}  # fmt: skip
_CHARGE: Final = {
    "id": "ch_1", "object": "charge", "amount": 1000, "amount_captured": 1000, "amount_refunded": 100,
    "application_fee_amount": 10, "balance_transaction": {"id": "txn_1", "object": "balance_transaction", "amount": 1000,
    "currency": "eur", "fee": 30}, "billing_details": _BILLING, "captured": True, "created": AT, "currency": "eur",
    "customer": {"id": "cus_1", "object": "customer", "email": "a@example.org", "description": "d"},
    "description": "Tea", "dispute": "dp_1", "disputed": True, "failure_code": "card_declined", "failure_message": "no",
    "invoice": "in_1", "livemode": False, "metadata": {"order": "1"}, "on_behalf_of": "acct_1",
    "outcome": {"network_status": "approved_by_network", "reason": "generic_decline", "seller_message": "s", "type": "issuer_declined"},
    "paid": True, "payment_intent": "pi_1", "payment_method": "pm_1",
    "payment_method_details": {"card": {"brand": "visa", "fingerprint": "f1", "last4": "4242"}, "type": "card"},
    "receipt_email": "a@example.org", "refunded": False,
    "refunds": {"object": "list", "data": [_REFUND], "has_more": False, "total_count": 1, "url": "/v1/refunds"},
    "shipping": {"address": {"line1": "Am Wall 1"}, "name": "Ada"}, "source": None, "status": "succeeded",
}  # fmt: skip
_OLD_CHARGE: Final = {
    "id": "ch_2", "object": "charge", "amount": 1000, "amount_refunded": 0, "captured": True, "card": _CARD, "created": AT,
    "currency": "eur", "customer": "cus_1", "dispute": None, "failure_code": None, "fee": 30, "paid": True,
    "refunds": [{**_REFUND, "id": "re_2", "charge": "ch_2"}], "receipt_email": "a@example.org",
}  # fmt: skip
_SOURCED_CHARGE: Final = {
    **{name: value for name, value in _CHARGE.items() if name not in {"payment_method_details", "payment_method", "disputed", "balance_transaction"}},
    "id": "ch_3", "fee": 31,
    "source": {"id": "src_1", "object": "source", "card": {"brand": "Visa", "last4": "4242"}, "owner": _BILLING, "type": "card"},
}  # fmt: skip
_INTENT: Final = {
    "id": "pi_1", "object": "payment_intent", "allowed_source_types": ["card"], "amount": 1000, "amount_capturable": 5,
    "amount_received": 1000, "application_fee_amount": 10, "canceled_at": AT, "cancellation_reason": "abandoned",
    "capture_method": "automatic", "charges": {"object": "list", "data": [_CHARGE], "has_more": False}, "created": AT,
    "currency": "eur", "customer": "cus_1", "customer_account": "acct_2", "description": "Tea", "invoice": "in_1",
    "last_payment_error": {"charge": "ch_0", "code": "card_declined", "decline_code": "do_not_honor", "message": "no, Ada",
    "payment_method": {"id": "pm_0", "object": "payment_method", "billing_details": _BILLING, "type": "sepa_debit"}},
    "latest_charge": None, "livemode": False, "metadata": {"order": "1"}, "on_behalf_of": "acct_1", "payment_method": "pm_1",
    "payment_method_types": ["card"], "receipt_email": "a@example.org", "setup_future_usage": "off_session",
    "shipping": {"address": {"line1": "Am Wall 1"}, "name": "Ada"}, "source": "src_1", "status": "canceled",
}  # fmt: skip
_EXPANDED_INTENT: Final = {
    **{name: value for name, value in _INTENT.items() if name not in {"charges", "allowed_source_types"}},
    "id": "pi_2", "latest_charge": _CHARGE,
}  # fmt: skip
_SOURCED_INTENT: Final = {
    "id": "pi_3", "object": "payment_intent", "allowed_source_types": ["card"], "amount": 1, "created": AT, "currency": "eur",
    "last_payment_error": {"charge": "ch_0"}, "source": "src_1", "status": "requires_source",
}  # fmt: skip
_METHOD_INTENT: Final = {
    "id": "pi_4", "object": "payment_intent", "amount": 1, "created": AT, "currency": "eur", "status": "processing",
    "payment_method": {"id": "pm_1", "object": "payment_method", "billing_details": _BILLING, "type": "card"},
}  # fmt: skip
_FAILED_INTENT: Final = {
    "id": "pi_5", "object": "payment_intent", "amount": 1, "created": AT, "currency": "eur", "status": "requires_payment_method",
    "last_payment_error": _INTENT["last_payment_error"],
}  # fmt: skip
_DISPUTE: Final = {
    "id": "dp_1", "object": "dispute", "amount": 1000, "balance_transactions": [{"id": "txn_9", "object": "balance_transaction",
    "amount": -1000, "currency": "eur", "fee": 1500}], "charge": "ch_1", "created": AT, "currency": "eur",
    "evidence": {"customer_email_address": "a@example.org", "customer_name": "Ada"}, "evidence_due_by": AT,
    "evidence_details": {"due_by": AT, "has_evidence": False}, "is_charge_refundable": False, "metadata": {"a": "b"},
    "payment_intent": "pi_1", "reason": "fraudulent", "status": "lost",
}  # fmt: skip
_SUBSCRIPTION: Final = {
    "id": "sub_1", "object": "subscription", "billing": "charge_automatically", "billing_cycle_anchor": AT,
    "billing_mode": {"type": "classic"}, "cancel_at": AT, "cancel_at_period_end": False, "canceled_at": AT,
    "cancellation_details": {"comment": "too dear, Ada", "feedback": "too_expensive", "reason": "cancellation_requested"},
    "collection_method": "send_invoice", "created": AT, "currency": "eur", "current_period_end": AT, "current_period_start": AT,
    "customer": "cus_1", "customer_account": "acct_2", "days_until_due": 30, "default_payment_method": None,
    "default_source": "src_1", "description": "for Ada", "discount": {"id": "di_1", "object": "discount", "coupon": {"id": "c1",
    "object": "coupon", "name": "ten off"}}, "ended_at": AT,
    "items": {"object": "list", "has_more": True, "data": [{"id": "si_1", "object": "subscription_item", "current_period_end": AT,
    "current_period_start": AT, "metadata": {"a": "b"}, "plan": _PLAN, "quantity": 2}, {"id": "si_2", "object": "subscription_item",
    "price": _PRICE, "quantity": 3}]}, "latest_invoice": "in_1", "metadata": {"a": "b"},
    "pause_collection": {"behavior": "void", "resumes_at": AT}, "pending_update": {"billing_cycle_anchor": AT, "expires_at": AT,
    "subscription_items": [{"id": "si_3", "object": "subscription_item", "price": _PRICE, "quantity": 1}], "trial_end": AT},
    "schedule": "sub_sched_1", "start": AT, "status": "paused", "status_details": {"paused": {"type": "subscription",
    "subscription": {"type": "trial_end"}}}, "trial_end": AT, "trial_start": AT,
}  # fmt: skip
_FIRST_SUBSCRIPTION: Final = {
    "id": "sub_2", "object": "subscription", "cancel_at_period_end": True, "current_period_end": AT, "current_period_start": AT,
    "customer": "cus_1", "plan": _PLAN, "quantity": 1, "start": AT, "status": "active", "discounts": [{"id": "di_2",
    "object": "discount", "source": {"coupon": "c2", "type": "coupon"}}],
}  # fmt: skip
_LINE: Final = {
    "id": "il_1", "object": "line_item", "amount": 900, "currency": "eur", "description": "1 x Tea", "invoice_item": "ii_1",
    "metadata": {"a": "b"}, "period": {"end": AT, "start": AT}, "plan": _PLAN, "proration": True, "quantity": 1,
    "subscription": "sub_1", "subscription_item": "si_1", "type": "invoiceitem",
}  # fmt: skip
_INVOICE: Final = {
    "id": "in_1", "object": "invoice", "account_name": "Shop", "amount_due": 900, "amount_overpaid": 1, "amount_paid": 900,
    "amount_remaining": 0, "attempt_count": 1, "attempted": True, "billing": "charge_automatically", "billing_reason": "manual",
    "charge": "ch_1", "closed": True, "currency": "eur", "customer": "cus_1", "customer_account": "acct_2",
    "customer_email": "a@example.org", "customer_name": "Ada", "date": AT, "description": "thanks", "due_date": AT, "forgiven": False,
    "lines": {"object": "list", "data": [_LINE], "has_more": False}, "metadata": {"a": "b"}, "next_payment_attempt": AT,
    "number": "A-1", "paid": True, "paid_out_of_band": False, "payment_intent": "pi_1", "period_end": AT, "period_start": AT,
    "status_transitions": {"finalized_at": AT, "paid_at": AT, "voided_at": AT}, "subscription": "sub_1", "subtotal": 900,
    "tax": 10, "total": 900, "total_discount_amounts": [{"amount": 5, "discount": "di_1"}],
}  # fmt: skip
_UNCOLLECTIBLE: Final = {
    "id": "in_2", "object": "invoice", "attempted": True, "closed": True, "currency": "eur", "customer": "cus_1", "date": AT,
    "forgiven": True, "paid": False, "total": 9, "total_tax_amounts": [{"amount": 3, "inclusive": True}],
    "lines": {"object": "list", "data": [{"id": "sub_9", "object": "line_item", "type": "subscription", "price": _PRICE}]},
}  # fmt: skip
_BASIL_INVOICE: Final = {
    "id": "in_3", "object": "invoice", "created": AT, "currency": "eur", "customer": "cus_1", "status": "paid",
    "parent": {"subscription_details": {"metadata": {"a": "b"}, "subscription": "sub_1"}, "type": "subscription_details"},
    "payments": {"object": "list", "data": [{"id": "inpay_1", "object": "invoice_payment", "is_default": True,
    "payment": {"charge": "ch_1", "payment_intent": "pi_1", "type": "payment_intent"}}]}, "total_taxes": [{"amount": 3}],
    "lines": {"object": "list", "data": [
        {"id": "il_2", "object": "line_item", "amount": 1, "parent": {"invoice_item_details": {"invoice_item": "ii_1",
         "proration": True, "subscription": "sub_1"}}, "pricing": {"price_details": {"price": "price_1", "product": "prod_1"}}},
        {"id": "il_3", "object": "line_item", "amount": 1, "parent": {"subscription_item_details": {"proration": False,
         "subscription": "sub_1", "subscription_item": "si_1"}}}]},
}  # fmt: skip
_ATTEMPTED: Final = {
    "id": "in_4",
    "object": "invoice",
    "attempted": True,
    "closed": False,
    "customer": "cus_1",
    "date": AT,
    "paid": False,
}
_SESSION: Final = {
    "id": "cs_1", "object": "checkout.session", "client_reference_id": "Ada", "currency": None, "customer": "cus_1",
    "customer_account": "acct_2", "customer_email": "a@example.org", "display_items": [{"amount": 1000, "currency": "eur",
    "quantity": 1, "custom": {"name": "Tea"}}], "expires_at": AT, "invoice": "in_1", "metadata": {"a": "b"},
    "payment_intent": "pi_1", "payment_link": "plink_1", "payment_status": "paid", "setup_intent": "seti_1",
    "shipping_cost": {"amount_subtotal": 5}, "status": "complete", "subscription": None,
}  # fmt: skip
_PAID_SESSION: Final = {
    "id": "cs_2", "object": "checkout.session", "amount_subtotal": 1, "amount_total": 2, "created": AT, "currency": "eur",
    "customer_details": _BILLING, "mode": "subscription", "subscription": "sub_1", "total_details": {"amount_discount": 1,
    "amount_shipping": 1, "amount_tax": 1},
}  # fmt: skip
_CUSTOMER: Final = {
    "id": "cus_1", "object": "customer", "account_balance": -5, "address": {"line1": "Am Wall 1"}, "created": AT, "currency": "eur",
    "default_card": "card_1", "delinquent": False, "description": "d", "email": "a@example.org", "metadata": {"ssn": "1"},
    "name": "Ada", "phone": "+49", "subscriptions": {"object": "list", "data": [_FIRST_SUBSCRIPTION]},
}  # fmt: skip
_INVOICED_CUSTOMER: Final = {
    "id": "cus_2", "object": "customer", "balance": -5, "invoice_settings": {"default_payment_method": "pm_1", "footer": "f"},
    "default_source": {"id": "src_1", "object": "source", "owner": _BILLING},
}  # fmt: skip
_PRODUCT: Final = {
    "id": "prod_1", "object": "product", "active": True, "created": AT, "default_price": "price_1", "description": "d",
    "metadata": {}, "name": "Tea", "type": "service", "updated": AT,
}  # fmt: skip
_INVOICE_PAYMENT: Final = {
    "id": "inpay_1", "object": "invoice_payment", "amount_paid": 1, "amount_requested": 1, "created": AT, "currency": "eur",
    "invoice": "in_1", "is_default": True, "payment": {"charge": "ch_1", "payment_intent": "pi_1", "payment_record": "prec_1",
    "type": "payment_intent"}, "status": "paid", "status_transitions": {"paid_at": AT},
}  # fmt: skip
_SCHEDULE: Final = {
    "id": "sub_sched_1", "object": "subscription_schedule", "customer": "cus_1", "metadata": {}, "released_subscription": "sub_1",
}  # fmt: skip
_INVOICE_ITEM: Final = {
    "id": "ii_1", "object": "invoiceitem", "amount": 1, "customer": "cus_1", "description": "Tea", "invoice": "in_1",
    "parent": {"subscription_details": {"subscription": "sub_1"}}, "pricing": {"price_details": {"product": "prod_1"}},
}  # fmt: skip
_OLD_INVOICE_ITEM: Final = {"id": "ii_2", "object": "invoiceitem", "plan": _PLAN, "description": "Tea"}
_PRICED_ITEM: Final = {"id": "ii_3", "object": "invoiceitem", "price": _PRICE, "description": "Tea"}
_EXPANDED_CHARGE: Final = {
    "id": "ch_5", "object": "charge", "amount": 9, "application_fee": {"id": "fee_1", "object": "application_fee", "amount": 3},
    "created": AT, "currency": "eur", "payment_intent": {"id": "pi_5", "object": "payment_intent", "customer": "cus_5",
    "description": "Tea", "invoice": "in_5", "latest_charge": "ch_5"}, "payment_method": {"id": "pm_5", "object": "payment_method",
    "billing_details": _BILLING, "card_present": {"brand": "visa", "last4": "4242"}, "type": "card_present"}, "status": "succeeded",
}  # fmt: skip
_CHARGE_OF_2012: Final = {
    "id": "ch_6", "object": "charge", "amount": 9, "card": {"object": "card", "customer": "cus_6", "last4": "4242", "type": "Visa"},
    "created": AT, "currency": "eur", "dispute": {"object": "dispute", "amount": 9, "evidence": "it was Ada", "status": "lost"},
    "fee_details": [{"amount": 3, "description": "fee", "type": "application_fee"}], "paid": True,
}  # fmt: skip
_INTENT_OF_2018: Final = {
    "id": "pi_6", "object": "payment_intent", "amount": 9, "application_fee": 3, "created": AT, "currency": "eur",
    "last_payment_error": {"code": "x", "source": {"id": "src_6", "object": "source", "owner": _BILLING}}, "status": "processing",
}  # fmt: skip
_INTENT_BY_ITS_CHARGE: Final = {
    "id": "pi_7", "object": "payment_intent", "amount": 9, "created": AT, "currency": "eur", "status": "succeeded",
    "latest_charge": {"id": "ch_7", "object": "charge", "customer": {"id": "cus_7", "object": "customer", "customer_account": "acct_7",
    "email": "a@example.org"}, "invoice": "in_7", "on_behalf_of": "acct_1", "payment_method": "pm_7", "receipt_email": "a@example.org"},
}  # fmt: skip
_REFUND_BY_ITS_CHARGE: Final = {
    "id": "re_8", "object": "refund", "amount": 9, "charge": {"id": "ch_8", "object": "charge", "customer": "cus_8",
    "payment_intent": "pi_8", "receipt_email": "a@example.org"}, "created": AT, "currency": "eur", "status": "pending",
}  # fmt: skip
_REFUND_BY_ITS_INTENT: Final = {
    "id": "re_9", "object": "refund", "amount": 9, "created": AT, "currency": "eur", "status": "pending",
    "payment_intent": {"id": "pi_9", "object": "payment_intent", "latest_charge": "ch_9", "receipt_email": "a@example.org"},
}  # fmt: skip
_DISPUTE_BY_ITS_CHARGE: Final = {
    "id": "dp_8", "object": "dispute", "amount": 9, "balance_transaction": {"id": "txn_8", "object": "balance_transaction",
    "amount": -9, "currency": "eur", "fee": 15}, "charge": {"id": "ch_8", "object": "charge", "payment_intent": "pi_8"},
    "created": AT, "currency": "eur", "status": "needs_response",
}  # fmt: skip
_INVOICE_OF_2012: Final = {
    "id": "in_9", "object": "invoice", "customer": {"id": "cus_9", "object": "customer", "customer_account": "acct_9", "name": "Ada"},
    "date": AT, "lines": {"invoiceitems": [{"id": "ii_9", "object": "line_item", "amount": 1, "currency": "eur",
    "description": "Tea for Ada", "unique_id": "il_9"}], "prorations": [{"object": "line_item", "amount": 4}], "subscriptions": [{"id": "su_9", "object": "line_item",
    "amount": 2, "currency": "eur", "period": {"end": AT, "start": AT}, "plan": _PLAN, "type": "subscription"}]}, "total": 3,
}  # fmt: skip
_TRANSFER: Final = {"id": "tr_1", "object": "transfer", "amount": 9, "description": "Tea", "source_transaction": "ch_1"}
_THIN: Final = {
    "id": "evt_2", "object": "v2.core.event", "type": "v1.billing.meter.no_meter_found", "livemode": False,
    "created": "2026-10-28T12:00:00.000Z", "context": "org_1/acct_1", "data": {"developer_message_summary": "s"},
    "reason": {"type": "request", "request": {"id": "req_1", "idempotency_key": "k"}}, "snapshot_event": "evt_3",
    "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
}  # fmt: skip
_CONNECTED: Final = event(_REFUND, "refund.created", account="acct_9")

OLD_SHAPES: Final[list[dict[str, Any]]] = [
    _THIN,
    _CONNECTED,
    event(_CHARGE, "charge.refunded"),
    event(_OLD_CHARGE, "charge.succeeded"),
    event(_SOURCED_CHARGE, "charge.failed"),
    event({**_OLD_CHARGE, "id": "ch_4", "paid": False, "failure_code": "card_declined"}, "charge.failed"),
    event(_INTENT, "payment_intent.canceled"),
    event(_EXPANDED_INTENT, "payment_intent.succeeded"),
    event(_SOURCED_INTENT, "payment_intent.requires_action"),
    event(_METHOD_INTENT, "payment_intent.processing"),
    event(_FAILED_INTENT, "payment_intent.payment_failed"),
    event(_DISPUTE, "charge.dispute.closed"),
    event({**_DISPUTE, "evidence_details": None}, "charge.dispute.created"),
    event(_SUBSCRIPTION, "customer.subscription.created"),
    event({**_SUBSCRIPTION, "billing": "send_invoice", "collection_method": None, "cancel_at": None, "currency": None, "default_payment_method": "pm_1"}, "customer.subscription.paused"),
    event({**_SUBSCRIPTION, "status_details": {"paused": {"type": "subscription"}}, "start_date": AT + 5}, "customer.subscription.paused"),
    event(_FIRST_SUBSCRIPTION, "customer.subscription.created"),
    event(_INVOICE, "invoice.payment_succeeded"),
    event({**_INVOICE, "collection_method": "send_invoice", "billing": None, "status": "open"}, "invoice.updated"),
    event({**_INVOICE, "paid": False, "forgiven": True}, "invoice.updated"),
    event({**_INVOICE, "subscription": None}, "invoice.updated"),
    event(_UNCOLLECTIBLE, "invoice.updated"),
    event(_ATTEMPTED, "invoice.payment_failed"),
    event(_BASIL_INVOICE, "invoice.paid"),
    event(_SESSION, "checkout.session.completed"),
    event(_PAID_SESSION, "checkout.session.completed"),
    event(_CUSTOMER, "customer.created"),
    event(_INVOICED_CUSTOMER, "customer.updated"),
    event({"id": "cus_3", "object": "customer", "deleted": True}, "customer.deleted"),
    event(_PRODUCT, "product.updated"),
    event({"id": "prod_2", "object": "product", "deleted": True}, "product.deleted"),
    event(_PRICE, "price.created"),
    event(_PLAN, "plan.created"),
    event(_INVOICE_PAYMENT, "invoice_payment.paid"),
    event(_SCHEDULE, "subscription_schedule.released"),
    event(_INVOICE_ITEM, "invoiceitem.created"),
    event(_OLD_INVOICE_ITEM, "invoiceitem.created"),
    event(_EXPANDED_CHARGE, "charge.succeeded"),
    event(_CHARGE_OF_2012, "charge.succeeded"),
    event(_INTENT_OF_2018, "payment_intent.processing"),
    event(_INTENT_BY_ITS_CHARGE, "payment_intent.succeeded"),
    event(_REFUND_BY_ITS_CHARGE, "refund.created"),
    event(_REFUND_BY_ITS_INTENT, "refund.created"),
    event(_DISPUTE_BY_ITS_CHARGE, "charge.dispute.created"),
    event(_INVOICE_OF_2012, "invoice.created"),
    event(_TRANSFER, "transfer.created"),
    event(_PRICED_ITEM, "invoiceitem.created"),
    updated(_CUSTOMER, "customer.updated", {"email": "b@example.org", "metadata": {"ssn": "2"}, "address": {"line1": "Am Wall 2"}}),
    updated(_SUBSCRIPTION, "customer.subscription.updated", {"status": "active", "items": {"data": [{"id": "si_9", "object": "subscription_item", "plan": _PLAN, "quantity": 9}]}, "cancellation_details": {"comment": None, "feedback": None}}),
]  # fmt: skip
