// The page's only way to the server. Every request has an end.

const SECONDS_MAX = 15;
/** A replay publishes up to a hundred records, each of which may wait for its broker. */
const REPLAY_SECONDS_MAX = 120;

/** What the server said instead of an answer; `status` is 0 where it said nothing at all. */
export class Refused extends Error {
  constructor(status, code, detail) {
    super(detail || code);
    this.status = status;
    this.code = code;
  }

  /** Whether signing in may help. */
  get needsSession() {
    return ["sign_in_needed", "no_token", "csrf_wrong"].includes(this.code);
  }
}

let csrf = null;

async function ask(method, path, { body, signal, secondsMax = SECONDS_MAX } = {}) {
  const ended = AbortSignal.timeout(secondsMax * 1000);
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrf !== null) headers["X-CSRF-Token"] = csrf;
  let response;
  let text;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, ended]) : ended,
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "unreachable", ended.aborted ? `No answer within ${secondsMax} s.` : "The server does not answer.");
  }
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new Refused(response.status, "unreadable", `The server answered ${response.status}, but not with JSON.`);
  }
  if (!response.ok) {
    throw new Refused(response.status, answer?.error ?? `http_${response.status}`, answer?.detail ?? "");
  }
  return answer;
}

const asked = (values) =>
  new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== ""));

export const live = (signal) => ask("GET", "/api/live", { signal });
export const consumers = (signal) => ask("GET", "/api/consumers", { signal });

export const arrivals = (query, signal) => ask("GET", `/api/events?${asked(query)}`, { signal });
export const event = (id, signal) => ask("GET", `/api/events/${encodeURIComponent(id)}`, { signal });
export const object = (id, query, signal) => ask("GET", `/api/objects/${encodeURIComponent(id)}?${asked(query)}`, { signal });
export const parked = (topic, query, signal) => ask("GET", `/api/parked/${topic}?${asked(query)}`, { signal });

export const replay = (topic, places, dryRun) =>
  ask("POST", `/api/parked/${topic}/replay`, { body: { places, dry_run: dryRun }, secondsMax: REPLAY_SECONDS_MAX });

/** Who the server takes us for; remembers the token that goes with what changes something. */
export async function session() {
  const found = await ask("GET", "/api/session");
  csrf = found.csrf;
  return found;
}

export const signIn = (token) => ask("POST", "/api/session", { body: { token } });
export const signOut = () => ask("DELETE", "/api/session");
