// One event: its way from Stripe to the tables, and every time it came.

import * as api from "./api.js";
import { below, data, h, to } from "./dom.js";
import { none, position } from "./events.js";
import { dayAndTime, duration, secondsBetween, shortTime, time } from "./format.js";
import { idLink, objectLink } from "./links.js";
import { empty, failed, loading } from "./states.js";
import { table } from "./table.js";
import { badge, MEANINGS, SOURCES, state, words } from "./words.js";

/** Stripe's first attempt is signed within seconds of the event; a later signature is a resend's. */
const RESEND_SECONDS = 60;
/** Stripe itself goes on for three days; whoever sends it later does so by hand. */
const BY_HAND_SECONDS = 3 * 86_400 + 3_600;

export async function show({ main, id, signal, session, again }) {
  const head = h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Event ", h("span", { class: "id" }, data(id))));
  main.replaceChildren(head, loading("the event"));
  let found;
  try {
    found = await api.event(id, signal);
  } catch (error) {
    if (!signal.aborted) below(head, error.status === 404 ? unknown(id) : failed(error, { session, again }));
    return;
  }
  const { arrivals, effects } = found;
  if (!arrivals.length && !effects.length) {
    below(head, unknown(id));
    return;
  }
  // Without the one that was accepted (the log is best effort) the last one says how it stands: an earlier 503 is over.
  const told = arrivals.find((arrival) => arrival.outcome === "accepted") ?? arrivals.at(-1) ?? null;
  below(head,
    summary(told, effects),
    h("section", { "aria-labelledby": "way" }, h("h2", { id: "way" }, "Its way"), h("ol", { class: "way" }, [...steps(told, effects)])),
    arrivals.length
      ? h("section", { "aria-labelledby": "arrivals" },
          h("h2", { id: "arrivals" }, `Every arrival (${arrivals.length})`),
          arrivalTable(arrivals))
      : h("p", { class: "dim" }, "Its arrival is older than what the event log keeps (event_log.retention_days), or came when the log was off."),
  );
}

function unknown(id) {
  return h("div", null,
    empty("No such event here", "It may have come before what event_log.retention_days keeps, or never. Stripe's dashboard says whether Stripe has sent it.", "The log is best effort: what the database could not take in time is counted in stripe_ingest_event_log_arrivals_total{result=\"dropped\"}, and is not here until a consumer has applied it."),
    h("p", null, "What Stripe has and we do not, ", h("code", null, "stripe-ingest reconcile --since 24h"), " finds. ", to(["events"], { q: id }, null, "Look for it as another kind of id")),
  );
}

