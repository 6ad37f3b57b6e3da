// A plot over time. It can be read by eye, by pointer, by arrow keys (a slider over the moments) and as a table.

import { h, s } from "./dom.js";
import { measured, timeOfDay } from "./format.js";

const HEIGHT = 148;
const EDGE = { left: 46, right: 10, top: 10, bottom: 20 };
const SPAN_SECONDS = { least: 60, most: 600 };
const TICK_PIXELS = 84;
const TICK_SECONDS = [15, 30, 60, 120, 300];
const TABLE_SECONDS = 60;
/** Lines differ by their dashes too, areas by their hatching. */
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 4"];
const HATCHED = { quarantined: "M0 6L6 0", refused: "M0 0L6 6", unavailable: "M0 3H6" };

let charts = 0;

/**
 * A chart. `kind` is "stack" or "lines"; `format` shows a value, `unit` says what of; the axis goes to `least` at least;
 * `whole` numbers have no halves.
 *
 * `update(at, series)` takes Unix seconds and series `{name, label, values}`, whose values may be null. The name chooses
 * the colour.
 */
export function chart({ title, unit, kind, format = measured, least = 1, whole = false }) {
  const id = `chart-${++charts}`;
  const svg = s("svg", { "aria-hidden": "true", height: HEIGHT, class: "drawing" });
  const legend = h("ul", { class: "legend" });
  const moment = h("span", { class: "moment" });
  const plot = h("div", {
    class: "plot",
    tabindex: 0,
    role: "slider",
    "aria-label": `${title}, ${unit}: values at a moment`,
    "aria-describedby": `${id}-sum`,
    "aria-valuemin": 0,
    "aria-valuemax": 0,
    "aria-valuenow": 0,
    "aria-valuetext": "no values yet",
  }, svg);
  const sum = h("p", { class: "hidden", id: `${id}-sum` });
  const rows = h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": `${title}, by the minute` });
  const table = h("details", { class: "table-of", on: { toggle: () => fillTable() } }, h("summary", null, "By the minute"), rows);
  const element = h(
    "figure",
    { class: "chart", "data-own": true },
    h("figcaption", null, h("h2", null, title), h("span", { class: "unit" }, unit), moment),
    legend,
    plot,
    sum,
    table,
  );

  let at = [];
  let series = [];
  /** Which moment is read; null is the latest. It is kept as a time, since the window moves on. */
  let readAt = null;

  function place() {
    if (readAt === null || !at.length) return at.length - 1;
    let best = 0;
    at.forEach((moment, index) => {
      if (Math.abs(moment - readAt) < Math.abs(at[best] - readAt)) best = index;
    });
    return best;
  }

  function fillLegend() {
    const now = place();
    moment.textContent = now >= 0 && readAt !== null ? `at ${timeOfDay(new Date(at[now] * 1000))}` : "";
    const texts = series.map((each) => shown(each.values[now], format));
    series.forEach((each, index) => {
      const item = legend.children[index] ?? legend.appendChild(h("li", null, h("span", null), h("span"), h("b")));
      item.className = each.name;
      const sample = swatch(id, each.name, kind, index);
      item.children[0].replaceWith(sample);
      item.children[1].textContent = each.label;
      item.children[2].textContent = texts[index];
    });
    while (legend.children.length > series.length) legend.lastChild.remove();
    plot.setAttribute("aria-valuemax", Math.max(at.length - 1, 0));
    plot.setAttribute("aria-valuenow", Math.max(now, 0));
    plot.setAttribute(
      "aria-valuetext",
      now < 0 ? "no values yet" : [timeOfDay(new Date(at[now] * 1000)), ...series.map((each, index) => `${each.label} ${texts[index]}`)].join(", "),
    );
  }

  function draw() {
    const width = plot.clientWidth;
    if (!width) return;
    const area = { left: EDGE.left, right: width - EDGE.right, top: EDGE.top, bottom: HEIGHT - EDGE.bottom };
    const end = at.at(-1) ?? Date.now() / 1000;
    const span = spanOf(at);
    const start = end - span;
    const greatest = nice(Math.max(least, ...heights(series, at.length, kind)), whole);
    const x = (moment) => area.left + ((Math.max(moment, start) - start) / span) * (area.right - area.left);
    const y = (value) => area.bottom - (value / greatest) * (area.bottom - area.top);
    const parts = [hatching(id, series)];
    for (const value of [0, greatest / 2, greatest]) {
      parts.push(
        s("line", { x1: area.left, x2: area.right, y1: y(value), y2: y(value), class: value ? "grid" : "axis" }),
        s("text", { x: area.left - 6, y: y(value) + 4, class: "tick", "text-anchor": "end" }, format(value)),
      );
    }
    const step = TICK_SECONDS.find((each) => (each / span) * (area.right - area.left) >= TICK_PIXELS) ?? span;
    for (let moment = Math.ceil(start / step) * step; moment <= end; moment += step) {
      const clock = timeOfDay(new Date(moment * 1000));
      const label = step < 60 ? clock : clock.slice(0, 5);
      const anchor = x(moment) > area.right - 24 ? "end" : "middle";
      parts.push(
        s("line", { x1: x(moment), x2: x(moment), y1: area.bottom, y2: area.bottom + 4, class: "axis" }),
        s("text", { x: x(moment), y: HEIGHT - 3, class: "tick", "text-anchor": anchor }, label),
      );
    }
    parts.push(...(kind === "stack" ? areas(id, at, series, x, y) : lines(at, series, x, y)));
    if (!at.length) {
      parts.push(s("text", { x: (area.left + area.right) / 2, y: HEIGHT / 2, class: "none", "text-anchor": "middle" }, "no values yet"));
    }
    if (readAt !== null && at.length) {
      const column = x(at[place()]);
      parts.push(s("line", { x1: column, x2: column, y1: area.top, y2: area.bottom, class: "cursor" }));
    }
    svg.setAttribute("width", width);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.replaceChildren(...parts.filter(Boolean));
  }

  function fillTable() {
    if (!table.open) return;
    const minutes = byTheMinute(at, series);
    rows.replaceChildren(
      h(
        "table",
        { class: "plain" },
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "Minute"), series.map((each) => h("th", { scope: "col" }, each.label)))),
        h("tbody", null, minutes.map(([minute, values]) =>
          h("tr", null, h("th", { scope: "row" }, timeOfDay(new Date(minute * 1000)).slice(0, 5)), values.map((value) => h("td", null, shown(value, format)))),
        )),
      ),
    );
  }

  function read(moment) {
    readAt = moment;
    fillLegend();
    draw();
  }

  function point(event) {
    if (!at.length) return;
    const box = plot.getBoundingClientRect();
    const share = (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right);
    read(at.at(-1) - spanOf(at) * (1 - Math.min(Math.max(share, 0), 1)));
  }

  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", () => read(null));
  plot.addEventListener("blur", () => read(null));
  plot.addEventListener("keydown", (event) => {
    const last = at.length - 1;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -15, PageUp: 15 };
    if (last < 0) return;
    if (event.key in steps) read(at[Math.min(Math.max(place() + steps[event.key], 0), last)]);
    else if (event.key === "Home") read(at[0]);
    else if (event.key === "End") read(at[last]);
    else if (event.key === "Escape") read(null);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(plot);

  function update(moments, wanted) {
    at = moments;
    series = wanted;
    sum.textContent = summary(series, format);
    fillLegend();
    draw();
    fillTable();
  }

  return { element, update };
}

