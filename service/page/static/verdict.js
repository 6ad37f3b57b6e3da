// Is it fine? One line from everything that is known, with the reasons where it is not.

import { CONSUMER_PROBLEMS, ENDPOINT_PROBLEMS, KINDS, kindOf, words } from "./words.js";
import { count, duration, measured, milliseconds, several } from "./format.js";

const RECENT_SECONDS = 60;
const SLOW_MS = 1000;
/** A consumer that has records to read and has stored no position for so long stands still. */
const STILL_SECONDS = 60;
/** Refusals that a stranger cannot cause on purpose without our knowing: the others are the internet's noise. */
const TELLING = ["signature_mismatch", "timestamp_outside_tolerance"];

/** `{level: "good"|"warn"|"bad", reasons: [{level, text, view}]}`; `view` is a path to look at, or nothing. */
export function verdict(live, consumers) {
  const reasons = [...ofProcess(live), ...ofDeliveries(live), ...ofEndpoints(live), ...ofConsumers(consumers, live.now)];
  const level = reasons.some((each) => each.level === "bad") ? "bad" : reasons.length ? "warn" : "good";
  return { level, reasons };
}

function* ofProcess({ ready, problems }) {
  const level = ready ? "warn" : "bad";
  for (const problem of problems) yield { level, text: `${ready ? "" : "Not ready: "}${words(problem)}` };
  if (!ready && !problems.length) yield { level, text: "Not ready" };
}

function* ofDeliveries(live) {
  const rates = recentRates(live);
  for (const [outcome, rate] of rates) {
    if (rate > 0 && kindOf(outcome) === "unavailable") {
      yield { level: "bad", text: `Deliveries are answered 503 (${words(outcome)}, ${perMinute(rate)}); Stripe sends them again` };
    } else if (rate > 0 && TELLING.includes(outcome)) {
      yield { level: "warn", text: `Deliveries are refused (${words(outcome)}, ${perMinute(rate)})` };
    } else if (rate > 0 && outcome === "quarantined") {
      yield { level: "warn", text: `Events go to the quarantine (${perMinute(rate)})`, view: ["quarantine"] };
    }
  }
  const slow = Math.max(0, ...recent(live, live.p99_ms).filter((value) => value !== null));
  if (slow > SLOW_MS) yield { level: "warn", text: `Answers are slow: p99 was ${milliseconds(slow)} in the last minute` };
}

function* ofEndpoints({ endpoints }) {
  for (const { name, problems, undelivered } of endpoints) {
    const told = problems.map((problem) => ENDPOINT_PROBLEMS[problem] ?? words(problem));
    if (undelivered) told.push(`${several(undelivered, "event")} undelivered at Stripe`);
    if (told.length) yield { level: "warn", text: `Endpoint ${name}: ${told.join(", ")}` };
  }
}

function* ofConsumers(consumers, now) {
  if (consumers === null) return;
  if (consumers.problem) yield { level: "warn", text: `How far the consumers are is not known: ${CONSUMER_PROBLEMS[consumers.problem] ?? words(consumers.problem)}` };
  for (const { projection, lag, updated_at: moved } of consumers.groups) {
    if (!lag) continue;
    if (moved === null) yield { level: "warn", text: `Consumer ${projection}: ${several(lag, "record")} waiting, and it has never stored a position` };
    else if (now - moved > STILL_SECONDS) {
      yield { level: "bad", text: `Consumer ${projection} stands still: ${several(lag, "record")} waiting, nothing applied for ${duration(now - moved)}` };
    }
  }
}

/** A sentence for when all is well. */
export function allWell(live, consumers) {
  const rates = recentRates(live);
  const accepted = (rates.get("accepted") ?? 0) * 60;
  const waiting = consumers?.groups.reduce((sum, group) => sum + group.lag, 0) ?? null;
  const behind = waiting === null ? "" : waiting ? `, ${several(waiting, "record")} on the way to the tables` : ", consumers caught up";
  return `Ready, ${several(live.endpoints.length, "endpoint")}, ${measured(accepted)} accepted in the last minute${behind}.`;
}

/** The outcomes' series, folded into the five kinds. */
export function byKind(live) {
  const sums = new Map(KINDS.map((kind) => [kind, live.at.map(() => 0)]));
  for (const [outcome, rates] of Object.entries(live.outcomes)) {
    const sum = sums.get(kindOf(outcome));
    rates.forEach((rate, place) => {
      sum[place] += rate ?? 0;
    });
  }
  return sums;
}

const perMinute = (rate) => `${count(Math.max(1, rate * 60))} in the last minute`;

function recent(live, values) {
  const first = live.at.findIndex((moment) => moment > live.now - RECENT_SECONDS);
  return first < 0 ? [] : values.slice(first);
}

/** Deliveries a second over the last minute, by outcome; a minute that is not full yet counts as one. */
function recentRates(live) {
  return new Map(
    Object.entries(live.outcomes).map(([outcome, rates]) => [
      outcome,
      (recent(live, rates).reduce((sum, rate) => sum + (rate ?? 0), 0) * live.every_seconds) / RECENT_SECONDS,
    ]),
  );
}
