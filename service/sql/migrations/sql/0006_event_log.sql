-- What came in: a row for each arrival, that is for each time that a verified body of Stripe's came, and what became of
-- it. Written by receivers and by what recovers events, in the background and as well as may be: what counts is in the
-- topics and the ledgers, this is for people who ask whether, when and how often an event came.
--
-- Rows are inserted once, never updated (so pages are filled), and deleted from the oldest on: a table as long as
-- event_log.retention_days, whose new rows take the room of the deleted ones as soon as they are vacuumed away. So
-- vacuum comes early, by a fiftieth of the table, as well as after inserts, which lets index-only scans skip the table.
--
-- Ids are COLLATE "C": they are bytes, never sorted for people, and cheaper to put into an index. There is no constraint
-- on outcome or reason: a log that refused a row of a newer version would lose what it is for.
CREATE TABLE event_log (
    arrival_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at   timestamptz NOT NULL,
    ingest_source text NOT NULL,
    endpoint      text NOT NULL,
    outcome       text NOT NULL,
    event_id      text COLLATE "C",
    event_type    text,
    account       text COLLATE "C",
    livemode      boolean,
    object_type   text,
    object_id     text COLLATE "C",
    customer_id   text COLLATE "C",
    created_at    timestamptz,
    api_version   text,
    signed_at     timestamptz,
    secret        text,
    topic         text COLLATE "C",
    partition     integer,
    record_offset bigint,
    dedupe        text,
    reason        text,
    trace_id      text COLLATE "C"
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

CREATE INDEX event_log_received_at ON event_log (received_at);
CREATE INDEX event_log_event ON event_log (event_id);
CREATE INDEX event_log_object ON event_log (object_id, received_at);
CREATE INDEX event_log_customer ON event_log (customer_id, received_at) WHERE customer_id IS NOT NULL;

COMMENT ON TABLE event_log IS
    'Every time that a verified body of Stripe''s came, and what became of it. Best effort: a row may be missing, and none means nothing by that.';
COMMENT ON COLUMN event_log.arrival_id IS 'In the order of writing, which is nearly that of coming. Numbers may be left out.';
COMMENT ON COLUMN event_log.received_at IS 'When it came, by the clock of the process that took it.';
COMMENT ON COLUMN event_log.ingest_source IS 'How it came: webhook, reconcile, backfill or replay.';
COMMENT ON COLUMN event_log.endpoint IS 'The endpoint of the configuration that it came to, or that it was recovered for.';
COMMENT ON COLUMN event_log.outcome IS
    'accepted, duplicate, quarantined; else why it was not taken (the tag that logs and metrics have): it comes again.';
COMMENT ON COLUMN event_log.event_id IS 'Null where the body has no well-formed one.';
COMMENT ON COLUMN event_log.account IS 'As on the topics: the event''s, else the endpoint''s, else default.';
COMMENT ON COLUMN event_log.object_type IS 'As on the topics; null where the body could not be normalized.';
COMMENT ON COLUMN event_log.customer_id IS 'The customer that the event''s object names; a customer''s own id.';
COMMENT ON COLUMN event_log.created_at IS 'When Stripe created the event.';
COMMENT ON COLUMN event_log.api_version IS 'What the event was rendered in.';
COMMENT ON COLUMN event_log.signed_at IS 'When Stripe signed this delivery; null where it needed no signature.';
COMMENT ON COLUMN event_log.secret IS 'The fingerprint of the signing secret that verified it.';
COMMENT ON COLUMN event_log.topic IS 'Where its record is, once Kafka had acknowledged it; null for one that was there before.';
COMMENT ON COLUMN event_log.record_offset IS 'The record''s offset in its partition.';
COMMENT ON COLUMN event_log.dedupe IS
    'The mark of its record: checked, or unchecked where it was published without the dedupe store''s word.';
COMMENT ON COLUMN event_log.reason IS 'Why it was quarantined: a tag, never a value.';
COMMENT ON COLUMN event_log.trace_id IS 'The trace that log lines and the record''s traceparent have too.';
