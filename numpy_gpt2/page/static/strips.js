/** The steps of a generation as strips, one below the other: a cell for each position, in the colour of what it is. */

import { element } from "./dom.js";

const LEAST = 2; // CSS pixels of a cell
const MOST = 14;
const WITH_LINES = 5; // the least size of cells that have lines between them

export class Strips {
  #steps = [];
  #at = 0; // the last one that is drawn
  #size = MOST; // of a cell

  /**
   * @param {object} parts
   * @param {(kind: string) => string} parts.colourOf the colour of `past`, `computed` and `later`
   * @param {(step: number) => void} parts.onChoose a strip was clicked
   */
  constructor({ colourOf, onChoose }) {
    this.colourOf = colourOf;
    this.canvas = element("canvas", { className: "matrix-cells" });
    this.frame = element("div", { className: "matrix-row" });
    this.cells = element("div", { className: "matrix-field", role: "img" }, this.canvas, this.frame);
    this.element = element("div", {
      className: "strips", tabIndex: 0, role: "group", "aria-label": "The past, step by step",
    }, this.cells);
    this.canvas.addEventListener("repaint", () => this.#steps.length && this.#paint());
    const stepAt = (y) => Math.min(this.#at, Math.floor(y / this.#size));
    this.canvas.addEventListener("click", ({ offsetY }) => onChoose(stepAt(offsetY)));
  }

  /** Draws the steps up to one, and frames that. */
  draw(steps, at) {
    this.#steps = steps;
    this.#at = at;
    this.#paint();
    this.frame.style.top = `${at * this.#size}px`;
    this.frame.style.height = `${this.#size}px`;
    const { n_past, n_read } = steps[at];
    this.cells.setAttribute("aria-label", n_past
      ? `Step ${at + 1}: positions 0 to ${n_past - 1} are read from the past, position ${n_past} is computed.`
      : `Step 1: positions 0 to ${n_read - 1} are computed.`);
    this.#scrollTo(n_past + n_read, at + 1);
  }

  /** Scrolls the box, not the page, so that the cells up to a place are seen. */
  #scrollTo(column, row) {
    const { clientWidth, clientHeight } = this.element;
    this.element.scrollLeft = (column + 2) * this.#size - clientWidth;
    this.element.scrollTop = (row + 1) * this.#size - clientHeight;
  }

  /** Paints a pixel for each cell, which the browser enlarges. */
  #paint() {
    const [{ n_steps, n_read: n_given }] = this.#steps;
    const columns = n_given + n_steps - 1; // the last token is not read any more
    this.#resize(n_steps, columns);
    const context = this.canvas.getContext("2d");
    const fill = (kind, runs) => {
      context.fillStyle = this.colourOf(kind);
      runs.forEach(([first, n], row) => context.fillRect(first, row, n, 1));
    };
    const drawn = this.#steps.slice(0, this.#at + 1);
    fill("later", Array(n_steps).fill([0, columns]));
    fill("past", drawn.map(({ n_past }) => [0, n_past]));
    fill("computed", drawn.map(({ n_past, n_read }) => [n_past, n_read]));
  }

  #resize(rows, columns) {
    const size = Math.max(LEAST, Math.min(MOST, Math.floor(this.element.clientWidth / columns)));
    this.#size = size;
    Object.assign(this.canvas, { width: columns, height: rows });
    this.canvas.style.width = `${columns * size}px`;
    this.canvas.style.height = `${rows * size}px`;
    this.cells.style.setProperty("--cell", `${size}px`);
    this.cells.classList.toggle("has-lines", size >= WITH_LINES);
  }
}
