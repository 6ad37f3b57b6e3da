-- Which events are published, or being published: one row per claim, written by the receivers.
--
-- lease_until  until when the claim of `owner` keeps others off; it stays what it was when the row becomes done.
-- done_at      when a record of the event was confirmed; null while its claim is only a lease.
--
-- Collation C: ids are compared as bytes, so that the application's sort is the database's, and every statement locks
-- rows in one order.
--
-- A row is inserted by a claim and updated once, by its confirm. The confirm touches no indexed column and the page
-- has room left (fillfactor), so the update stays on the page (HOT) and no index grows by it. That is also why rows
-- are pruned by lease_until: it never changes between claim and confirm, and done_at follows it within seconds.
CREATE TABLE dedupe_claims (
    scope       text        COLLATE "C" NOT NULL,
    id          text        COLLATE "C" NOT NULL,
    owner       text        COLLATE "C" NOT NULL,
    lease_until timestamptz NOT NULL,
    done_at     timestamptz,
    PRIMARY KEY (scope, id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

CREATE INDEX dedupe_claims_lease_until ON dedupe_claims (lease_until);
