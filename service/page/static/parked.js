// Dead letters and the quarantine: what is parked, and sending it on its way again.

import * as api from "./api.js";
import { address, data, h, name, say, to } from "./dom.js";
import { ago, several, shortTime, time } from "./format.js";
import { empty, failed, loading } from "./states.js";
import { table } from "./table.js";
import { replayBadge, MEANINGS, words } from "./words.js";

const LIMIT = 100;
const SPANS = [
  [1, "last hour"],
  [6, "last 6 hours"],
  [24, "last 24 hours"],
  [72, "last 3 days"],
  [168, "last 7 days"],
  [720, "last 30 days"],
];

const TOPICS = {
  "dead-letter": {
    view: ["dead-letters"],
    title: "Dead letters",
    one: "dead letter",
    about: "Records that a consumer could never apply. They stay on the dead-letter topic; a replay puts a copy back.",
    none: "No dead letter",
    noneHelp: "Every record of this time was applied, or is still waiting for its consumer (see Live).",
    will: "Each goes back to its topic, addressed to the one consumer group that could not apply it. What that group has applied since counts only once. Do this after the cause is mended: what still cannot be applied comes back here.",
  },
  quarantine: {
    view: ["quarantine"],
    title: "Quarantine",
    one: "quarantined body",
    about: "What Stripe signed and nobody could read as an event, kept byte for byte. A replay takes it through today's version.",
    none: "Nothing in the quarantine",
    noneHelp: "Everything that Stripe signed in this time could be read.",
    will: "Each body goes through the whole path of this receiver's version: read, deduplicated, published. What was published since is a duplicate and is not published again. What still cannot be read stays where it is.",
  },
};

export const show = (topic) => (context) => showTopic(topic, context);

