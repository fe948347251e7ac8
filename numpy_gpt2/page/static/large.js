/** One array of a pass, large: its picture, the number under the cursor, and the locked cell. */

import { debounced, element, number, shown } from "./dom.js";
import { ShapeGuess } from "./guess.js";
import { Matrix } from "./matrix.js";
import { Question } from "./question.js";

const WAIT = 60; // milliseconds for which the mouse stays in a row before its numbers are asked for
const N_MOST = 1024; // rows and columns of a picture
const N_ROWS = 64; // whose numbers are kept
const ROOM = { width: 460, height: 420 }; // CSS pixels that a picture should fill, where its cells are not too small
const [SMALLEST, LARGEST] = [2, 18]; // CSS pixels of a cell
const ZOOM = 1.5;

export class Large {
  #picture = null; // the answer that is shown; null while another one is awaited
  #which = null; // the array of that picture, as it was asked for
  #asked = null; // the array and the model of the picture that is shown or awaited
  #rows = new Map(); // the exact numbers of its rows, by number
  #hovered = null; // row and column of the picture
  #zoom = 1;
  #readSoon = debounced(() => this.#readHovered(), WAIT);

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the array goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {import("./guess.js").Guessing} parts.guessing
   * @param {() => void} parts.onReveal as for `ShapeGuess`
   */
  constructor({ root, address, work, guessing, onReveal }) {
    Object.assign(this, { address, guessing });
    this.questions = {
      picture: new Question(work, "Looking at an array"),
      hovered: new Question(work, "Reading a row"),
      chosen: new Question(work, "Reading the row of a number"),
    };
    this.title = element("h2", {});
    this.about = element("p", { className: "faint" });
    this.matrix = new Matrix({
      label: "", onHover: (row, column) => this.#hover(row, column), onChoose: (row, column) => this.#choose(row, column),
    });
    this.scale = new Matrix({ label: "The colours, from the smallest value to the largest" });
    this.ends = [element("span", { className: "number" }), element("span", { className: "number" })];
    const zoom = (label, factor) => element("button", {
      type: "button", className: "small", "aria-label": label, onclick: () => this.#enlarge(factor),
    }, factor > 1 ? "+" : "−");
    const tools = element("div", { className: "large-tools" },
      this.ends[0], this.scale.element, this.ends[1], zoom("Smaller cells", 1 / ZOOM), zoom("Larger cells", ZOOM));
    this.readout = element("p", { className: "readout", "aria-live": "polite" });
    this.box = element("div", { className: "large-box" }, this.matrix.element);
    this.body = element("div", { className: "large-body" }, this.about, tools, this.box, this.readout);
    this.element = element("section", { className: "large", "aria-label": "The array" }, this.title, this.body);
    this.guess = new ShapeGuess({ root: this.element, guessing, onReveal });
    root.append(this.element);
  }

  /**
   * Shows an array.
   * @param {object} state of the address, with a `cell` only if the array has it
   * @param {object} pass
   * @param {object} array as the answer to `lines` has it
   */
  async show(state, pass, array) {
    Object.assign(this, { state, pass, array });
    const isCovered = this.guessing.covers(array.name);
    this.title.replaceChildren(element("code", {}, array.name));
    this.body.hidden = isCovered;
    this.guess.element.hidden = !isCovered;
    if (isCovered) this.guess.ask(array, pass);
    else await this.#read();
  }

  async #read() {
    const { state, pass } = this;
    const { text, changes, head, cell } = state;
    const { name, n_heads } = this.array;
    const which = { text, name, changes, head: n_heads === null ? null : (cell?.[1] ?? head) };
    const asked = JSON.stringify([which, pass.model]);
    if (asked !== this.#asked) this.#forget();
    this.#asked = asked;
    const [picture] = (await this.questions.picture.ask({ kind: "array", ...which, n_most: N_MOST }, pass.model)) ?? [];
    if (state !== this.state) return;
    this.body.hidden = !picture;
    if (!picture) return;
    if (picture !== this.#picture) this.#draw(picture, which);
    this.#mark();
  }

  /** Takes the numbers of another array away; where they were, stays empty until those of this one come. */
  #forget() {
    this.questions.hovered.stop();
    this.questions.chosen.stop();
    this.#readSoon.cancel();
    this.#rows.clear();
    this.#picture = this.#hovered = null;
    this.body.setAttribute("aria-busy", "true");
    this.readout.replaceChildren();
  }

  #draw(picture, which) {
    this.#picture = picture;
    this.#which = which;
    this.body.removeAttribute("aria-busy");
    this.#zoom = 1;
    const { name, shape, axes, n_heads } = this.array;
    const { low, high, is_signed, step } = picture;
    const part = n_heads > this.pass.n_head ? "the queries of head" : "head"; // qkv begins with the queries
    const head = n_heads === null ? "" : `, of which the picture shows ${part} ${which.head}`;
    const thinned = step.some((n) => n > 1)
      ? ` Derived: a cell stands for ${step.join(" × ")} numbers, and has the one farthest from 0.` : "";
    this.about.textContent = `[${shape.join(", ")}] ${axes}${head}.${thinned}`;
    this.matrix.label = `${name}: the arrows move from number to number, Enter explains one`;
    this.matrix.draw(picture, this.#size);
    this.scale.draw({ rows: 1, columns: 255, bytes: EVERY_BYTE, is_signed }, { width: 0.4, height: 10 });
    [low, high].forEach((end, i) => (this.ends[i].textContent = number(end)));
  }

