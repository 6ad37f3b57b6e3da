// Where ids lead.

import { address, data, to } from "./dom.js";
import { isEventId, isObjectId } from "./words.js";

/** What somebody has typed or pasted, as the view that shows it: its parts and its query. */
function viewOf(text) {
  const id = text.trim().replace(/^["'`]+|["'`,;]+$/g, "");
  if (id === "") return [["events"], null];
  if (isEventId(id)) return [["event", id], null];
  if (isObjectId(id)) return [["object", id], null];
  return [["events"], { q: id }];
}

export const hashOf = (text) => address(...viewOf(text));

/** An id as a link to its view. */
export function idLink(id, attributes) {
  const [path, query] = viewOf(id);
  return to(path, query, { class: "id", ...attributes }, data(id));
}

/** An object's timeline, for the account and mode that it is of. */
export function objectLink(id, { account, livemode } = {}) {
  return to(["object", id], account === undefined || account === null ? null : { account, livemode }, { class: "id" }, data(id));
}