/** How much time is drawn: what there is, within bounds. */
function spanOf(at) {
  return Math.min(Math.max(at.length ? at.at(-1) - at[0] : 0, SPAN_SECONDS.least), SPAN_SECONDS.most);
}

const shown = (value, format) => (value === null || value === undefined ? "–" : format(value));

function swatch(id, name, kind, index) {
  const mark =
    kind === "stack"
      ? [
          s("rect", { width: 14, height: 10, y: 1, rx: 2, class: `area ${name}` }),
          name in HATCHED && s("rect", { width: 14, height: 10, y: 1, rx: 2, fill: `url(#${id}-${name})` }),
        ]
      : [s("line", { x1: 0, x2: 18, y1: 6, y2: 6, class: `line ${name}`, "stroke-dasharray": DASHES[index % DASHES.length] })];
  return s("svg", { width: kind === "stack" ? 14 : 18, height: 12, "aria-hidden": "true" }, mark);
}

function hatching(id, series) {
  const patterns = series
    .filter((each) => each.name in HATCHED)
    .map((each) =>
      s("pattern", { id: `${id}-${each.name}`, width: 6, height: 6, patternUnits: "userSpaceOnUse" }, s("path", { d: HATCHED[each.name], class: "hatch" })),
    );
  return patterns.length ? s("defs", null, patterns) : null;
}

