// Events: what came, newest first.

import * as api from "./api.js";
import { data, h, name, say, to } from "./dom.js";
import { idLink } from "./links.js";
import { several, shortTime, time, timeOfDay } from "./format.js";
import { empty, failed, loading } from "./states.js";
import { table } from "./table.js";
import { badge, words } from "./words.js";

const PAGE = 50;
const COLUMNS = [
  { label: "Received", kind: "at" },
  { label: "Outcome" },
  { label: "Type", kind: "type" },
  { label: "Object", kind: "ref" },
  { label: "Event", kind: "ref" },
  { label: "Endpoint" },
  { label: "Kafka", kind: "place" },
];

/** The pages of the list that was shown last: going back finds them as they were. */
let kept = null;

export function show({ main, query, signal, session, returning }) {
  const q = query.get("q") ?? "";
  const list = h("div");
  const asOf = h("span", { class: "dim" });
  const more = h("div", { class: "more" });
  main.replaceChildren(
    h("div", { class: "heading" },
      h("h1", { tabindex: -1 }, q ? ["Events with ", h("span", { class: "id" }, data(q))] : "Events"),
      h("p", null, asOf, " ", h("button", { type: "button", on: { click: () => load() } }, "Refresh")),
    ),
    q ? h("p", { class: "dim" }, "Every arrival of an event with this id, or of this object or customer. ", to(["events"], null, null, "All events")) : "",
    list,
    more,
  );

  let arrivals = [];

  function paint(next, at) {
    asOf.replaceChildren("as of ", time(at, timeOfDay));
    list.replaceChildren(arrivals.length ? arrivalTable(arrivals) : nothing(q));
    more.replaceChildren(
      next === null ? h("p", { class: "dim" }, arrivals.length ? `That is all: ${several(arrivals.length, "arrival")}. What is older than event_log.retention_days is not kept.` : "")
      : h("button", { type: "button", on: { click: (event) => load(next, event.currentTarget) } }, "Load more"),
    );
    kept = { q, arrivals, next, at };
  }

  async function load(before = null, button = null) {
    if (before === null && !arrivals.length) list.replaceChildren(loading("events"));
    if (button) button.disabled = true;
    try {
      const page = await api.arrivals({ q, before, limit: PAGE }, signal);
      const had = before === null ? 0 : arrivals.length;
      arrivals = before === null ? page.arrivals : [...arrivals, ...page.arrivals];
      paint(page.next, new Date());
      say(had ? `${several(page.arrivals.length, "more arrival")}.` : several(arrivals.length, "arrival"));
      // The button that was pressed is gone: go on where the new rows begin.
      if (had) list.querySelectorAll("tbody tr")[had]?.querySelector("a")?.focus();
    } catch (error) {
      if (signal.aborted) return;
      const problem = failed(error, { session, again: () => load(before) });
      if (before === null) list.replaceChildren(problem);
      else more.replaceChildren(problem);
    }
  }

  if (returning && kept?.q === q) {
    arrivals = kept.arrivals;
    paint(kept.next, kept.at);
    return undefined;
  }
  return load();
}

function nothing(q) {
  return q
    ? empty(
        "Nothing came with this id",
        "The id must be whole: an event's (evt_…), an object's or a customer's.",
        "Arrivals are kept for event_log.retention_days (7 by default), and only those whose signature was right.",
        "The log is best effort: what the database could not take in time is not here.",
      )
    : empty("No event has come yet", "Send one: stripe-ingest send payment_intent.succeeded", "The log is off where event_log.retention_days is 0.");
}

/** Arrivals as rows. */
export function arrivalTable(arrivals) {
  return table(
    "Events",
    COLUMNS,
    arrivals.map((arrival) => ({
      key: String(arrival.arrival_id),
      cells: [
        time(arrival.received_at, shortTime),
        [badge(arrival.outcome), arrival.reason ? h("span", { class: "dim" }, " ", data(words(arrival.reason))) : null],
        arrival.event_type === null ? h("span", { class: "dim" }, "not known") : name(arrival.event_type),
        arrival.object_id === null ? none() : idLink(arrival.object_id),
        arrival.event_id === null ? none() : to(["event", arrival.event_id], null, { class: "id" }, data(arrival.event_id)),
        [data(arrival.endpoint), arrival.ingest_source === "webhook" ? null : h("span", { class: "dim" }, ` ${arrival.ingest_source}`)],
        position(arrival) ?? none(),
      ],
    })),
  );
}

/** Nothing, where something might stand. */
export const none = () => h("span", { class: "dim", "aria-label": "none" }, "–");

/** Where in Kafka: topic/partition/offset. */
export function position({ topic, partition, record_offset: offset }) {
  return topic === null || partition === null || offset === null ? null : h("code", null, name(`${topic}/${partition}/${offset}`));
}
