/** The part "attention" of the view "Look inside": who looks at whom. */

import { Cell } from "./cell.js";
import { debounced, element, named, percent } from "./dom.js";
import { Heads } from "./heads.js";
import { Matrix } from "./matrix.js";
import { Question } from "./question.js";
import { Shades } from "./shades.js";
import { Words, largest } from "./words.js";

const WAIT = 60; // milliseconds for which a word stays the same before its exact numbers are asked for
const N_MOST = 1024; // rows and columns of a picture
const ROOM = 420; // CSS pixels that a picture should fill
const MARGIN = 40; // CSS pixels on both sides of it
const LARGEST = 18; // CSS pixels of a cell
const N_NAMED = 6; // words whose weight is said
const ALL = { mean: "average of all heads of the layer", max: "maximum of all heads of the layer" };

export class Attention {
  #shades = null; // of the picture that is shown
  #which = null; // what was asked for it
  #free = null; // the one without the mask
  #revealed = null; // the token to which the words were scrolled
  #subject = null; // the word under the cursor; null: the locked token
  #exact = { row: null, values: [] };
  #readSoon = debounced(() => this.#readRow(), WAIT);

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the part goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   */
  constructor({ root, address, work }) {
    Object.assign(this, { address });
    this.questions = {
      picture: new Question(work, "Looking at a head"),
      unmasked: new Question(work, "Looking at a head without the mask"),
      row: new Question(work, "Reading a row"),
    };
    this.which = element("select", { onchange: () => this.#read() }, element("option", { value: "" }, "the chosen head"),
      ...Object.entries(ALL).map(([value, name]) => element("option", { value }, `${name} (derived)`)));
    this.turned = element("select", { onchange: () => this.#shade() },
      element("option", { value: "" }, "where a word looks"), element("option", { value: "turned" }, "who looks at a word"));
    this.words = new Words({
      label: "The words of the text: the arrows show the attention of another one, Enter chooses it",
      onHover: (index) => this.#hoverWord(index),
      onChoose: (token) => this.address.go({ token, cell: null }),
    });
    this.readout = element("p", { className: "readout", "aria-live": "polite" });
    root.append(
      element("div", { className: "look-lock" }, element("label", {}, "Show ", this.which), element("label", {}, "Shade ", this.turned)),
      this.words.element, this.readout);
    const columns = element("div", { className: "attention-columns" });
    root.append(columns);
    this.#buildLarge(columns);
    this.heads = new Heads({ root: columns, address, work });
    this.cell = new Cell({ root: this.large, address, work });
    this.#clear();
  }

  #buildLarge(root) {
    this.title = element("h2", {});
    this.matrix = new Matrix({
      label: "", onHover: (row, column) => this.#hoverCell(row, column), onChoose: (row, column) => this.#choose(row, column),
    });
    this.without = new Matrix({ label: "", onHover: (row, column) => this.#hoverCell(row, column, this.#free) });
    this.unmasked = element("input", { type: "checkbox", onchange: () => this.#readUnmasked() });
    this.about = element("p", { className: "faint" });
    this.withoutFigure = element("figure", { hidden: true },
      element("div", { className: "scroll-box" }, this.without.element),
      element("figcaption", { className: "faint" },
        "Derived: without the mask, from the same queries and keys. The mask hides what is above the diagonal."));
    this.pair = element("p", { className: "readout", "aria-live": "polite" });
    this.large = element("section", { className: "card", "aria-label": "One head" }, this.title,
      element("label", { className: "switch" }, this.unmasked, "Beside it, the same without the mask"),
      element("div", { className: "pictures" },
        element("figure", {}, element("div", { className: "scroll-box" }, this.matrix.element), element("figcaption", {}, this.about)),
        this.withoutFigure),
      this.pair);
    root.append(this.large);
  }

  /** Shows the state of the address: one thing after another, since the model computes them one by one anyway. */
  async show(state, pass) {
    if (pass !== this.pass) this.#clear();
    Object.assign(this, { state, pass });
    this.words.show(pass.tokens);
    await this.#read();
    if (state === this.state) this.heads.show(state, pass);
  }

  /** Forgets the numbers of another text or model. */
  #clear() {
    for (const each of [this.words.element, this.readout, this.large]) each.hidden = true;
    this.#shades = this.#revealed = this.#subject = null;
  }

  get #request() {
    const { text, layer, head, changes } = this.state;
    return { text, name: `h${layer}/attn/weights`, head: this.which.value || head, changes };
  }

  async #read() {
    const { state, pass } = this;
    const request = this.#request;
    const isHead = typeof request.head === "number";
    const asked = this.questions.picture.ask({ kind: "array", ...request, n_most: N_MOST }, pass.model);
    this.#readUnmasked();
    this.#explain(isHead);
    const [picture] = (await asked) ?? [];
    if (state !== this.state || request.head !== this.#request.head) return;
    for (const each of [this.words.element, this.readout, this.large]) each.hidden = !picture;
    if (!picture) return;
    if (picture !== this.#shades?.picture) this.#draw(picture, request);
    const { cell, name } = state;
    const { step } = picture;
    this.matrix.markRow(Math.floor(state.token / step[0]));
    const isMarked = isHead && cell && name === request.name && cell[1] === request.head;
    this.matrix.mark(...(isMarked ? [Math.floor(cell[2] / step[0]), Math.floor(cell[3] / step[1])] : []));
    this.#shade();
    if (state.token !== this.#revealed) this.words.reveal(state.token);
    this.#revealed = state.token;
  }

  #draw(picture, request) {
    this.#drawInto(this.matrix, picture);
    this.#shades = new Shades(picture, this.matrix.bytes);
    this.#which = request;
    this.#exact.row = null;
    this.pair.replaceChildren();
    const { layer, head } = this.state;
    const all = ALL[this.which.value];
    this.title.textContent = all ? `Layer ${layer}, ${all}` : `Layer ${layer}, head ${head}`;
    const why = [...(all ? [all] : []), ...(picture.step.some((n) => n > 1) ? ["a cell is the largest of several"] : [])];
    this.about.textContent = "Each row is a token that looks, each column one that it looks at; the darker, the more "
      + `(on dark paper, the brighter), up to ${percent(picture.high)}.${why.length ? ` Derived: ${why.join("; ")}.` : ""}`;
    this.matrix.label = `${this.title.textContent}: weights; the arrows move from weight to weight, Enter explains one`;
  }

  #drawInto(matrix, picture) {
    const labels = this.pass.tokens.length === picture.rows ? this.pass.tokens.map(({ text }) => text) : [];
    const most = Math.floor((this.large.clientWidth - MARGIN) / picture.rows);
    const width = Math.max(1, Math.min(LARGEST, most, Math.round(ROOM / picture.rows)));
    matrix.draw(picture, { width, rowLabels: labels, columnLabels: labels });
  }

  async #readUnmasked() {
    const { state, pass } = this;
    const { text, layer, head, changes } = state;
    const isOne = !this.which.value;
    this.unmasked.disabled = !isOne;
    const isShown = isOne && this.unmasked.checked;
    if (!isShown) this.questions.unmasked.stop();
    const request = { kind: "unmasked", text, layer, head, changes };
    const asked = isShown ? await this.questions.unmasked.ask(request, pass.model) : undefined;
    if (state !== this.state) return;
    this.withoutFigure.hidden = !asked;
    if (!asked || asked[0] === this.#free?.picture) return;
    this.without.label = `Layer ${layer}, head ${head}: weights without the mask, derived`;
    this.#drawInto(this.without, asked[0]);
    this.#free = new Shades(asked[0], this.without.bytes);
  }

  #explain(isHead) {
    const { name, cell } = this.state;
    this.cell.element.hidden = !isHead;
    if (isHead) this.cell.show({ ...this.state, cell: name === this.#request.name ? cell : null }, this.pass);
  }

  /** Shades the words by the weights of the word under the cursor, or else of the locked token. */
  #shade() {
    if (!this.#shades) return;
    const subject = this.#subject ?? this.state.token;
    this.words.shade(this.#weights(subject), subject);
    this.#say();
    if (this.#isExact) this.#readSoon();
  }

  /** Whether the exact numbers can be asked for: those of a row of one head. */
  get #isExact() {
    return typeof this.#which.head === "number" && !this.turned.value;
  }

  #weights(subject) {
    return this.pass.tokens.map((_, i) => (this.turned.value ? this.#shades.at(i, subject) : this.#shades.at(subject, i)));
  }

  async #readRow() {
    const row = this.#subject ?? this.state.token;
    const shades = this.#shades;
    if (!shades || !this.#isExact || this.#exact.row === row) return;
    const [found] = (await this.questions.row.ask({ kind: "row", ...this.#which, row }, this.pass.model)) ?? [];
    if (!found || shades !== this.#shades) return;
    this.#exact = { row, values: found.values };
    this.#say();
  }

  /** Says which words have the largest weights. */
  #say() {
    const subject = this.#subject ?? this.state.token;
    const isExact = this.#isExact && this.#exact.row === subject;
    const weights = isExact ? this.#exact.values : this.#weights(subject);
    const lookedAt = largest(weights, N_NAMED);
    const list = lookedAt.flatMap((i, k) => [k ? ", " : "", this.#word(i), ` ${isExact ? "" : "≈ "}${percent(weights[i])}`]);
    const verb = this.turned.value ? " is looked at by " : " looks at ";
    this.readout.replaceChildren(this.#word(subject), verb, ...(list.length ? list : ["nothing"]), ".");
  }

  #word(i) {
    return named(this.pass.tokens[i].text);
  }

  #hoverWord(index) {
    this.#subject = index;
    this.#shade();
  }

  #hoverCell(row, column, shades = this.#shades) {
    const [i, j] = [row * shades.picture.step[0], column * shades.picture.step[1]];
    const weight = this.#exact.row === i && shades === this.#shades && this.#isExact
      ? percent(this.#exact.values[j]) : `≈ ${percent(shades.at(i, j))}`;
    this.pair.replaceChildren(this.#word(i), " looks at ", this.#word(j), `: ${weight}`);
  }

  #choose(row, column) {
    const { step } = this.#shades.picture;
    const { name, head } = this.#which;
    const [i, j] = [row * step[0], column * step[1]];
    this.address.go({ token: i, ...(typeof head === "number" ? { name, cell: [0, head, i, j] } : { cell: null }) });
  }
}