function heights(series, length, kind) {
  if (kind !== "stack") return series.flatMap((each) => each.values.filter((value) => value !== null && value !== undefined));
  return Array.from({ length }, (_, index) => series.reduce((sum, each) => sum + (each.values[index] ?? 0), 0));
}

function areas(id, at, series, x, y) {
  if (!at.length) return [];
  let floor = at.map(() => 0);
  return series.flatMap((each) => {
    const top = floor.map((value, index) => value + (each.values[index] ?? 0));
    if (top.every((value, index) => value === floor[index])) return [];
    const there = top.map((value, index) => `${fixed(x(at[index]))} ${fixed(y(value))}`);
    const back = floor.map((value, index) => `${fixed(x(at[index]))} ${fixed(y(value))}`).reverse();
    floor = top;
    const d = `M${there.join("L")}L${back.join("L")}Z`;
    return [
      s("path", { d, class: `area ${each.name}` }),
      each.name in HATCHED && s("path", { d, fill: `url(#${id}-${each.name})` }),
    ];
  });
}

function lines(at, series, x, y) {
  return series.map((each, index) => {
    let pen = false;
    let d = "";
    each.values.forEach((value, place) => {
      if (value === null || value === undefined) {
        pen = false;
        return;
      }
      const alone = !pen && (each.values[place + 1] ?? null) === null;
      d += `${pen ? "L" : "M"}${fixed(x(at[place]))} ${fixed(y(value))}${alone ? "h.01" : ""}`;
      pen = true;
    });
    return d ? s("path", { d, class: `line ${each.name}`, "stroke-dasharray": DASHES[index % DASHES.length] }) : null;
  });
}

const fixed = (value) => value.toFixed(1);

/** A round number that is not less; where `whole`, its half is whole too. */
function nice(value, whole) {
  const power = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].map((step) => Number((step * power).toPrecision(3)));
  return steps.find((step) => step >= value && (!whole || step % 2 === 0));
}

function byTheMinute(at, series) {
  const minutes = new Map();
  at.forEach((moment, index) => {
    const minute = Math.floor(moment / TABLE_SECONDS) * TABLE_SECONDS;
    minutes.set(minute, [...(minutes.get(minute) ?? []), index]);
  });
  return [...minutes]
    .reverse()
    .map(([minute, places]) => [minute, series.map((each) => mean(places.map((place) => each.values[place])))]);
}

function mean(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

function summary(series, format) {
  const said = series.map((each) => {
    const known = each.values.filter((value) => value !== null && value !== undefined);
    return known.length ? `${each.label} ${format(mean(known))} on average, ${format(Math.max(...known))} at most` : `${each.label} no values`;
  });
  return `Up to the last 10 minutes: ${said.join("; ")}.`;
}
