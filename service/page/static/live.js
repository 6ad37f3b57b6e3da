// Live: is it fine, how much comes, how fast it is answered, how far behind the tables are.

import * as api from "./api.js";
import { chart } from "./chart.js";
import { data, h, morph, say, to } from "./dom.js";
import { ago, count, duration, measured, milliseconds, several, shortTime, time, timeOfDay } from "./format.js";
import { failed, loading } from "./states.js";
import { table } from "./table.js";
import { poll } from "./poll.js";
import { allWell, byKind, verdict } from "./verdict.js";
import { CONSUMER_PROBLEMS, ENDPOINT_PROBLEMS, KINDS, MEANINGS, state, words } from "./words.js";

const SECONDS = 2;
const LAGS_MAX = 300;

/** What the consumers said while this page was open: the server keeps no history of it. It outlives the view. */
const lags = { at: [], by: new Map() };

/** For so long the first picture waits for the consumers: longer, and the rest is worth showing without them. */
const FIRST_SECONDS_MAX = 1;

/** What was shown last: there at once when somebody comes back. `groups` is null until the consumers have answered. */
let last = null;

export function show({ main, signal, session, away }) {
  const plots = {
    rate: chart({ title: "Deliveries", unit: "per second, by outcome", kind: "stack" }),
    answer: chart({ title: "Time to answer", unit: "milliseconds", kind: "lines", least: 5 }),
    lag: chart({ title: "Waiting for the tables", unit: "records, by projection, since this page is open", kind: "lines", format: (value) => count(Math.round(value)), least: 4, whole: true }),
    flight: chart({ title: "In flight", unit: "deliveries being answered", kind: "lines", least: 4, whole: true }),
  };
  const line = h("section", { class: "verdict", "aria-label": "Is it fine?" });
  const tiles = h("dl", { class: "tiles" });
  const endpoints = h("div");
  const consumers = h("div");
  const head = h("h1", { class: "hidden", tabindex: -1 }, "Live");
  const body = h(
    "div",
    { hidden: true },
    line,
    h("section", { "aria-label": "Totals of this process since it started" }, tiles, h("p", { class: "dim" }, "Deliveries are those of this process alone, since it started.")),
    h("section", { class: "charts", "aria-label": "The last ten minutes" }, Object.values(plots).map((plot) => plot.element)),
    h("section", { "aria-labelledby": "endpoints" }, h("h2", { id: "endpoints" }, "Endpoints"), endpoints),
    h("section", { "aria-labelledby": "consumers" }, h("h2", { id: "consumers" }, "Consumers"), consumers),
  );
  const waiting = loading("what this receiver is doing");
  main.replaceChildren(head, waiting, body);

  function paint(live, groups) {
    waiting.remove();
    body.hidden = false;
    morph(line, verdictLine(live, groups));
    morph(tiles, totals(live));
    const kinds = byKind(live);
    plots.rate.update(live.at, KINDS.map((kind) => ({ name: kind, label: kind, values: kinds.get(kind) })));
    plots.answer.update(live.at, [
      { name: "p50", label: "p50 (half are faster)", values: live.p50_ms },
      { name: "p99", label: "p99 (1 in 100 is slower)", values: live.p99_ms },
      { name: "loop", label: "event loop lag", values: live.loop_lag_ms },
    ]);
    plots.flight.update(live.at, [{ name: "flight", label: "in flight", values: live.in_flight }]);
    plots.lag.update(lags.at, [...lags.by].map(([projection, values], place) => ({ name: `projection-${place}`, label: projection, values })));
    morph(endpoints, h("div", null, endpointTable(live)));
    morph(consumers, h("div", null, consumerTable(groups, live.now)));
  }

  let groups = last?.groups ?? null;
  if (last !== null) paint(last.live, groups);

  // Asked apart: with Kafka or the database away this takes long, which is when the rest must be fresh. What it says is
  // shown with the next figures.
  let heard;
  const first = new Promise((done) => {
    heard = done;
  });
  const asking = poll(
    async (stopped) => {
      const answer = await api.consumers(stopped);
      if (stopped.aborted) return;
      if (last !== null) remember(answer, last.live.now);
      groups = answer;
    },
    {
      seconds: SECONDS,
      signal,
      settled(error) {
        if (error !== null) groups = { groups: groups?.groups ?? [], problem: error.message };
        heard();
      },
    },
  );

  const polling = poll(
    async (stopped) => {
      const live = await api.live(stopped);
      if (groups === null) await Promise.race([first, new Promise((done) => setTimeout(done, FIRST_SECONDS_MAX * 1000))]);
      if (stopped.aborted) return;
      last = { live, groups };
      paint(live, groups);
    },
    {
      seconds: SECONDS,
      signal,
      settled(error, pause) {
        if (error === null) {
          away.back();
        } else if (error.needsSession && last === null) {
          main.replaceChildren(head, failed(error, { session, again: now }));
        } else {
          waiting.remove();
          away.gone(error, pause, now, last === null ? null : last.live.now);
        }
      },
    },
  );

  function now() {
    polling.now();
    asking.now();
  }
}

