// What stands where there is nothing to show yet, nothing at all, or something went wrong.

import { h } from "./dom.js";

/** Something is on its way. */
export const loading = (what) => h("p", { class: "state", "aria-busy": "true" }, `Loading ${what} …`);

/** There is nothing; `helps` say why that may be, and where to look. */
export function empty(title, ...helps) {
  return h("div", { class: "state" }, h("p", { class: "state-title" }, title), helps.map((help) => h("p", null, help)));
}

/** It did not work: what the server said, what helps, and a way to try again. */
export function failed(error, { session, again }) {
  if (error.needsSession) return locked(session, error);
  const unreachable = error.status === 0;
  return h(
    "div",
    { class: "state failed", role: "alert" },
    h("p", { class: "state-title" }, unreachable ? "The server does not answer" : `That did not work: ${error.message}`),
    h("p", null, unreachable ? error.message : `The server answered ${error.status} (${error.code}). Its log says more.`),
    h("button", { type: "button", on: { click: again } }, "Try again"),
  );
}

/** Only for those who are signed in. */
function locked(session, error) {
  return h(
    "div",
    { class: "state failed" },
    h("p", { class: "state-title" }, "Events, objects and parked records are shown to whoever is signed in"),
    h("p", null, error.message),
    session.signInHelp(),
  );
}