function summary(arrival, effects) {
  const type = arrival?.event_type ?? effects[0]?.event_type;
  const object = arrival?.object_id ?? effects[0]?.object_id;
  const account = arrival?.account ?? effects[0]?.account;
  const livemode = arrival?.livemode ?? effects[0]?.livemode;
  const facts = [
    ["Type", type && data(type)],
    ["Object", object && objectLink(object, { account: account ?? undefined, livemode })],
    ["Customer", arrival?.customer_id && idLink(arrival.customer_id)],
    ["Mode", livemode === null || livemode === undefined ? null : livemode ? "live" : "test"],
    ["Account", account && data(account)],
    ["API version", arrival?.api_version && data(arrival.api_version)],
  ];
  return h("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

function* steps(arrival, effects) {
  if (arrival === null) {
    yield* applied(null, effects);
    return;
  }
  const { created_at: created, received_at: received, signed_at: signed } = arrival;
  if (created) yield step("Created at Stripe", created, null);
  yield step(
    "Received",
    received,
    [
      h("p", null, "at ", h("strong", null, data(arrival.endpoint)), ", ", SOURCES[arrival.ingest_source] ?? words(arrival.ingest_source),
        created ? `, ${duration(secondsBetween(created, received))} after it was created` : null, "."),
      arrival.trace_id ? h("p", { class: "dim" }, "trace ", h("code", null, data(arrival.trace_id))) : null,
    ],
  );
  if (arrival.secret) {
    const late = created && signed ? secondsBetween(created, signed) : null;
    yield step("Verified", null, [
      h("p", null, "with the secret ", h("code", null, data(arrival.secret)), signed ? [", signed ", time(signed)] : null, "."),
      late === null ? null : h("p", { class: "dim" }, `Signed ${duration(late)} after it was created: ${whichAttempt(late)}`),
    ]);
  } else if (arrival.ingest_source !== "webhook") {
    yield step("Trusted", null, h("p", null, "It was read from Stripe itself: there is no signature to verify."));
  }
  yield step("Outcome", null, judged(arrival));
  const kafka = position(arrival);
  if (kafka) yield step("Published to Kafka", null, h("p", null, kafka));
  yield* applied(arrival, effects);
}

function judged(arrival) {
  const first = arrival.duplicate_of;
  const where = first && position(first);
  return [
    h("p", null, badge(arrival.outcome), " ", MEANINGS[arrival.outcome] ?? words(arrival.outcome)),
    arrival.reason ? h("p", null, "Reason: ", data(words(arrival.reason)), ". ", to(["quarantine"], { id: arrival.event_id, hours: 168 }, null, "Look at it in the quarantine")) : null,
    first ? h("p", null, `Duplicate of arrival ${first.arrival_id}`, where ? [", which is at ", where] : null, ".") : null,
    arrival.dedupe === "unchecked" ? h("p", { class: "dim" }, "The dedupe store was away, so it was published unchecked. Consumers count it once all the same.") : null,
  ];
}

function* applied(arrival, effects) {
  for (const effect of effects) {
    const since = arrival ? `, ${duration(secondsBetween(arrival.received_at, effect.applied_at))} after it was received` : "";
    yield step(`Applied by ${effect.projection}`, effect.applied_at, [
      h("p", null, `to ${words(effect.object_type)} `, objectLink(effect.object_id, effect), since, ".",
        effect.no_op ? [" ", state("none", "changed nothing"), " Another event of the same second says the same."] : null),
      effect.rows.length
        ? h("ul", { class: "bare" }, effect.rows.map((row) => h("li", null, h("code", null, row.table), " ", objectLink(row.id, effect), row.status ? [" is ", h("strong", null, data(words(row.status)))] : null)))
        : h("p", { class: "dim" }, "No row shows it."),
    ]);
  }
  if (!effects.length && ["accepted", "duplicate"].includes(arrival?.outcome)) {
    yield h("li", { class: "pending" }, h("h3", null, "Not applied"), h("p", null, "No projection has it in its ledger: its consumer has not come so far yet (see Live), parked it (see ", to(["dead-letters"], { id: arrival.event_id }, null, "Dead letters"), "), or none reads its topic."));
  }
}

function whichAttempt(late) {
  if (late <= RESEND_SECONDS) return "Stripe's first attempt.";
  if (late <= BY_HAND_SECONDS) return "one of Stripe's resends. An earlier attempt did not reach us, or was not answered 200.";
  return "later than Stripe tries by itself. Somebody has had it sent again, or it is simulated.";
}

/** How long after its creation it was signed, and which attempt that must be. */
function attempt({ created_at: created, signed_at: signed }) {
  const late = created && signed ? secondsBetween(created, signed) : null;
  if (late === null) return null;
  return late > RESEND_SECONDS ? `a resend, signed ${duration(late)} after it was created` : `a first attempt, signed ${duration(late)} after it was created`;
}

function arrivalTable(arrivals) {
  return table(
    "Every arrival of this event",
    [
      { label: "Arrival" },
      { label: "Received", kind: "at" },
      { label: "Outcome" },
      { label: "From" },
      { label: "Secret" },
      { label: "Kafka", kind: "place" },
    ],
    arrivals.map((arrival) => ({
      key: String(arrival.arrival_id),
      cells: [
        `arrival ${arrival.arrival_id}`,
        time(arrival.received_at, shortTime),
        [badge(arrival.outcome), arrival.duplicate_of ? ` of arrival ${arrival.duplicate_of.arrival_id}` : null, arrival.reason ? [" ", data(words(arrival.reason))] : null],
        [data(arrival.endpoint), h("span", { class: "dim" }, ", ", attempt(arrival) ?? SOURCES[arrival.ingest_source] ?? words(arrival.ingest_source))],
        arrival.secret ? h("code", null, data(arrival.secret)) : none(),
        position(arrival) ?? none(),
      ],
    })),
  );
}

function step(title, at, content) {
  return h("li", null, h("h3", null, title, at ? h("span", { class: "when" }, time(at, dayAndTime)) : null), content);
}