function remember({ groups }, now) {
  if (lags.at.at(-1) >= now) return;
  lags.at.push(now);
  for (const { projection } of groups) {
    if (!lags.by.has(projection)) lags.by.set(projection, Array(lags.at.length - 1).fill(null));
  }
  for (const [projection, values] of lags.by) {
    values.push(groups.find((group) => group.projection === projection)?.lag ?? null);
  }
  if (lags.at.length > LAGS_MAX) for (const values of [lags.at, ...lags.by.values()]) values.shift();
}

const HEADLINES = { good: "All is well", warn: "Needs a look", bad: "Not fine" };
let told = "";

function verdictLine(live, groups) {
  const { level, reasons } = verdict(live, groups);
  const spoken = [HEADLINES[level], ...reasons.map((reason) => reason.view ?? reason.text.split(":")[0])].join(". ");
  if (spoken !== told) {
    // Only what is new is said: numbers that move would never let a screen reader finish.
    if (told !== "") say(HEADLINES[level]);
    told = spoken;
  }
  return h(
    "section",
    { class: `verdict ${level}`, "aria-label": "Is it fine?" },
    h("p", { class: "headline" }, state(level, HEADLINES[level])),
    reasons.length
      ? h("ul", null, reasons.map(({ text, view }) => h("li", null, view ? to(view, null, null, data(text)) : data(text))))
      : h("p", null, allWell(live, groups)),
    h("p", { class: "as-of" }, "as of ", time(live.now, timeOfDay)),
  );
}

const TILES = {
  accepted: "Accepted",
  duplicate: "Duplicate",
  quarantined: "Quarantined",
  refused: "Refused",
  unavailable: "503",
  bypassed: "Unchecked",
};
const TILE_MEANINGS = {
  ...MEANINGS,
  refused: "Answered 4xx: not shown to be Stripe's, or not a delivery.",
  unavailable: "Nothing durable took it; Stripe sends it again.",
  bypassed: "Published without asking the dedupe store, which was away. Consumers count them once all the same.",
};

function totals(live) {
  const now = (values) => values.at(-1) ?? null;
  const lag = now(live.loop_lag_ms);
  return h(
    "dl",
    { class: "tiles" },
    Object.entries(TILES).map(([name, label]) =>
      h("div", { class: `tile ${name}${live.totals[name] ? "" : " zero"}`, title: TILE_MEANINGS[name] }, h("dt", null, label), h("dd", null, count(live.totals[name]))),
    ),
    h("div", { class: "tile", title: "Deliveries that are being answered now." }, h("dt", null, "In flight"), h("dd", null, count(now(live.in_flight) ?? 0))),
    h("div", { class: "tile", title: "How late this process's event loop is." }, h("dt", null, "Loop lag"), h("dd", null, lag === null ? "–" : milliseconds(lag))),
  );
}

const HEALTH = { ok: ["good", "ok"], quiet: ["none", "quiet"], problem: ["bad", "problem"] };

