// An object: what its row says now, and everything that every event said about it.

import * as api from "./api.js";
import { below, data, h, name as parts, to } from "./dom.js";
import { arrivalTable } from "./events.js";
import { several, time } from "./format.js";
import { idLink, objectLink } from "./links.js";
import { formatMinor } from "./money.js";
import { empty, failed, loading } from "./states.js";
import { state, words } from "./words.js";

/** A list of changes that is longer is folded: an object's first event sets everything. */
const CHANGES_SHOWN = 8;
/** Columns that stand in the heading already. */
const IN_HEADING = new Set(["account", "livemode"]);
/** In the currency of the account's balance, which is not the object's own. */
const IN_BALANCE_CURRENCY = new Set(["fee_minor", "balance_change_minor", "balance_fee_minor"]);
const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/;
const ID = /^[a-z]{2,8}(_[a-z]+)?_[A-Za-z0-9]{8,}$/;

export async function show({ main, id, query, signal, session, again }) {
  const head = h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Object ", h("span", { class: "id" }, data(id))));
  main.replaceChildren(head, loading("the object"));
  const whose = { account: query.get("account"), livemode: query.get("livemode") };
  let found;
  try {
    found = await api.object(id, whose, signal);
  } catch (error) {
    if (!signal.aborted) below(head, error.status === 404 ? unknown(id) : failed(error, { session, again }));
    return;
  }
  if (found.choices) {
    below(head, choices(id, found.choices));
    return;
  }
  const { kind, account, livemode, row, rows, entries, arrivals = [], truncated } = found;
  const of = { account, livemode };
  head.querySelector("h1").firstChild.data = `${kindName(kind)} `;
  below(head,
    h("p", { class: "dim" }, livemode ? "live mode" : "test mode", account ? [" · ", data(account)] : null, " · ", to(["events"], { q: id }, null, "its arrivals")),
    row === null ? null : h("section", { "aria-labelledby": "now" }, h("h2", { id: "now" }, "Now"), values(row, id)),
    related(rows, row === null ? null : id, of),
    entries.length || row !== null ? h("section", { "aria-labelledby": "timeline" },
      h("h2", { id: "timeline" }, `Timeline (${several(entries.length, "entry", "entries")})`),
      truncated ? h("p", { class: "note" }, "There is more than is shown here, the newest; the tables have all of it.") : null,
      entries.length ? h("ol", { class: "timeline" }, [...timeline(entries, id, row?.currency, of, truncated)]) : h("p", { class: "dim" }, "No event has said anything about it."),
    ) : null,
    arrivals.length && !entries.length ? h("section", { "aria-labelledby": "arrivals" }, h("h2", { id: "arrivals" }, "Newest arrivals"), arrivalTable(arrivals)) : null,
  );
}

function kindName(kind) {
  const name = words(kind ?? "object");
  return name.charAt(0).toUpperCase() + name.slice(1);
}

function unknown(id) {
  return h("div", null,
    empty("No such object here", "No table and no ledger knows this id."),
    h("p", null, to(["events"], { q: id }, null, "Look for events that mention it")),
  );
}

function choices(id, all) {
  return h("div", { class: "state" },
    h("p", { class: "state-title" }, "Several accounts have an object with this id"),
    h("ul", null, all.map(({ account, livemode }) => h("li", null, to(["object", id], { account, livemode }, null, data(account || "no account"), livemode ? ", live mode" : ", test mode")))),
  );
}

/** What is asked for first stands first: what became of it, how much, then whom it belongs to, and when. */
function rank(name) {
  if (name === "status") return 0;
  if (name === "amount_minor") return 1;
  if (name.endsWith("_minor")) return 2;
  if (name === "currency") return 3;
  if (name.endsWith("_id")) return 5;
  return /_(at|start|end|date|until|anchor)$/.test(name) ? 6 : 4;
}