function showTopic(topic, { main, query, signal, session }) {
  const about = TOPICS[topic];
  const hours = Number(query.get("hours") ?? 24) || 24;
  const id = query.get("id") ?? "";
  const list = h("div");
  const bar = h("div", { class: "selection", role: "group", "aria-label": "What to do with the selected records" });
  const results = h("div", { role: "status" });
  const spans = SPANS.some(([each]) => each === hours) ? SPANS : [[hours, `last ${hours} hours`], ...SPANS];
  const idField = h("input", { id: "id", name: "id", type: "search", autocomplete: "off", spellcheck: "false", value: id, placeholder: "evt_…" });
  const hoursField = h("select", { id: "hours", name: "hours" }, spans.map(([value, label]) => h("option", { value, selected: value === hours }, label)));
  // `value` of an option is its attribute too; which one is chosen is the select's.
  hoursField.value = String(hours);
  main.replaceChildren(
    h("div", { class: "heading" }, h("h1", { tabindex: -1 }, about.title)),
    h("p", { class: "dim" }, about.about),
    h(
      "form",
      {
        class: "filter",
        on: {
          submit: (event) => {
            event.preventDefault();
            const wanted = address(about.view, { id: idField.value.trim(), hours: hoursField.value });
            if (wanted === location.hash) load();
            else location.hash = wanted;
          },
        },
      },
      h("div", null, h("label", { for: "id" }, "Event or key"), idField),
      h("div", null, h("label", { for: "hours" }, "Parked in the"), hoursField),
      h("button", { type: "submit" }, "Show"),
    ),
    results,
    list,
    bar,
  );

  const may = session.known?.replay === true;
  let records = [];
  const chosen = new Set();
  const outcomes = new Map();

  async function load() {
    list.replaceChildren(loading(about.title.toLowerCase()));
    try {
      const found = await api.parked(topic, { since_hours: hours, limit: LIMIT, id }, signal);
      records = found.records;
      chosen.clear();
      outcomes.clear();
      paint(found.truncated);
      say(several(records.length, "record"));
    } catch (error) {
      if (signal.aborted) return;
      bar.replaceChildren();
      list.replaceChildren(failed(error, { session, again: load }));
    }
  }

  function paint(truncated) {
    if (!records.length && truncated) {
      // Not everything was looked through: that there is nothing is not known.
      list.replaceChildren(empty("Nothing was found in what could be looked through", `There is more than this page reads at once. Choose a shorter time, or use stripe-ingest ${topic} list.`));
      bar.replaceChildren();
      return;
    }
    if (!records.length) {
      list.replaceChildren(empty(about.none, about.noneHelp, id ? "Only one id is looked for: it may be parked under another one, or earlier." : "Look further back above."));
      bar.replaceChildren();
      return;
    }
    list.replaceChildren(
      truncated ? h("p", { class: "note" }, `There may be more: ${records.length === LIMIT ? `at most ${LIMIT} are shown` : "not everything could be looked through"}. Choose a shorter time or one id, or use stripe-ingest ${topic} list.`) : "",
      recordTable(),
    );
    paintBar();
  }

  const all = h("input", { type: "checkbox", id: "all", on: { change: () => chooseAll(all.checked) } });

  function chooseAll(wanted) {
    chosen.clear();
    if (wanted) for (const record of records) chosen.add(record.place);
    for (const box of list.querySelectorAll("tbody input[type=checkbox]")) box.checked = wanted;
    paintBar();
  }

  function recordTable() {
    const columns = [
      { label: "Select", hidden: true, kind: "pick" },
      { label: "Parked", kind: "at" },
      { label: "Event", kind: "ref" },
      { label: "Type", kind: "type" },
      { label: topic === "dead-letter" ? "Consumer group" : "Endpoint" },
      { label: "Reason" },
      { label: "Place", kind: "place" },
      { label: "Replay" },
    ];
    return table(
      about.title,
      may ? columns : columns.slice(1, -1),
      records.map((record) => {
        const cells = [
          checkbox(record),
          [time(record.parked_at, shortTime), " ", h("span", { class: "dim" }, ago((Date.now() - new Date(record.parked_at).getTime()) / 1000))],
          record.id ? (/^evt_/.test(record.id) ? to(["event", record.id], null, { class: "id" }, data(record.id)) : h("span", { class: "id" }, data(record.id))) : "–",
          record.event_type === null ? h("span", { class: "dim" }, "not known") : name(record.event_type),
          name((topic === "dead-letter" ? record.consumer_group : record.endpoint) ?? "–"),
          [h("strong", null, data(words(record.reason))), record.detail ? h("span", { class: "dim detail" }, " ", data(record.detail)) : null],
          h("code", null, name(record.place)),
          h("div", { "data-place": record.place }, outcome(record.place)),
        ];
        return { key: record.place, cells: may ? cells : cells.slice(1, -1) };
      }),
    );
  }

  function checkbox(record) {
    return h("input", {
      type: "checkbox",
      "aria-label": `Select ${record.id || record.place}`,
      on: {
        change: (event) => {
          if (event.currentTarget.checked) chosen.add(record.place);
          else chosen.delete(record.place);
          paintBar();
        },
      },
    });
  }

  const counted = h("span", { class: "chosen" });
  const tryIt = h("button", { type: "button", on: { click: () => run(true) } }, "Dry run");
  const doIt = h("button", { type: "button", class: "main", on: { click: confirm } }, "Replay …");

  function paintBar() {
    if (!may) {
      bar.className = "selection";
      bar.replaceChildren(h("div", { class: "note" }, h("p", null, "To replay, sign in."), session.signInHelp()));
      return;
    }
    bar.className = "selection ready";
    all.checked = chosen.size === records.length;
    all.indeterminate = chosen.size > 0 && !all.checked;
    counted.textContent = chosen.size ? `${chosen.size} of ${records.length} selected` : "none selected";
    tryIt.disabled = doIt.disabled = !chosen.size;
    if (!bar.contains(tryIt)) bar.replaceChildren(h("label", { for: "all" }, all, " Select all"), counted, tryIt, doIt);
  }

  function confirm() {
    const places = records.filter((record) => chosen.has(record.place));
    const groups = new Map();
    for (const record of places) {
      const whose = (topic === "dead-letter" ? record.consumer_group : record.endpoint) ?? "nobody known";
      groups.set(whose, (groups.get(whose) ?? 0) + 1);
    }
    const dialog = h(
      "dialog",
      { "aria-labelledby": "replay-title", "aria-describedby": "replay-what" },
      h("h2", { id: "replay-title" }, `Replay ${several(places.length, about.one, about.one.replace(/body$/, "bodies").replace(/letter$/, "letters"))}?`),
      h("p", { id: "replay-what" }, about.will),
      h("ul", null, [...groups].map(([whose, number]) => h("li", null, `${number} ${topic === "dead-letter" ? "for" : "of"} `, h("strong", null, data(whose))))),
      h("div", { class: "actions" },
        h("button", { type: "button", autofocus: true, on: { click: () => dialog.close() } }, "Cancel"),
        h("button", { type: "button", class: "main", on: { click: () => { dialog.close(); run(false); } } }, `Replay ${places.length}`)),
    );
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  async function run(dryRun) {
    const places = records.map((record) => record.place).filter((place) => chosen.has(place));
    tryIt.disabled = doIt.disabled = true;
    results.replaceChildren(h("p", { class: "note" }, dryRun ? "Looking what would happen …" : "Replaying …"));
    try {
      const answer = await api.replay(topic, places, dryRun);
      for (const result of answer.results) outcomes.set(result.place, result);
      for (const box of list.querySelectorAll("[data-place]")) box.replaceChildren(...[outcome(box.dataset.place)].flat().filter(Boolean));
      results.replaceChildren(summary(answer.results, dryRun));
    } catch (error) {
      if (error.needsSession) await session.look();
      results.replaceChildren(
        h("p", { class: "note failed" }, `That did not work: ${error.message}`,
          // Refused before it began, or begun: it goes on where nobody waits for it any more.
          dryRun || (error.status >= 400 && error.status < 500) ? "" : " Some of them may have been replayed: doing it again does no harm."));
    }
    paintBar();
  }

  function outcome(place) {
    const result = outcomes.get(place);
    if (!result) return "";
    return h("span", null, replayBadge(result.outcome), h("span", { class: "dim detail" }, " ", data(result.detail || (MEANINGS[result.outcome] ?? ""))));
  }

  return load();
}

function summary(results, dryRun) {
  const counts = new Map();
  for (const { outcome } of results) counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
  return h("p", { class: "note" }, h("strong", null, dryRun ? "Dry run, nothing was changed: " : "Replayed: "),
    [...counts].map(([outcome, number], place) => [place ? ", " : "", `${number} `, data(words(outcome))]), ". Each record says more.");
}
