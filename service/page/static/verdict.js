// Is it fine? One line from everything that is known, with the reasons where it is not.

import { CONSUMER_PROBLEMS, ENDPOINT_PROBLEMS, KINDS, PARTITION_PROBLEMS, kindOf, words } from "./words.js";
import { ago, count, duration, measured, milliseconds, several } from "./format.js";

const RECENT_SECONDS = 60;
const SLOW_MS = 1000;
/** A consumer that has records to read and has stored no position for so long stands still. */
const STILL_SECONDS = 60;
/** A clock that differs by more is on its way to where deliveries are refused for it (receiver.tolerance_seconds). */
const SKEW_SECONDS = 60;
/** Refusals that a stranger cannot cause on purpose without our knowing: the others are the internet's noise. */
const TELLING = ["signature_mismatch", "timestamp_outside_tolerance"];

/**
 * `{level: "good"|"warn"|"bad", reasons: [{level, text, view}]}`; `view` is a path to look at, or nothing. `consumers` is
 * null while they have not answered yet: what is not known is not well.
 */
export function verdict(live, consumers) {
  const reasons = [...ofProcess(live), ...ofDeliveries(live, consumers), ...ofEndpoints(live), ...ofConsumers(consumers, live.now), ...ofParked(consumers)];
  const level = reasons.some((each) => each.level === "bad") ? "bad" : reasons.length ? "warn" : "good";
  return { level, reasons };
}

function* ofProcess({ ready, problems }) {
  const level = ready ? "warn" : "bad";
  for (const problem of problems) yield { level, text: `${ready ? "" : "Not ready: "}${words(problem)}` };
  if (!ready && !problems.length) yield { level, text: "Not ready" };
}

function* ofDeliveries(live, consumers) {
  const rates = recentRates(live);
  for (const [outcome, rate] of rates) {
    if (rate > 0 && kindOf(outcome) === "unavailable") {
      yield { level: "bad", text: `Deliveries are answered 503 (${words(outcome)}, ${perMinute(rate)}); Stripe sends them again` };
    } else if (rate > 0 && TELLING.includes(outcome)) {
      yield { level: "warn", text: `Deliveries are refused (${words(outcome)}, ${perMinute(rate)})` };
    } else if (rate > 0 && outcome === "quarantined" && !consumers?.parked?.quarantine) {
      yield { level: "warn", text: `Events go to the quarantine (${perMinute(rate)})`, view: ["quarantine"] };
    }
  }
  const { bypassed, unlogged } = live.recent ?? {};
  if (bypassed) yield { level: "warn", text: `${several(bypassed, "delivery", "deliveries")} of the last ten minutes ${bypassed === 1 ? "was" : "were"} published unchecked: the dedupe store is away` };
  if (unlogged) yield { level: "warn", text: `${several(unlogged, "arrival")} of the last ten minutes ${unlogged === 1 ? "is" : "are"} not on the event log: a search does not find them` };
  const slow = Math.max(0, ...recent(live, live.p99_ms).filter((value) => value !== null));
  if (slow > SLOW_MS) yield { level: "warn", text: `Answers are slow: p99 was ${milliseconds(slow)} in the last minute` };
}

function* ofEndpoints({ endpoints, now }) {
  for (const { name, mode, problems, undelivered, health, last_event_at: last, clock_skew_seconds: skew } of endpoints) {
    const told = problems.map((problem) => ENDPOINT_PROBLEMS[problem] ?? words(problem));
    if (undelivered) told.push(`${several(undelivered, "event")} undelivered at Stripe`);
    // Test mode is quiet as a matter of course.
    if (health === "quiet" && mode !== "test") told.push(last === null ? "no event for a day" : `no event for ${duration(now - last)}, which is longer than usual`);
    if (skew !== null && Math.abs(skew) > SKEW_SECONDS) told.push(`this machine's clock and Stripe's differ by ${duration(skew)}`);
    if (told.length) yield { level: "warn", text: `Endpoint ${name}: ${told.join(", ")}` };
  }
}

function* ofConsumers(consumers, now) {
  if (consumers === null) {
    yield { level: "warn", text: "How far the consumers are is not known yet" };
    return;
  }
  if (consumers.problem) yield { level: "warn", text: `How far the consumers are is not known: ${CONSUMER_PROBLEMS[consumers.problem] ?? words(consumers.problem)}` };
  for (const { projection, partitions, overdue } of consumers.groups) {
    if (!partitions.length) yield { level: "warn", text: `Consumer ${projection}: its topics are not there` };
    for (const { topic, partition, problem } of partitions) {
      if (problem) yield { level: "bad", text: `Consumer ${projection} cannot go on at ${topic}/${partition}: ${PARTITION_PROBLEMS[problem] ?? words(problem)}` };
    }
    if (!overdue) continue;
    // By its partitions: one that has stopped is not seen among others that move.
    const late = partitions.filter((each) => each.overdue);
    const still = late.filter(({ updated_at: moved }) => moved !== null && now - moved > STILL_SECONDS);
    const waiting = (some) => several(some.reduce((sum, { lag }) => sum + lag, 0), "record");
    if (still.length) {
      const where = still.length < partitions.length ? ` at ${several(still.length, "partition")}` : "";
      const moved = Math.max(...still.map((each) => each.updated_at));
      yield { level: "bad", text: `Consumer ${projection} stands still${where}: ${waiting(still)} waiting, nothing applied for ${duration(now - moved)}` };
    } else if (late.every(({ updated_at: moved }) => moved === null)) {
      yield { level: "warn", text: `Consumer ${projection}: ${waiting(late)} waiting, and it has never stored a position` };
    } else {
      yield { level: "warn", text: `Consumer ${projection} is behind: ${several(overdue, "record")} waiting for more than a minute` };
    }
  }
}

function* ofParked(consumers) {
  const { "dead-letter": letters, quarantine } = consumers?.parked ?? {};
  if (letters) yield { level: "warn", text: `${several(letters, "dead letter")} in the last 24 hours`, view: ["dead-letters"] };
  if (quarantine) yield { level: "warn", text: `${several(quarantine, "quarantined body", "quarantined bodies")} in the last 24 hours`, view: ["quarantine"] };
}

/** A sentence for when all is well. */
export function allWell(live, consumers) {
  const rates = recentRates(live);
  const accepted = (rates.get("accepted") ?? 0) * 60;
  const waiting = consumers?.groups.reduce((sum, group) => sum + group.lag, 0) ?? null;
  const behind = waiting === null ? "" : waiting ? `, ${several(waiting, "record")} on the way to the tables` : ", consumers caught up";
  const last = Math.max(...live.endpoints.map((endpoint) => endpoint.last_event_at ?? -Infinity));
  const newest = Number.isFinite(last) ? `last event ${ago(live.now - last)}` : "no event since this process started";
  return `Ready, ${several(live.endpoints.length, "endpoint")}, ${measured(accepted)} accepted in the last minute, ${newest}${behind}.`;
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
