/** The logit lens: layers against tokens, of which only what can be seen is in the page. */

import { element, percent, shown } from "./dom.js";
import { ACROSS, isPlain } from "./keys.js";

const WIDTH = 86; // CSS pixels of a column
const HEAD = 60; // CSS pixels of the names of the layers
const HEIGHT = 42; // CSS pixels of a row
const NAMES = 30; // CSS pixels of the row of the tokens
const MARGIN = 3; // columns that are drawn beyond those that can be seen

export class Lens {
  #layers = []; // the lines of the answer
  #at = [0, 0]; // the cell that the keys have reached: a row, and a token
  #drawn = new Map(); // the cells of the columns that are drawn, by token
  #locked = null;

  /**
   * @param {object} options
   * @param {(token: number, layer: number) => void} options.onChoose a cell was chosen; layer -1 is before the first block
   * @param {(token: number) => boolean} options.isCovered whether what is predicted after a token is to be guessed
   */
  constructor({ onChoose, isCovered }) {
    Object.assign(this, { onChoose, isCovered });
    this.rows = element("div", { className: "lens-rows" });
    this.element = element("div", {
      className: "lens scroll-box", role: "grid", tabIndex: 0,
      "aria-label": "Predictions of each layer at each token: the arrows move from cell to cell, Enter locks one",
    }, this.rows);
    this.element.addEventListener("scroll", () => requestAnimationFrame(() => this.#draw()));
    new ResizeObserver(() => this.#draw()).observe(this.element);
    this.element.addEventListener("click", ({ target }) => this.#choose(target.closest("[role='gridcell']")));
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.element.addEventListener("focus", () => this.element.matches(":focus-visible") && this.#begin());
    this.element.addEventListener("blur", () => this.#point(null));
  }

  /** Keeps room for the predictions of a pass. */
  reserve({ n_layer }) {
    this.element.style.minHeight = `${NAMES + HEIGHT * (n_layer + 1)}px`;
  }

  clear() {
    this.#layers = [];
    this.#drawn.clear();
    this.rows.replaceChildren();
  }

  /**
   * Shows the predictions.
   * @param {object[]} layers the lines of the answer to `lens`
   * @param {object} state of the address
   * @param {object} pass
   */
  show(layers, state, pass) {
    const isNew = layers !== this.#layers;
    Object.assign(this, { state, pass });
    this.#layers = layers;
    if (isNew) this.#build();
    this.#erase(() => true);
    this.#draw();
    if (isNew || state.token !== this.#locked) this.#scrollTo(state.token);
    this.#locked = state.token;
    this.#at = [state.layer + 1, state.token];
    if (document.activeElement === this.element) this.#point(this.#cellOf(...this.#at));
  }

  #build() {
    const row = (name) => {
      const header = element("div", { role: "rowheader", className: "lens-layer" }, name);
      return element("div", { role: "row", className: "lens-row" }, header);
    };
    this.rows.replaceChildren(row("token"), ...this.#layers.map(({ name, layer }) => row(layer < 0 ? "x" : name)));
    this.rows.style.width = `${HEAD + WIDTH * this.pass.tokens.length}px`;
    this.element.setAttribute("aria-rowcount", this.#layers.length + 1);
    this.element.setAttribute("aria-colcount", this.pass.tokens.length + 1);
  }

  /** Draws the columns that can be seen. */
  #draw() {
    if (!this.#layers.length) return;
    const { scrollLeft, clientWidth } = this.element;
    const first = Math.max(0, Math.floor(scrollLeft / WIDTH) - MARGIN);
    const last = Math.min(this.pass.tokens.length, Math.ceil((scrollLeft + clientWidth) / WIDTH) + MARGIN);
    this.#erase((i) => i < first || i >= last);
    for (let i = first; i < last; i++) {
      if (this.#drawn.has(i)) continue;
      const cells = [this.#token(i), ...this.#layers.map((_, r) => this.#cell(r, i))];
      cells.forEach((cell, row) => this.rows.children[row].append(cell));
      this.#drawn.set(i, cells);
    }
  }

  #erase(isGone) {
    for (const [i, cells] of this.#drawn) {
      if (!isGone(i)) continue;
      for (const cell of cells) cell.remove();
      this.#drawn.delete(i);
    }
  }

  #token(i) {
    const made = element("div", { role: "columnheader", className: "lens-token", "aria-colindex": i + 2, title: `token ${i}` },
      ...shown(this.pass.tokens[i].text));
    if (i === this.state.token) made.classList.add("is-locked");
    return placed(made, i);
  }

  #cell(r, i) {
    const { layer, name } = this.#layers[r];
    const made = element("div", {
      id: `lens-${r}-${i}`, role: "gridcell", className: "lens-cell", "aria-colindex": i + 2,
      "aria-selected": String(i === this.state.token && layer === this.state.layer),
      "aria-label": `${name}, token ${i}: to be guessed`,
    });
    if (this.isCovered(i)) made.textContent = "?";
    else this.#fill(made, r, i);
    if (i === this.state.token) made.classList.add("is-locked");
    return placed(made, i);
  }

  #fill(cell, r, i) {
    const { name, tokens, probabilities } = this.#layers[r];
    const { id, text } = tokens[i];
    const share = percent(probabilities[i]);
    const isNext = id === this.pass.tokens[i + 1]?.id;
    cell.ariaLabel = `${name}, token ${i}: ${text}, ${share}${isNext ? ", the token that follows" : ""}`;
    cell.title = `${text}\n${share}`;
    cell.style.setProperty("--weight", probabilities[i].toFixed(3));
    cell.append(element("span", { className: "lens-text" }, ...shown(text)),
      element("span", { className: "lens-share" }, share, isNext ? " ✓" : ""));
  }

  #scrollTo(token) {
    const { scrollLeft, clientWidth } = this.element;
    const left = token * WIDTH;
    const room = clientWidth - HEAD;
    if (left >= scrollLeft && left + WIDTH <= scrollLeft + room) return;
    this.element.scrollLeft = left - (room - WIDTH) / 2;
    this.#draw();
  }

  #choose(cell) {
    if (!cell) return;
    const [r, i] = cell.id.match(/\d+/g).map(Number);
    this.onChoose(i, this.#layers[r].layer);
  }

  #cellOf(r, i) {
    return this.#drawn.get(i)?.[r + 1];
  }

  #begin() {
    if (this.#layers.length) this.#move(...this.#at);
  }

  #move(r, i) {
    this.#at = [Math.max(0, Math.min(this.#layers.length - 1, r)), Math.max(0, Math.min(this.pass.tokens.length - 1, i))];
    this.#scrollTo(this.#at[1]);
    this.#point(this.#cellOf(...this.#at));
  }

  #point(cell) {
    this.rows.querySelector(".is-pointed")?.classList.remove("is-pointed");
    if (cell) this.element.setAttribute("aria-activedescendant", cell.id);
    else this.element.removeAttribute("aria-activedescendant");
    cell?.classList.add("is-pointed");
    cell?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #onKey(event) {
    if (!isPlain(event) || !this.#layers.length) return;
    const [r, i] = this.#at;
    if (event.key in ACROSS) this.#move(r + ACROSS[event.key][0], i + ACROSS[event.key][1]);
    else if (event.key === "Home") this.#move(r, 0);
    else if (event.key === "End") this.#move(r, Infinity);
    else if (event.key === "Enter") this.#choose(this.#cellOf(r, i));
    else return;
    event.preventDefault();
  }
}

function placed(made, i) {
  made.style.left = `${HEAD + i * WIDTH}px`;
  return made;
}
