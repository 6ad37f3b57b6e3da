// The page: which view the address asks for, and what is around it.

import { h, icon, say } from "./dom.js";
import { shortTime } from "./format.js";
import { hashOf } from "./links.js";
import { makeSession } from "./session.js";
import { empty } from "./states.js";
import * as event from "./event.js";
import * as events from "./events.js";
import * as live from "./live.js";
import * as object from "./object.js";
import * as parked from "./parked.js";

const main = document.getElementById("main");
const search = document.getElementById("search");
const field = document.getElementById("q");

const VIEWS = {
  "": { name: "live", title: "Live", show: live.show },
  events: { name: "events", title: "Events", show: events.show },
  event: { name: "events", title: "Event", show: event.show, id: true },
  object: { name: "events", title: "Object", show: object.show, id: true },
  "dead-letters": { name: "dead-letter", title: "Dead letters", show: parked.show("dead-letter") },
  quarantine: { name: "quarantine", title: "Quarantine", show: parked.show("quarantine") },
};

const session = makeSession(document.getElementById("session"), () => open());

/** What the address asks for: a view, an id and a query; null where there is no such view. */
function route() {
  const [path, asked] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [first, ...rest] = path.split("/");
  const view = Object.hasOwn(VIEWS, first) ? VIEWS[first] : null;
  if (view === null || Boolean(view.id) !== Boolean(rest.length)) return null;
  try {
    return { view, id: decodeURIComponent(rest.join("/")), query: new URLSearchParams(asked ?? "") };
  } catch {
    return null; // not an address of ours: a % that stands for nothing
  }
}

// Each visit of a view has a name in the history, by which going back finds where it was scrolled to.
history.scrollRestoration = "manual";
const scrolled = new Map();
let visits = 0;
let visit = null;
let shown = null;

async function open({ returning = false, first = false } = {}) {
  shown?.abort();
  const stop = new AbortController();
  shown = stop;
  away.back();
  const found = route();
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === found?.view.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (document.activeElement !== field) field.value = found?.id || (found?.view.name === "events" ? (found.query.get("q") ?? "") : "");
  const title = found ? [found.view.title, found.id] : ["Not found"];
  document.title = `${title.filter(Boolean).join(" ")} · stripe-ingest`;
  if (found === null) {
    main.replaceChildren(h("h1", { tabindex: -1 }, "Not found"), empty("There is no such view", "The views are Live, Events, Dead letters and Quarantine."));
  } else {
    const again = () => open();
    const settled = found.view.show({ main, id: found.id, query: found.query, signal: stop.signal, session, away, returning, again });
    // Whoever follows a link hears where it led; whoever opens the page begins at its top.
    if (!first) main.querySelector("h1")?.focus({ preventScroll: true });
    await settled;
  }
  if (!stop.signal.aborted) window.scrollTo(0, returning ? (scrolled.get(visit) ?? 0) : 0);
}

addEventListener("popstate", (popped) => {
  scrolled.set(visit, scrollY);
  const returning = typeof popped.state?.visit === "string";
  visit = returning ? popped.state.visit : name();
  open({ returning });
});

function name() {
  const made = `${performance.timeOrigin}-${++visits}`;
  history.replaceState({ visit: made }, "");
  return made;
}

// A link to where one is already asks for the newest.
document.addEventListener("click", (click) => {
  const link = click.target.closest?.("a[href^='#/']");
  if (link && link.getAttribute("href") === (location.hash || "#/") && !click.ctrlKey && !click.metaKey && !click.shiftKey) open();
});

document.getElementById("skip").addEventListener("click", (click) => {
  // Its address would be taken for a view.
  click.preventDefault();
  main.focus();
});

search.addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const wanted = hashOf(field.value);
  field.blur();
  if (wanted === location.hash) open();
  else location.hash = wanted;
});

addEventListener("keydown", (pressed) => {
  if (pressed.key !== "/" || pressed.ctrlKey || pressed.metaKey || pressed.altKey) return;
  if (pressed.target.closest?.("input, textarea, select, dialog")) return;
  pressed.preventDefault();
  field.focus();
  field.select();
});

/** The line that says that the server is away, since when, and when it is asked again. */
const away = (() => {
  const bar = document.getElementById("away");
  let timer = null;
  let since = null;

  return {
    gone(error, pause, now, asOf) {
      since ??= new Date();
      let left = Math.round(pause);
      const rest = h("span", null, `${left} s`);
      const why = error.needsSession ? `The server refuses this page: ${error.message}` : `${error.status ? `The server answers ${error.status}` : "The server does not answer"}, since ${shortTime(since)}.`;
      clearInterval(timer);
      timer = setInterval(() => (rest.textContent = `${Math.max(0, --left)} s`), 1000);
      bar.replaceChildren(h("p", null, icon("warning"), " ", why, asOf ? ` What is shown is as of ${shortTime(new Date(asOf * 1000))}.` : "", " Asked again in ", rest, ". "), h("button", { type: "button", on: { click: now } }, "Ask now"));
      if (bar.hidden) say(why);
      bar.hidden = false;
      document.body.classList.add("stale");
    },
    back() {
      if (!bar.hidden && since !== null) say("The server answers again.");
      clearInterval(timer);
      since = null;
      bar.hidden = true;
      document.body.classList.remove("stale");
    },
  };
})();

const themeButton = document.getElementById("theme");
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : systemIsDark.matches;
}

function showTheme() {
  const dark = isDark();
  themeButton.hidden = false;
  themeButton.replaceChildren(icon(dark ? "sun" : "moon"), h("span", { class: "hidden" }, dark ? "Light colours" : "Dark colours"));
  themeButton.title = dark ? "Light colours" : "Dark colours";
}

themeButton.addEventListener("click", () => {
  const wanted = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = wanted;
  try {
    localStorage.setItem("theme", wanted);
  } catch {
    // It holds until the page is closed.
  }
  showTheme();
});
systemIsDark.addEventListener("change", showTheme);
showTheme();

const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
document.getElementById("zone").textContent = timeZone === "UTC" ? "Times in UTC" : `Times in ${timeZone}; UTC on hover`;

visit = history.state?.visit ?? name();
const known = await session.look();
document.getElementById("version").textContent = known ? `stripe-ingest ${known.version}` : "stripe-ingest";
await open({ first: true });