  /** The size of the cells, and the labels. */
  get #size() {
    const { rows, columns, row_labels, column_labels } = this.#picture;
    const fit = (room, n) => Math.max(SMALLEST, Math.min(LARGEST, Math.floor(room / n)));
    let [width, height] = [fit(ROOM.width, columns), fit(ROOM.height, rows)];
    if (column_labels) width = height = Math.min(width, height);
    const labels = (kind) => (kind === "tokens" ? this.pass.tokens.map(({ text }) => text) : []);
    return {
      width: width * this.#zoom,
      height: height * this.#zoom,
      rowLabels: labels(row_labels),
      columnLabels: labels(column_labels),
    };
  }

  #enlarge(factor) {
    if (!this.#picture) return;
    this.#zoom = Math.max(ZOOM ** -2, Math.min(ZOOM ** 6, this.#zoom * factor));
    this.matrix.resize(this.#size);
    this.#mark();
  }

  #mark() {
    const { token, cell } = this.state;
    const { step, row_labels } = this.#picture;
    this.matrix.markRow(row_labels ? Math.floor(token / step[0]) : undefined);
    if (!cell) this.matrix.mark();
    else this.matrix.mark(Math.floor((cell.at(-2) ?? 0) / step[0]), Math.floor(cell.at(-1) / step[1]));
  }

  #hover(row, column) {
    if (!this.#picture) return;
    this.#hovered = [row, column];
    this.#say();
    if (this.#rows.has(row)) this.#readSoon.cancel();
    else this.#readSoon();
  }

  async #readHovered() {
    const [row] = this.#hovered;
    const isRead = await this.#readRow(row, this.questions.hovered);
    if (isRead && this.#hovered?.[0] === row) this.#say();
  }

  /** Reads the exact numbers of a row of the picture, and says whether they have come. */
  async #readRow(row, question) {
    if (this.#rows.has(row)) return true;
    const picture = this.#picture;
    const request = { kind: "row", ...this.#which, row: row * picture.step[0] };
    const [found] = (await question.ask(request, this.pass.model)) ?? [];
    if (!found || picture !== this.#picture) return false;
    this.#rows.set(row, found.values);
    if (this.#rows.size > N_ROWS) this.#rows.delete(this.#rows.keys().next().value);
    return true;
  }

  /** Says which number is under the cursor. */
  #say() {
    const [row, column] = this.#hovered;
    const values = this.#rows.get(row);
    if (!values) {
      this.readout.replaceChildren("…");
      return;
    }
    const index = this.#index(row, column);
    const { row_labels, column_labels } = this.#picture;
    const value = element("strong", { className: "number" }, number(values[index.at(-1)], 6));
    this.readout.replaceChildren(element("code", {}, `[${index.join(", ")}]`), " = ", value,
      ...this.#token(row_labels, " at ", index.at(-2)), ...this.#token(column_labels, " for ", index.at(-1)));
  }

  #token(labels, word, i) {
    if (labels !== "tokens") return [];
    return [word, element("span", { className: "token-text" }, ...shown(this.pass.tokens[i].text))];
  }

  /** The index in the array of a cell of the picture: of the number farthest from 0, if it stands for several. */
  #index(row, column) {
    const { step } = this.#picture;
    const { shape } = this.array;
    const first = column * step[1];
    const size = (value) => (typeof value === "number" ? Math.abs(value) : -1); // what is not finite, is not shown
    const group = this.#rows.get(row)?.slice(first, first + step[1]) ?? [];
    const i = group.reduce((best, value, k) => (size(value) > size(group[best]) ? k : best), 0);
    const batch = { 3: [0], 4: [0, this.#which.head] }[shape.length] ?? [];
    return [...batch, ...(shape.length > 1 ? [row * step[0]] : []), first + i];
  }

  async #choose(row, column) {
    const picture = this.#picture;
    if (!picture) return;
    const isSeveral = picture.step[1] > 1; // numbers, of which the cell shows one
    if (isSeveral && !(await this.#readRow(row, this.questions.chosen))) return;
    const cell = this.#index(row, column);
    const { row_labels } = picture;
    const head = this.array.n_heads === this.pass.n_head ? { head: cell[1] } : {};
    this.address.go({ name: this.array.name, cell, ...head, ...(row_labels ? { token: cell.at(-2) } : {}) });
  }
}

const EVERY_BYTE = btoa(String.fromCharCode(...Array.from({ length: 255 }, (_, i) => i + 1)));
