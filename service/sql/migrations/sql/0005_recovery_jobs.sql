-- Jobs that recover events (reconciliation, backfill): who does them now, and how far they are.
--
-- owner        a token of the process that has the lease; it may have run out.
-- progress     what the job wants to find again after a crash, as JSON; null before its first page.
CREATE TABLE recovery_jobs (
    name        text        COLLATE "C" NOT NULL PRIMARY KEY,
    owner       text        COLLATE "C" NOT NULL,
    lease_until timestamptz NOT NULL,
    progress    bytea,
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE recovery_jobs IS 'Jobs that recover events: who does them now, and how far they are.';

-- What ties are looked for in: hardly any object is ever undecided.
CREATE INDEX payment_objects_undecided ON payment_objects (last_event_at) WHERE undecided > 0;
CREATE INDEX refund_objects_undecided ON refund_objects (last_event_at) WHERE undecided > 0;
CREATE INDEX subscription_objects_undecided ON subscription_objects (last_event_at) WHERE undecided > 0;
CREATE INDEX catalog_objects_undecided ON catalog_objects (last_event_at) WHERE undecided > 0;