function endpointTable({ endpoints, now }) {
  return table(
    "Endpoints",
    [
      { label: "Endpoint" },
      { label: "Health" },
      { label: "Last event" },
      { label: "Per minute", kind: "number" },
      { label: "Refused per minute", kind: "number" },
      { label: "Secrets in use" },
      { label: "At Stripe" },
    ],
    endpoints.map((endpoint) => ({
      key: endpoint.name,
      cells: [
        [h("strong", null, data(endpoint.name)), " ", h("span", { class: "dim" }, data(endpoint.path), ` · ${endpoint.mode}`, endpoint.account ? [" · ", data(endpoint.account)] : null)],
        state(...(HEALTH[endpoint.health] ?? ["none", endpoint.health])),
        lastEvent(endpoint, now),
        measured(endpoint.per_minute),
        measured(endpoint.refused_per_minute),
        secrets(endpoint),
        problems(endpoint),
      ],
    })),
  );
}

function lastEvent({ last_event_at: at, clock_skew_seconds: skew }, now) {
  const clocks = skew !== null && Math.abs(skew) >= 5 ? h("span", { class: "dim" }, ` clocks differ by ${duration(skew)}`) : null;
  if (at === null) return [h("span", { class: "dim" }, "none since this process started"), clocks];
  return [time(at, () => ago(now - at)), " ", h("span", { class: "dim" }, time(at, shortTime)), clocks];
}

function secrets(endpoint) {
  if (!endpoint.secrets.length) return state("bad", "none: every delivery is refused");
  return h("ul", { class: "bare" }, endpoint.secrets.map(({ fingerprint, verified }) => h("li", null, h("code", null, data(fingerprint)), h("span", { class: "dim" }, ` ${count(verified)} verified`))));
}

function problems({ problems: found, undelivered }) {
  const told = found.map((problem) => ENDPOINT_PROBLEMS[problem] ?? words(problem));
  if (undelivered) told.push(`${several(undelivered, "event")} undelivered`);
  if (!told.length) return h("span", { class: "dim" }, "no problem known");
  return h("ul", { class: "bare" }, told.map((text) => h("li", null, state("bad", text))));
}

function consumerTable(answer, now) {
  if (answer === null) return h("p", { class: "dim" }, "Kafka and the database are being asked …");
  const { groups, problem } = answer;
  if (!groups.length) return h("p", { class: "dim" }, problem ? `Not known: ${CONSUMER_PROBLEMS[problem] ?? words(problem)}.` : "No consumer group is known.");
  const old = problem ? h("p", { class: "note" }, `Not known now: ${CONSUMER_PROBLEMS[problem] ?? words(problem)}. This is what was known before.`) : null;
  return [old, table(
    "Consumers",
    [
      { label: "Projection" },
      { label: "Records waiting", kind: "number" },
      { label: "Position stored" },
      { label: "Partitions" },
    ],
    groups.map((group) => ({
      key: group.projection,
      cells: [
        [h("strong", null, data(group.projection)), " ", h("span", { class: "dim" }, data(group.group))],
        [group.lag ? h("strong", null, count(group.lag)) : "0", group.overdue ? h("span", { class: "dim" }, ` ${count(group.overdue)} for more than a minute`) : null],
        group.updated_at === null ? h("span", { class: "dim" }, "never") : [time(group.updated_at, () => ago(now - group.updated_at)), " ", h("span", { class: "dim" }, time(group.updated_at, shortTime))],
        partitions(group.partitions),
      ],
    })),
  )];
}

function partitions(all) {
  const behind = all.filter((partition) => partition.lag).length;
  return h(
    "details",
    null,
    h("summary", null, `${several(all.length, "partition")}${behind ? `, ${behind} behind` : ""}`),
    h("ul", { class: "bare" }, all.map(({ topic, partition, next_offset: next, end_offset: end, lag, problem }) =>
      h("li", null, h("code", null, data(`${topic}/${partition}`)), ` at ${next === null ? "the start" : count(next)} of ${count(end)}`, lag ? h("strong", null, `, ${count(lag)} waiting`) : null, problem ? h("strong", null, `, ${words(problem)}`) : null),
    )),
  );
}
