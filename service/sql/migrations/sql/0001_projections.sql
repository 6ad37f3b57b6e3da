-- Rows, ledgers, folded object states, links and offsets of the projections.
--
-- Ids are COLLATE "C": they are bytes, never sorted for people, and everybody who locks several of them does so in one
-- order, whatever the database's locale. Rows are updated often: a fillfactor below 100 keeps updates on their page.

CREATE TABLE consumer_offsets (
    consumer_group text COLLATE "C" NOT NULL,
    topic          text COLLATE "C" NOT NULL,
    partition      integer NOT NULL,
    next_offset    bigint NOT NULL CHECK (next_offset >= 0),
    cluster_id     text NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE consumer_offsets IS
    'How far each consumer group has come, moved in the transaction that applies the records: the fence. Delete a row to read its partition from the start of the log again.';
COMMENT ON COLUMN consumer_offsets.next_offset IS 'The offset of the next record to read.';
COMMENT ON COLUMN consumer_offsets.cluster_id IS 'The Kafka cluster whose offsets these are; another one''s are refused.';


-- Payments ------------------------------------------------------------------------------------------------------------

CREATE TABLE payments (
    account                 text COLLATE "C" NOT NULL,
    livemode                boolean NOT NULL,
    payment_id              text COLLATE "C" NOT NULL,
    status                  text,
    amount_minor            bigint,
    amount_received_minor   bigint,
    amount_capturable_minor bigint,
    amount_refunded_minor   bigint,
    currency                text,
    customer_id             text,
    charge_id               text,
    invoice_id              text,
    checkout_session_id     text,
    payment_method_type     text,
    failure_code            text,
    decline_code            text,
    failure_message         text,
    disputed                boolean,
    dispute_id              text,
    dispute_status          text,
    canceled_at             timestamptz,
    cancellation_reason     text,
    description             text,
    metadata                jsonb,
    created_at              timestamptz,
    last_event_id           text,
    last_event_at           timestamptz,
    applied_at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, livemode, payment_id)
) WITH (fillfactor = 80);
CREATE INDEX payments_customer ON payments (account, livemode, customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX payments_invoice ON payments (account, livemode, invoice_id) WHERE invoice_id IS NOT NULL;
COMMENT ON TABLE payments IS
    'One row per payment intent, or per charge that has none: what all events about it, its charges, refunds, disputes and sessions come to.';
COMMENT ON COLUMN payments.payment_id IS 'The payment intent''s id (pi_…), else the charge''s (ch_…, py_…).';
COMMENT ON COLUMN payments.amount_minor IS 'In the currency''s minor unit, as every *_minor column.';
COMMENT ON COLUMN payments.last_event_at IS 'When Stripe created the last event that this row rests on.';
COMMENT ON COLUMN payments.applied_at IS 'When this row was last changed here.';

CREATE TABLE payment_events (
    account     text COLLATE "C" NOT NULL,
    livemode    boolean NOT NULL,
    object_type text NOT NULL,
    object_id   text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    event_type  text NOT NULL,
    created_at  timestamptz NOT NULL,
    api_version text,
    data        jsonb NOT NULL,
    previous    jsonb,
    no_op       boolean NOT NULL DEFAULT false,
    via         text COLLATE "C",
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, livemode, object_id, created_at, event_id)
);
CREATE INDEX payment_events_event ON payment_events (event_id);
CREATE INDEX payment_events_via ON payment_events (account, livemode, via) WHERE via IS NOT NULL;
COMMENT ON TABLE payment_events IS
    'The timeline of every object: what each event says about it, once. Inserting here is what makes an event count.';
COMMENT ON COLUMN payment_events.created_at IS 'When Stripe created the event.';
COMMENT ON COLUMN payment_events.previous IS 'The fields that the event changed, with their old values.';
COMMENT ON COLUMN payment_events.no_op IS 'Another event of the same second says the same.';
COMMENT ON COLUMN payment_events.via IS
    'The id through which the object''s payments are known, where the event does not state them.';

