-- More of what Stripe says, under the names of the contract. Rows get them with their objects' next event.

-- All or none at once: to wait for the second table while holding the first would stop its readers for as long. A new
-- column without a default only changes the catalog.
SET LOCAL lock_timeout = '10s';
LOCK TABLE payments, refunds, subscriptions, subscription_items, invoices IN ACCESS EXCLUSIVE MODE;

ALTER TABLE payments
    ADD COLUMN customer_account_id text,
    ADD COLUMN application_fee_amount_minor bigint,
    ADD COLUMN fee_minor bigint,
    ADD COLUMN dispute_reason text,
    ADD COLUMN amount_disputed_minor bigint;
COMMENT ON COLUMN payments.fee_minor IS 'Stripe''s fee, in the currency of the account''s balance, where a payload has said it.';
COMMENT ON COLUMN payments.amount_disputed_minor IS
    'What disputes hold back or have taken; null where a charge is disputed and no event has said how much.';

ALTER TABLE refunds
    ADD COLUMN customer_id text,
    ADD COLUMN customer_account_id text,
    ADD COLUMN pending_reason text,
    ADD COLUMN failure_balance_transaction_id text;

ALTER TABLE subscriptions
    ADD COLUMN customer_account_id text,
    ADD COLUMN cancellation_scheduled boolean,
    ADD COLUMN cancellation_reason text,
    ADD COLUMN cancellation_feedback text,
    ADD COLUMN billing_cycle_anchor timestamptz,
    ADD COLUMN billing_mode text,
    ADD COLUMN days_until_due bigint,
    ADD COLUMN pause_behavior text,
    ADD COLUMN pause_resumes_at timestamptz,
    ADD COLUMN paused_reason text,
    ADD COLUMN items_have_more boolean,
    ADD COLUMN default_payment_method_id text,
    ADD COLUMN schedule_id text,
    ADD COLUMN discount_ids text[],
    ADD COLUMN coupon_ids text[],
    ADD COLUMN transfer_destination_id text;
COMMENT ON COLUMN subscriptions.cancellation_scheduled IS 'At the end of its period, or at cancel_at.';
COMMENT ON COLUMN subscriptions.pause_behavior IS 'Set while collection is paused; the status stays as it is.';
COMMENT ON COLUMN subscriptions.items_have_more IS 'Stripe has cut the list off: subscription_items has not all of them.';

ALTER TABLE subscription_items
    ADD COLUMN unit_amount_decimal text;

ALTER TABLE invoices
    ADD COLUMN customer_account_id text,
    ADD COLUMN amount_overpaid_minor bigint,
    ADD COLUMN discount_minor bigint,
    ADD COLUMN paid_out_of_band boolean,
    ADD COLUMN finalized_at timestamptz,
    ADD COLUMN voided_at timestamptz,
    ADD COLUMN lines_have_more boolean;

CREATE OR REPLACE VIEW payment_balances AS
SELECT account,
       livemode,
       payment_id,
       status,
       currency,
       amount_minor,
       amount_received_minor,
       amount_refunded_minor,
       coalesce(amount_received_minor, 0) - coalesce(amount_refunded_minor, 0) AS net_minor,
       disputed,
       dispute_status,
       customer_id,
       created_at,
       last_event_at,
       amount_disputed_minor,
       coalesce(amount_received_minor, 0) - coalesce(amount_refunded_minor, 0) - coalesce(amount_disputed_minor, 0)
           AS net_after_disputes_minor
FROM payments;
COMMENT ON VIEW payment_balances IS
    'What each payment came to: received less refunded, and that less what disputes took, in the currency''s minor unit.';
