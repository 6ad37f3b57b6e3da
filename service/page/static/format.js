// Numbers and times as people read them.

import { h } from "./dom.js";

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** A count: `12,345`. */
export function count(value) {
  return whole.format(value);
}

/** A measured number: three digits are enough, and as many behind the point as make a difference. */
export function measured(value) {
  const size = Math.abs(value);
  if (size >= 100) return whole.format(value);
  return size >= 0.1 ? tenths.format(value) : fine.format(value);
}

/** Milliseconds: `3.2 ms`, `1.4 s`. */
export function milliseconds(value) {
  return value >= 1000 ? `${fine.format(value / 1000)} s` : `${measured(value)} ms`;
}

/** `1 event`, `2 events`. */
export function several(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const STEPS = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
];

/** How long, roughly: `0.4 s`, `12 s`, `3 min 20 s`, `2 d 5 h`. */
export function duration(seconds) {
  const total = Math.abs(seconds);
  if (total < 10) return `${fine.format(Math.round(total * 10) / 10)} s`;
  if (total < 60) return `${Math.round(total)} s`;
  const place = STEPS.findIndex(([, size]) => total >= size);
  const [unit, size] = STEPS[place];
  const [smaller, part] = STEPS[place + 1] ?? ["s", 1];
  const big = Math.floor(total / size);
  const rest = Math.floor((total - big * size) / part);
  return rest && big < 10 ? `${big} ${unit} ${rest} ${smaller}` : `${big} ${unit}`;
}

/** `12 s ago`; what lies ahead, by clocks that differ, is now. */
export function ago(seconds) {
  return seconds < 1 ? "just now" : `${duration(Math.floor(seconds))} ago`;
}

/** The time of day. */
export function timeOfDay(date) {
  return clock.format(date);
}

/** Day and time, in the browser's zone. */
export function dayAndTime(date) {
  return `${day.format(date)}, ${clock.format(date)}`;
}

/** The same in UTC, as logs have it. */
function utc(date) {
  return date.toISOString().replace("T", " ").replace("Z", " UTC");
}

/** A moment as an element: the browser's zone in sight, UTC on hover. `value` is ISO 8601, a Date or Unix seconds. */
export function time(value, show = dayAndTime) {
  const date = value instanceof Date ? value : new Date(typeof value === "number" ? value * 1000 : value);
  if (Number.isNaN(date.getTime())) return h("span", null, String(value));
  return h("time", { datetime: date.toISOString(), title: utc(date) }, show(date));
}

/** Time of day where it is today, else with its day. */
export function shortTime(date) {
  return date.toDateString() === new Date().toDateString() ? timeOfDay(date) : dayAndTime(date);
}

/** Seconds from one moment to another. */
export function secondsBetween(earlier, later) {
  return (new Date(later).getTime() - new Date(earlier).getTime()) / 1000;
}
