// Tables that become cards where there is no room; roles are said, since a card is no table to a browser any more.

import { h } from "./dom.js";

/**
 * A table. `columns` are `{label, kind}` (kind "number", "at", "ref", "type", "place" or "pick", or none); `rows` are `{key, cells, kind}`, a cell being
 * whatever `h` takes. `caption` names it for those who do not see where it stands.
 */
export function table(caption, columns, rows) {
  return h(
    "table",
    { class: "cards", role: "table", "aria-label": caption },
    h(
      "thead",
      { role: "rowgroup" },
      h("tr", { role: "row" }, columns.map(({ label, kind, hidden }) =>
        h("th", { role: "columnheader", scope: "col", class: kind }, hidden ? h("span", { class: "hidden" }, label) : label),
      )),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map(({ key, cells, kind: rowKind }) =>
        h("tr", { role: "row", "data-key": key, class: rowKind }, cells.map((cell, place) =>
          h("td", { role: "cell", class: columns[place].kind, "data-label": columns[place].hidden ? null : columns[place].label }, h("div", null, cell)),
        )),
      ),
    ),
  );
}
