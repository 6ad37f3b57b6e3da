// Elements from data. Text is only ever made by createTextNode: an event's type or a detail may hold anything.

const SVG = "http://www.w3.org/2000/svg";

function make(node, attributes, children) {
  for (const [attribute, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (attribute === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (attribute === "value") node.value = value;
    else node.setAttribute(attribute, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** An HTML element. Attribute names are ours, never data; `on` holds listeners; null and false leave things out. */
export function h(tag, attributes, ...children) {
  return make(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes, ...children) {
  return make(document.createElementNS(SVG, tag), attributes, children);
}

/** Data as text that cannot reorder what stands beside it. */
export function data(text, attributes) {
  return h("bdi", attributes, text);
}

/** A name made of parts, such as an event's type: it may break between them. Data like any other. */
export function name(text, attributes) {
  return data(String(text).split(/(?<=[._/])/).flatMap((part, place) => (place ? [h("wbr"), part] : [part])), attributes);
}

/** A link to a view of this page: the parts of the path are data, and encoded. */
export function to(path, query, attributes, ...children) {
  return h("a", { href: address(path, query), ...attributes }, ...children);
}

/** The hash of a view: `["event", "evt_1"]` is `#/event/evt_1`. */
export function address(path, query) {
  const parts = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const asked = parts.length ? `?${new URLSearchParams(parts)}` : "";
  return `#/${path.map(encodeURIComponent).join("/")}${asked}`;
}

/**
 * Make `node` look like `wanted`, changing only what differs: what has the focus, is hovered or selected stays itself.
 * Elements with `data-own` look after their content themselves; `data-key` tells apart rows that come and go.
 */
export function morph(node, wanted) {
  if (node.nodeType !== wanted.nodeType || node.nodeName !== wanted.nodeName || key(node) !== key(wanted)) {
    node.replaceWith(wanted);
    return;
  }
  if (node.nodeType === Node.TEXT_NODE) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  if (node.hasAttribute("data-own")) return;
  for (const { name: attribute, value } of [...wanted.attributes]) {
    if (node.getAttribute(attribute) !== value) node.setAttribute(attribute, value);
  }
  for (const { name: attribute } of [...node.attributes]) {
    // Whoever opened a disclosure wants it to stay open.
    if (!wanted.hasAttribute(attribute) && !(attribute === "open" && node.nodeName === "DETAILS")) node.removeAttribute(attribute);
  }
  const coming = [...wanted.childNodes];
  coming.forEach((child, place) => {
    const present = node.childNodes[place];
    if (present) morph(present, child);
    else node.append(child);
  });
  while (node.childNodes.length > coming.length) node.lastChild.remove();
}

function key(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}

const ICONS = {
  check: "M3 8.5l3.2 3.2L13 4.8",
  copy: "M5.5 5.500h7v7h-7z M3.5 10.500v-7h7",
  warning: "M8 2.500l6 11H2z M8 6.500v3 M8 11.600v.1",
  cross: "M4 4l8 8M12 4l-8 8",
  pause: "M5.5 4v8M10.5 4v8",
  clock: "M8 2.500a5.5 5.5 0 1 0 .01 0z M8 5v3.200l2 1.5",
  dot: "M8 6.500a1.5 1.5 0 1 0 .01 0z",
  sun: "M8 5.200a2.8 2.8 0 1 0 .01 0z M8 1.200v1.4 M8 13.400v1.4 M1.2 8h1.4 M13.4 8h1.4 M3.2 3.200l1 1 M11.8 11.800l1 1 M3.2 12.800l1-1 M11.8 4.200l1-1",
  moon: "M13 9.500A5.5 5.5 0 0 1 6.5 3a5.5 5.5 0 1 0 6.5 6.500z",
};

/** Put these after a heading, in place of what stood there; the heading stays, and keeps the focus. */
export function below(head, ...children) {
  while (head.nextSibling) head.nextSibling.remove();
  append(head.parentNode, children);
}

/** A small picture beside words that say the same. */
export function icon(sign) {
  const strokes = { fill: "none", stroke: "currentColor", "stroke-width": "1.8", "stroke-linecap": "round" };
  return s(
    "svg",
    { viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": "true", class: "icon" },
    s("path", { d: ICONS[sign], "stroke-linejoin": "round", ...strokes }),
  );
}

/** Say something to those who do not see it happen. */
export function say(text) {
  const said = document.getElementById("said");
  if (said.textContent !== text) said.textContent = text;
}
