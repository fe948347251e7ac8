/** A map of how far the arrays of a pass have moved: arrays by layers. */

import { element, number } from "./dom.js";

export class MovedMap {
  #rows = new Map(); // by the name of the array in its block: a cell for each layer
  #n_layer = 0;

  constructor() {
    this.head = element("thead");
    this.bodies = { before: element("tbody"), blocks: element("tbody"), after: element("tbody") };
    this.element = element("div", {},
      element("p", { className: "faint" },
        "Derived, for each array: the length of the difference between after and before, as a share of the length " +
        "before, over all positions. 0: it is what it was; 1: the difference is as long as the array. What comes before the first change " +
        "cannot move (·)."),
      element("div", { className: "wide", tabIndex: 0, role: "group", "aria-label": "Map of what moved" },
        element("table", { className: "moved" },
          element("caption", { className: "unseen" }, "How far each array moved, by layer"),
          this.head, ...Object.values(this.bodies))));
  }

  /** Begins an empty map of a model with so many layers. */
  begin(n_layer) {
    this.#n_layer = n_layer;
    this.#rows.clear();
    const layers = Array.from({ length: n_layer }, (_, layer) => element("th", { scope: "col" }, `h${layer}`));
    this.head.replaceChildren(element("tr", {}, element("td"), ...layers));
    for (const body of Object.values(this.bodies)) body.replaceChildren();
  }

  /** Adds how far an array moved; null if there was nothing of which that could be a share. */
  set({ name, moved }) {
    const [, layer, inside] = /^h(\d+)(?:\/(.+))?$/.exec(name) ?? [];
    const cell = layer === undefined ? this.#outsideCell(name) : this.#row(inside ?? "")[layer];
    cell.textContent = moved === null ? "–" : number(moved, 2);
    cell.title = `${name}: ${moved === null ? "it was 0 everywhere before" : number(moved, 6)}`;
    cell.classList.toggle("is-still", moved === 0);
    cell.style.setProperty("--share", Math.min(1, moved ?? 0));
  }

  #row(inside) {
    if (!this.#rows.has(inside)) {
      const cells = Array.from({ length: this.#n_layer }, () => element("td", { className: "number is-still" }, "·"));
      this.#rows.set(inside, cells);
      const head = element("th", { scope: "row" }, inside || "the block's result");
      this.bodies.blocks.append(element("tr", {}, head, ...cells));
    }
    return this.#rows.get(inside);
  }

  #outsideCell(name) {
    const cell = element("td", { className: "number" });
    const rest = this.#n_layer > 1 ? [element("td", { colSpan: this.#n_layer - 1 })] : [];
    const body = this.#rows.size ? this.bodies.after : this.bodies.before;
    body.append(element("tr", {}, element("th", { scope: "row" }, name), cell, ...rest));
    return cell;
  }
}
