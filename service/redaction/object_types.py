"""The names of Stripe's objects: what a redaction path may begin with."""

from typing import Final

_TODAY: Final = """
    account account_link account_session apple_pay_domain application application_fee apps.install apps.secret
    balance balance_settings balance_transaction bank_account billing.alert billing.alert_triggered
    billing.credit_balance_summary billing.credit_balance_transaction billing.credit_grant
    billing.feedback_option billing.meter billing.meter_event billing.meter_event_adjustment
    billing.meter_event_summary billing_portal.configuration billing_portal.session capability card cash_balance
    charge checkout.session climate.order climate.product climate.supplier confirmation_token
    connect_collection_transfer country_spec coupon credit_note credit_note_line_item customer
    customer_balance_transaction customer_cash_balance_transaction customer_session discount dispute
    entitlements.active_entitlement entitlements.active_entitlement_summary entitlements.feature ephemeral_key
    event exchange_rate fee_refund file file_link file_upload financial_connections.account
    financial_connections.account_owner financial_connections.account_ownership
    financial_connections.authorization financial_connections.session financial_connections.transaction
    forwarding.request funding_instructions identity.verification_report identity.verification_session invoice
    invoice_payment invoice_rendering_template invoiceitem issuing.authorization issuing.card issuing.cardholder
    issuing.dispute issuing.personalization_design issuing.physical_bundle issuing.token issuing.transaction
    item line_item list login_link mandate payment_attempt_record payment_intent
    payment_intent_amount_details_line_item payment_link payment_method payment_method_configuration
    payment_method_domain payment_record payout person plan price product product_catalog.trial_offer
    product_feature promotion_code quote radar.early_fraud_warning radar.payment_evaluation radar.value_list
    radar.value_list_item refund reporting.report_run reporting.report_type reserve.hold reserve.plan
    reserve.release reserve_transaction review scheduled_query_run search_result setup_attempt setup_intent
    shipping_rate source source_mandate_notification source_transaction subscription subscription_item
    subscription_schedule tax.association tax.calculation tax.calculation_line_item tax.location
    tax.registration tax.settings tax.transaction tax.transaction_line_item tax_code tax_deducted_at_source
    tax_id tax_rate terminal.configuration terminal.connection_token terminal.location terminal.onboarding_link
    terminal.reader test_helpers.test_clock three_d_secure.authentication token topup transfer transfer_reversal
    treasury.credit_reversal treasury.debit_reversal treasury.financial_account
    treasury.financial_account_features treasury.inbound_transfer treasury.outbound_payment
    treasury.outbound_transfer treasury.received_credit treasury.received_debit treasury.transaction
    treasury.transaction_entry v2.billing.meter_event v2.billing.meter_event_adjustment
    v2.billing.meter_event_session v2.commerce.product_catalog_import v2.core.account v2.core.account_link
    v2.core.account_person v2.core.account_person_token v2.core.account_token v2.core.event
    v2.core.event_destination v2.core.vault.gb_bank_account v2.core.vault.us_bank_account
    v2.money_management.adjustment v2.money_management.financial_account v2.money_management.financial_address
    v2.money_management.financial_address_credit_simulation v2.money_management.inbound_transfer
    v2.money_management.outbound_payment v2.money_management.outbound_setup_intent
    v2.money_management.payout_intent v2.money_management.payout_method
    v2.money_management.payout_methods_bank_account_spec v2.money_management.received_credit
    v2.money_management.recipient_verification v2.money_management.transaction
    v2.money_management.transaction_entry v2.search_result webhook_endpoint
"""

_RETIRED: Final = """
    alipay_account bitcoin_receiver bitcoin_transaction issuer_fraud_record order order_item order_return
    recipient recipient_transfer sku subscription_schedule_revision three_d_secure usage_record
    usage_record_summary
"""
"""What older API versions still render."""

OBJECT_TYPES: Final = frozenset(f"{_TODAY} {_RETIRED}".split())

OBJECT_TYPE_PARTS_MAX: Final = max(name.count(".") + 1 for name in OBJECT_TYPES)
