/** A matrix as a picture: one pixel of a canvas for each cell, enlarged by the browser without smoothing. */

import { element, shown } from "./dom.js";
import { ACROSS, isPlain } from "./keys.js";
import { palette } from "./palette.js";

const LEGIBLE = 11; // pixels from one label to the next; where cells are smaller, there are no labels

/** Paints all matrices of the page again, in the colours of another theme. */
export function repaint() {
  for (const canvas of document.querySelectorAll("canvas.matrix-cells")) canvas.dispatchEvent(new Event("repaint"));
}

/**
 * A picture to look at or, with `onHover` or `onChoose`, to go through with the mouse or the arrow keys. Rows and columns
 * are those of the picture, of which each may stand for several of the array (`step`).
 */
export class Matrix {
  #picture = null;
  #bytes = null;
  #pointed = null; // where the mouse is, until the next frame
  #at = [0, 0]; // the cell that the keys have reached
  #cursor = element("div", { className: "matrix-cursor", hidden: true });
  #chosen = element("div", { className: "matrix-chosen", hidden: true });
  #row = element("div", { className: "matrix-row", hidden: true });
  #rowLabels = element("div", { className: "matrix-row-labels", "aria-hidden": "true" });
  #columnLabels = element("div", { className: "matrix-column-labels", "aria-hidden": "true" });

  /**
   * @param {object} options
   * @param {string} options.label its name for screen readers
   * @param {(row: number, column: number) => void} [options.onHover] the mouse or the keys have come to a cell
   * @param {(row: number, column: number) => void} [options.onChoose] a cell was clicked, or chosen by Enter
   */
  constructor({ label, onHover, onChoose }) {
    Object.assign(this, { onHover, onChoose });
    this.canvas = element("canvas", { className: "matrix-cells", width: 0, height: 0 });
    this.cells = element("div", { className: "matrix-field" }, this.canvas, this.#row, this.#chosen, this.#cursor);
    this.element = element("div", { className: "matrix" }, this.#columnLabels, this.#rowLabels, this.cells);
    this.label = label;
    this.canvas.addEventListener("repaint", () => this.#paint());
    if (onHover || onChoose) this.#listen();
    else this.element.setAttribute("role", "img");
  }

  /** The bytes of the picture, row by row. */
  get bytes() {
    return this.#bytes;
  }

  set label(label) {
    this.element.setAttribute("aria-label", label);
  }

  /**
   * Shows a picture.
   * @param {{rows: number, columns: number, bytes: string, is_signed: boolean}} picture as the server makes them
   * @param {object} size
   * @param {number} size.width of each cell, in CSS pixels
   * @param {number} [size.height]
   * @param {string[]} [size.rowLabels] shown where the cells are large enough
   * @param {string[]} [size.columnLabels]
   */
  draw(picture, size) {
    this.#picture = picture;
    this.#bytes = decoded(picture.bytes);
    this.#at = [Math.min(this.#at[0], picture.rows - 1), Math.min(this.#at[1], picture.columns - 1)];
    this.#paint();
    this.resize(size);
    if (this.onHover || this.onChoose) this.element.tabIndex = 0;
  }

  /** Shows the same picture in another size, as for `draw`; the marks are to be set again. */
  resize({ width, height = width, rowLabels = [], columnLabels = [] }) {
    const { rows, columns } = this.#picture;
    this.cell = { width, height };
    this.canvas.style.width = `${columns * width}px`;
    this.canvas.style.height = `${rows * height}px`;
    this.element.style.setProperty("--cell-width", `${width}px`);
    this.element.style.setProperty("--cell-height", `${height}px`);
    const labels = (texts) => texts.map((text) => element("span", {}, ...shown(text)));
    this.#rowLabels.replaceChildren(...(height < LEGIBLE ? [] : labels(rowLabels)));
    this.#columnLabels.replaceChildren(...(width < LEGIBLE ? [] : labels(columnLabels)));
    this.#columnLabels.classList.toggle("is-short", columnLabels.every((text) => text.length === 1)); // need not be turned
    this.#cursor.hidden = true;
  }

  /** Frames a cell as the chosen one, or none. */
  mark(row, column) {
    this.#frame(this.#chosen, row, column);
    if (row !== undefined) this.#at = [row, column];
  }

  /** Frames a row, or none. */
  markRow(row) {
    this.#row.hidden = row === undefined;
    if (row === undefined) return;
    this.#row.style.top = `${row * this.cell.height}px`;
    this.#row.style.height = `${this.cell.height}px`;
  }

  #paint() {
    if (!this.#picture) return;
    const { rows, columns, is_signed } = this.#picture;
    const colours = new Uint32Array(palette(is_signed).buffer);
    const pixels = new Uint32Array(this.#bytes).map((byte) => colours[byte]); // Uint32Array.from would be 15 times slower
    Object.assign(this.canvas, { width: columns, height: rows });
    const image = new ImageData(new Uint8ClampedArray(pixels.buffer), columns, rows);
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  #listen() {
    this.element.setAttribute("role", "application");
    this.element.setAttribute("aria-roledescription", "matrix");
    this.cells.addEventListener("pointermove", (event) => this.#point(event));
    this.cells.addEventListener("pointerleave", () => this.#leave());
    this.cells.addEventListener("click", (event) => this.#choose(...this.#cellAt(event)));
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.element.addEventListener("focus", () => this.element.matches(":focus-visible") && this.#hover(...this.#at));
    this.element.addEventListener("blur", () => (this.#cursor.hidden = true));
  }

  /** Follows the mouse, once a frame. */
  #point({ clientX, clientY }) {
    if (!this.#pointed) requestAnimationFrame(() => this.#pointed && this.#hover(...this.#cellAt(this.#pointed)));
    this.#pointed = { clientX, clientY };
  }

  #leave() {
    this.#pointed = null;
    this.#cursor.hidden = true;
  }

  #cellAt({ clientX, clientY }) {
    const { left, top } = this.canvas.getBoundingClientRect();
    const { rows, columns } = this.#picture;
    const place = (distance, size, n) => Math.max(0, Math.min(n - 1, Math.floor(distance / size)));
    return [place(clientY - top, this.cell.height, rows), place(clientX - left, this.cell.width, columns)];
  }

  #hover(row, column) {
    this.#pointed = null;
    this.#at = [row, column];
    this.#frame(this.#cursor, row, column);
    this.onHover?.(row, column);
  }

  #choose(row, column) {
    this.#hover(row, column);
    this.onChoose?.(row, column);
  }

  #onKey(event) {
    if (!isPlain(event)) return;
    const { rows, columns } = this.#picture;
    const [row, column] = this.#at;
    if (event.key in ACROSS) {
      const [down, right] = ACROSS[event.key];
      this.#hover(Math.max(0, Math.min(rows - 1, row + down)), Math.max(0, Math.min(columns - 1, column + right)));
    } else if (event.key === "Home") this.#hover(row, 0);
    else if (event.key === "End") this.#hover(row, columns - 1);
    else if (event.key === "Enter") this.#choose(row, column);
    else return;
    event.preventDefault();
    this.#cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #frame(frame, row, column) {
    frame.hidden = row === undefined;
    if (row === undefined) return;
    const { width, height } = this.cell;
    frame.style.left = `${column * width}px`;
    frame.style.top = `${row * height}px`;
    frame.style.width = `${width}px`;
    frame.style.height = `${height}px`;
  }
}

/** Bytes that were written in base64. A loop, since there may be a million. */
function decoded(base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}