CREATE TABLE payment_objects (
    account         text COLLATE "C" NOT NULL,
    livemode        boolean NOT NULL,
    object_id       text COLLATE "C" NOT NULL,
    object_type     text,
    data            jsonb,
    last_event_id   text,
    last_event_type text,
    last_event_at   timestamptz,
    undecided       integer NOT NULL DEFAULT 0,
    PRIMARY KEY (account, livemode, object_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE payment_objects IS
    'What all events of one object come to; and the anchor that is locked by whoever touches the object, a row or a link of this id. Without data: an id that others mention.';
COMMENT ON COLUMN payment_objects.undecided IS 'Seconds in which the events do not say which of them came last.';

CREATE TABLE payment_refs (
    account    text COLLATE "C" NOT NULL,
    livemode   boolean NOT NULL,
    ref_id     text COLLATE "C" NOT NULL,
    payment_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (account, livemode, ref_id, payment_id)
);
CREATE INDEX payment_refs_payment ON payment_refs (account, livemode, payment_id);
COMMENT ON TABLE payment_refs IS 'Which payments an id (charge, refund, invoice, session, …) belongs to. Only ever grows.';


-- Refunds -------------------------------------------------------------------------------------------------------------

CREATE TABLE refunds (
    account                text COLLATE "C" NOT NULL,
    livemode               boolean NOT NULL,
    refund_id              text COLLATE "C" NOT NULL,
    charge_id              text,
    payment_intent_id      text,
    status                 text,
    amount_minor           bigint,
    currency               text,
    reason                 text,
    failure_reason         text,
    balance_transaction_id text,
    metadata               jsonb,
    created_at             timestamptz,
    last_event_id          text,
    last_event_at          timestamptz,
    applied_at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, livemode, refund_id)
) WITH (fillfactor = 80);
CREATE INDEX refunds_charge ON refunds (account, livemode, charge_id) WHERE charge_id IS NOT NULL;
CREATE INDEX refunds_payment_intent ON refunds (account, livemode, payment_intent_id)
    WHERE payment_intent_id IS NOT NULL;
COMMENT ON TABLE refunds IS 'One row per refund, those embedded in charges included.';

CREATE TABLE refund_events (LIKE payment_events INCLUDING ALL);
COMMENT ON TABLE refund_events IS 'The timeline of every refund: what each event says about it, once.';

CREATE TABLE refund_objects (LIKE payment_objects INCLUDING ALL) WITH (fillfactor = 70);
COMMENT ON TABLE refund_objects IS 'What all events of one refund come to; and the anchor that is locked by whoever touches it.';


-- Subscriptions and their invoices ------------------------------------------------------------------------------------

CREATE TABLE subscriptions (
    account              text COLLATE "C" NOT NULL,
    livemode             boolean NOT NULL,
    subscription_id      text COLLATE "C" NOT NULL,
    customer_id          text,
    status               text,
    current_period_start timestamptz,
    current_period_end   timestamptz,
    cancel_at            timestamptz,
    cancel_at_period_end boolean,
    canceled_at          timestamptz,
    ended_at             timestamptz,
    start_date           timestamptz,
    trial_start          timestamptz,
    trial_end            timestamptz,
    latest_invoice_id    text,
    collection_method    text,
    currency             text,
    metadata             jsonb,
    created_at           timestamptz,
    last_event_id        text,
    last_event_at        timestamptz,
    applied_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, livemode, subscription_id)
) WITH (fillfactor = 80);
CREATE INDEX subscriptions_customer ON subscriptions (account, livemode, customer_id) WHERE customer_id IS NOT NULL;
COMMENT ON TABLE subscriptions IS 'One row per subscription. A deleted one stays, with the status that Stripe gave it.';
COMMENT ON COLUMN subscriptions.current_period_end IS
    'The subscription''s own where the API version has it, else the latest of its items.';

CREATE TABLE subscription_items (
    account              text COLLATE "C" NOT NULL,
    livemode             boolean NOT NULL,
    subscription_item_id text COLLATE "C" NOT NULL,
    subscription_id      text COLLATE "C" NOT NULL,
    price_id             text,
    product_id           text,
    quantity             bigint,
    unit_amount_minor    bigint,
    currency             text,
    "interval"           text,
    interval_count       bigint,
    current_period_start timestamptz,
    current_period_end   timestamptz,
    last_event_id        text,
    last_event_at        timestamptz,
    applied_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, livemode, subscription_item_id)
) WITH (fillfactor = 80);
CREATE INDEX subscription_items_subscription ON subscription_items (account, livemode, subscription_id);
CREATE INDEX subscription_items_price ON subscription_items (account, livemode, price_id) WHERE price_id IS NOT NULL;
COMMENT ON TABLE subscription_items IS 'The prices that each subscription has now; an item that Stripe drops is dropped here.';

CREATE TABLE invoices (
    account              text COLLATE "C" NOT NULL,
    livemode             boolean NOT NULL,
    invoice_id           text COLLATE "C" NOT NULL,
    number               text,
    subscription_id      text,
    customer_id          text,
    payment_intent_id    text,
    charge_id            text,
    status               text,
    billing_reason       text,
    collection_method    text,
    amount_due_minor     bigint,
    amount_paid_minor    bigint,
    amount_remaining_minor bigint,
    subtotal_minor       bigint,
    total_minor          bigint,
    tax_minor            bigint,
    currency             text,
    attempt_count        bigint,
    next_payment_attempt timestamptz,
    period_start         timestamptz,
    period_end           timestamptz,
    due_date             timestamptz,
    paid_at              timestamptz,
    metadata             jsonb,
    created_at           timestamptz,
    last_event_id        text,
    last_event_at        timestamptz,
    applied_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, livemode, invoice_id)
) WITH (fillfactor = 80);
CREATE INDEX invoices_subscription ON invoices (account, livemode, subscription_id) WHERE subscription_id IS NOT NULL;
CREATE INDEX invoices_customer ON invoices (account, livemode, customer_id) WHERE customer_id IS NOT NULL;
COMMENT ON TABLE invoices IS 'One row per invoice; previews, which have no id, have none.';

CREATE TABLE subscription_events (LIKE payment_events INCLUDING ALL);
COMMENT ON TABLE subscription_events IS
    'The timeline of every subscription and invoice: what each event says about it, once.';

CREATE TABLE subscription_objects (LIKE payment_objects INCLUDING ALL) WITH (fillfactor = 70);
COMMENT ON TABLE subscription_objects IS
    'What all events of one subscription or invoice come to; and the anchor that is locked by whoever touches it.';


-- For people ----------------------------------------------------------------------------------------------------------

CREATE VIEW payment_balances AS
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
       last_event_at
FROM payments;
COMMENT ON VIEW payment_balances IS 'What each payment came to: received less refunded, in the currency''s minor unit.';

CREATE VIEW active_subscriptions AS
SELECT account,
       livemode,
       subscription_id,
       customer_id,
       status,
       current_period_start,
       current_period_end,
       trial_end,
       cancel_at,
       cancel_at_period_end,
       coalesce(cancel_at_period_end, false) OR cancel_at IS NOT NULL AS cancellation_scheduled,
       latest_invoice_id,
       currency,
       created_at,
       last_event_at
FROM subscriptions
WHERE status IN ('active', 'trialing', 'past_due');
COMMENT ON VIEW active_subscriptions IS 'Subscriptions whose customers are to be served: active, trialing or past due.';
