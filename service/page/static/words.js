// What the service's tags mean to a person, and the signs that go with them.

import { data, h, icon } from "./dom.js";

/** The five kinds of outcomes that an operator tells apart, in the order in which they are drawn. */
export const KINDS = ["accepted", "duplicate", "quarantined", "refused", "unavailable"];

const SIGNS = {
  accepted: "check",
  duplicate: "copy",
  quarantined: "warning",
  refused: "cross",
  unavailable: "pause",
  unknown: "dot",
};

const UNAVAILABLE = new Set([
  "broker_unavailable",
  "dedupe_unavailable",
  "in_flight",
  "overloaded",
  "shutting_down",
  "publish_refused",
  "record_too_large",
  "internal_error",
]);

/** The kind of an outcome: what is not safe was either answered 503, and comes again, or refused. */
export function kindOf(outcome) {
  if (KINDS.includes(outcome)) return outcome;
  return UNAVAILABLE.has(outcome) ? "unavailable" : "refused";
}

/** What each outcome says, in a sentence. */
export const MEANINGS = {
  accepted: "It is in Kafka: all in-sync replicas have it.",
  duplicate: "It was published before; nothing was published again.",
  quarantined: "Stripe signed it, but it could not be read as an event. It is kept, byte for byte, on the quarantine topic.",
  signature_missing: "It had no Stripe-Signature header.",
  signature_malformed: "Its Stripe-Signature header could not be read.",
  signature_mismatch: "None of the endpoint's secrets made its signature.",
  timestamp_outside_tolerance: "It was signed too long ago or in the future: a replay, or a wrong clock.",
  broker_unavailable: "Kafka did not take it in time; it was answered 503, and Stripe sends it again.",
  dedupe_unavailable: "The dedupe store did not answer; it was answered 503, and Stripe sends it again.",
  in_flight: "Another delivery of it was still being published; Stripe sends it again.",
  overloaded: "Too many deliveries were in flight; Stripe sends it again.",
  shutting_down: "The process was stopping; Stripe sends it again.",
  publish_refused: "Kafka refuses the record for good: a topic or its permissions are wrong.",
  record_too_large: "The record is over its topic's max.message.bytes.",
  internal_error: "A fault of ours; see the receiver's log.",
  // What became of a parked record.
  replayed: "It is on its way again.",
  would_replay: "It would be sent on its way again.",
  unfit: "Today's code cannot read it either; it stays where it is.",
  endpoint_unknown: "The configuration has no such endpoint any more.",
  endpoint_needed: "It was refused for its mode or account: name another endpoint with stripe-ingest quarantine replay.",
  sealed: "The key that opens it is not configured.",
  not_addressed: "It does not say which of our consumer groups it is for.",
  refused: "Kafka refuses it for good.",
  unavailable: "Kafka or the dedupe store is away; try again.",
  not_found: "Nothing is there any more, or it is further back than this page looks: use stripe-ingest.",
  not_done: "The time did not suffice; do it again.",
};

/** A tag as words: `signature_mismatch` is `signature mismatch`. */
export const words = (tag) => String(tag).replaceAll("_", " ");

/** An outcome of a delivery: a sign, its word, and a colour for those who see it. */
export function badge(outcome) {
  const kind = kindOf(outcome);
  return mark(kind, SIGNS[kind], outcome);
}

const REPLAYED = { replayed: "accepted", would_replay: "accepted", duplicate: "duplicate", unavailable: "unavailable" };

/** What became of a parked record. */
export function replayBadge(outcome) {
  const kind = REPLAYED[outcome] ?? "quarantined";
  return mark(kind, SIGNS[kind], outcome);
}

/** A state: `good`, `warn` or `bad`, with its word. */
export function state(level, text) {
  return mark(level, { good: "check", warn: "warning", bad: "cross", none: "dot" }[level], text);
}

function mark(kind, sign, text) {
  return h("span", { class: `badge ${kind}`, title: MEANINGS[text] }, icon(sign), data(words(text)));
}

/** Where an event came from. */
export const SOURCES = {
  webhook: "delivered by Stripe",
  reconcile: "found missing, and read from Stripe's list of events",
  backfill: "read from Stripe as a snapshot",
  replay: "replayed from the quarantine",
};

/** What is wrong with an endpoint at Stripe; `stripe-ingest endpoints status` has the sentence with the way out. */
export const ENDPOINT_PROBLEMS = {
  missing: "not registered at Stripe",
  disabled: "disabled at Stripe",
  doubled: "registered twice at Stripe",
  url_differs: "another URL at Stripe",
  events_missing: "events missing at Stripe",
  api_version_differs: "another API version at Stripe",
  mixed_versions: "mixed API versions",
  secret_unknown: "a secret is unknown here",
  creation_unfinished: "its creation is unfinished",
  redirects: "its URL redirects",
  foreign_answer: "something else answers at its URL",
  not_served: "its URL is not served",
  undelivered: "Stripe has events that it could not deliver",
  signatures_refused: "every signed delivery of the last ten minutes was refused: a wrong secret, or a wrong clock",
};

const OBJECT_PREFIXES =
  /^(cus|pi|ch|py|re|pyr|dp|du|sub|si|in|prod|price|plan|cs|seti|pm|card|ba|txn|ii|il|inpay|po|tr|acct|promo|sub_sched)_/;

/** What is wrong with asking how far the consumers are. */
export const CONSUMER_PROBLEMS = {
  no_database: "database.url is not configured",
  broker_unavailable: "Kafka does not answer",
  store_unavailable: "the database does not answer",
  timed_out: "Kafka or the database did not answer in time",
  configuration: "the database or Kafka is not what the configuration says; has stripe-ingest migrate been run?",
};

/** What keeps a consumer from a partition. */
export const PARTITION_PROBLEMS = {
  offset_out_of_range: "its stored offset is outside the log; records were deleted before they were read, or the topic was made anew",
};

/** Whether an id is an object's that has a timeline, or may have one. */
export const isObjectId = (id) => OBJECT_PREFIXES.test(id);

/** Whether an id is an event's: Stripe's, or a snapshot of ours. */
export const isEventId = (id) => /^evt_/.test(id) || id.startsWith("snapshot:");