function values(row, id) {
  const shown = Object.entries(row)
    .filter(([name, value]) => !IN_HEADING.has(name) && value !== id)
    .sort(([one], [other]) => rank(one) - rank(other) || one.localeCompare(other));
  const set = shown.filter(([, value]) => !isEmpty(value));
  const unset = shown.filter(([, value]) => isEmpty(value)).map(([name]) => name);
  return [
    h("dl", { class: "values" }, set.map(([name, value]) => h("div", { class: name.endsWith("_minor") ? "amount" : null }, h("dt", null, parts(name)), h("dd", null, shownValue(name, value, row.currency))))),
    unset.length ? h("details", { class: "unset" }, h("summary", null, several(unset.length, "empty field")), h("p", null, unset.map((name, place) => [place ? ", " : "", h("code", null, name)]))) : null,
  ];
}

const isEmpty = (value) => value === null || (typeof value === "object" && Object.keys(value).length === 0);

/** A value for people: amounts in their currency with the minor units beside, moments in this zone, ids as links. */
function shownValue(name, value, currency) {
  if (value === null || value === undefined) return h("span", { class: "dim" }, "nothing");
  if (name.endsWith("_minor") && typeof value === "number") return amount(value, IN_BALANCE_CURRENCY.has(name) ? null : currency);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "object") return h("code", { class: "json" }, data(JSON.stringify(value)));
  if (typeof value === "string" && MOMENT.test(value)) return time(value);
  if (typeof value === "string" && name.endsWith("_id") && ID.test(value)) return idLink(value);
  if (typeof value === "string" && name === "status") return h("strong", null, data(value));
  return data(String(value));
}

function amount(minor, currency) {
  const major = formatMinor(minor, currency);
  if (major === null) return [data(String(minor)), h("span", { class: "dim" }, " minor units")];
  return [data(major), h("span", { class: "dim minor", title: "in the currency's minor unit" }, ` (${minor})`)];
}

/** The rows that it has to do with; one's own, which stands above, is not among them. */
function related(rows, own, of) {
  const others = rows.filter((row) => row.id !== own);
  if (!others.length) return null;
  return h("section", { "aria-labelledby": "related" },
    h("h2", { id: "related" }, "Rows it has to do with"),
    h("ul", { class: "bare related" }, others.map((row) => h("li", null, h("code", null, row.table), " ", objectLink(row.id, of), row.status ? [" is ", h("strong", null, data(words(row.status)))] : null))),
  );
}

function* timeline(entries, id, rowCurrency, of, truncated) {
  const begun = new Set();
  // An entry that sets an object's currency tells it for those that follow; all objects of a row share its currency.
  const currencies = new Map();
  for (const entry of entries) {
    const told = entry.changes.find((change) => change.field === "currency")?.to;
    if (told) currencies.set(entry.object_id, told);
    // What stood before the first that is shown is not known where older ones are left out.
    const unknown = truncated && !begun.has(entry.object_id);
    begun.add(entry.object_id);
    const currency = currencies.get(entry.object_id) ?? rowCurrency;
    yield h("li", { class: entry.no_op ? "no-op" : null },
      h("h3", null, parts(entry.event_type), h("span", { class: "when" }, time(entry.created_at))),
      h("p", { class: "dim" },
        entry.object_id === id ? null : [`${words(entry.object_type)} `, objectLink(entry.object_id, of), " · "],
        to(["event", entry.event_id], null, { class: "id" }, data(entry.event_id)), " · applied ", time(entry.applied_at)),
      entry.no_op ? h("p", null, state("none", "changed nothing"), " Another event of the same second says the same.") : changes(entry.changes, currency, unknown),
    );
  }
}

function changes(all, currency, unknown) {
  if (!all.length) return h("p", { class: "dim" }, unknown ? "What it changed is not known: what came before it is not shown." : "It says nothing that was not known.");
  const list = h("dl", { class: "changes" }, all.map(({ field, from, to: now }) =>
    h("div", null, h("dt", null, parts(field)), h("dd", null,
      from === null || from === undefined ? null : [h("span", { class: "from" }, shownValue(field, from, currency)), h("span", { class: "arrow" }, h("span", { class: "hidden" }, " became "), h("span", { "aria-hidden": "true" }, " → "))],
      h("span", { class: "to" }, shownValue(field, now, currency)))),
  ));
  if (all.length <= CHANGES_SHOWN) return list;
  return h("details", null, h("summary", null, `${several(all.length, "field")} set or changed`), list);
}
