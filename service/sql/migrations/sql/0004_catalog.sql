-- The catalog: products and prices. See 0001 for the collation of ids and the fillfactor.

CREATE TABLE products (
    account          text COLLATE "C" NOT NULL,
    livemode         boolean NOT NULL,
    product_id       text COLLATE "C" NOT NULL,
    name             text,
    description      text,
    active           boolean,
    default_price_id text,
    product_type     text,
    deleted          boolean NOT NULL DEFAULT false,
    metadata         jsonb,
    created_at       timestamptz,
    updated_at       timestamptz,
    last_event_id    text,
    last_event_type  text,
    last_event_at    timestamptz,
    applied_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, livemode, product_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE products IS 'One row per product. A deleted one stays: deleted, and no longer active.';
COMMENT ON COLUMN products.active IS 'Whether it can be bought: false once it is archived or deleted.';

-- Collation C on product_id too: it is joined with that of products, by the index.
CREATE TABLE prices (
    account             text COLLATE "C" NOT NULL,
    livemode            boolean NOT NULL,
    price_id            text COLLATE "C" NOT NULL,
    product_id          text COLLATE "C",
    active              boolean,
    currency            text,
    unit_amount_minor   bigint,
    unit_amount_decimal text,
    price_type          text,
    billing_scheme      text,
    "interval"          text,
    interval_count      bigint,
    trial_period_days   bigint,
    usage_type          text,
    tiers_mode          text,
    lookup_key          text,
    nickname            text,
    tax_behavior        text,
    deleted             boolean NOT NULL DEFAULT false,
    metadata            jsonb,
    created_at          timestamptz,
    last_event_id       text,
    last_event_type     text,
    last_event_at       timestamptz,
    applied_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, livemode, price_id)
) WITH (fillfactor = 80);
CREATE INDEX prices_product ON prices (account, livemode, product_id) WHERE product_id IS NOT NULL;
CREATE INDEX prices_lookup_key ON prices (account, livemode, lookup_key) WHERE lookup_key IS NOT NULL;
COMMENT ON TABLE prices IS
    'One row per price, plans included: a plan and its price share the id. A deleted one stays: deleted, and no longer active.';
COMMENT ON COLUMN prices.active IS 'Whether it can be used for new purchases: false once it is archived or deleted.';
COMMENT ON COLUMN prices.unit_amount_minor IS
    'In the currency''s minor unit; null where the price is tiered, or in fractions of the unit.';
COMMENT ON COLUMN prices.unit_amount_decimal IS 'As Stripe writes it: it may hold fractions of the minor unit.';

CREATE TABLE catalog_events (LIKE payment_events INCLUDING ALL);
COMMENT ON TABLE catalog_events IS 'The timeline of every product and price: what each event says about it, once.';
COMMENT ON COLUMN catalog_events.object_id IS
    'Stripe''s id; with product: or price: before it where a product and a plan might have chosen the same one.';

CREATE TABLE catalog_objects (LIKE payment_objects INCLUDING ALL) WITH (fillfactor = 70);
COMMENT ON TABLE catalog_objects IS
    'What all events of one product or price come to; and the anchor that is locked by whoever touches it.';


-- For people ----------------------------------------------------------------------------------------------------------

CREATE VIEW active_prices AS
SELECT account,
       livemode,
       product_id,
       products.name AS product_name,
       price_id,
       prices.nickname,
       prices.lookup_key,
       prices.unit_amount_minor,
       prices.unit_amount_decimal,
       prices.currency,
       prices.price_type,
       prices.billing_scheme,
       prices."interval",
       prices.interval_count,
       prices.usage_type,
       prices.tax_behavior,
       coalesce(products.default_price_id = price_id, false) AS is_default,
       prices.created_at,
       prices.last_event_at
FROM prices
JOIN products USING (account, livemode, product_id)
WHERE prices.active
  AND products.active;
COMMENT ON VIEW active_prices IS 'What can be bought: the active prices of active products.';
