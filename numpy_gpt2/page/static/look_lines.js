/** The part "lines" of the view "Look inside": a pass statement by statement, with the real value of each. */

import { lastAnswer } from "./answers.js";
import { Cell } from "./cell.js";
import { element } from "./dom.js";
import { isPlain } from "./keys.js";
import { Large } from "./large.js";
import { general, inLayer, isInBlock, partOf } from "./names.js";
import { Overview } from "./overview.js";
import { Question } from "./question.js";
import { Source } from "./source.js";

const SMALL = 44; // rows and columns of a small picture
const STEPS = { p: -1, n: 1 }; // keys

export class Lines {
  #isStepping = false; // to the array that is shown next
  #lines = null; // the answer that is shown
  #functions = new Map(); // by name
  #arrays = []; // of the pass: before the blocks, in one of them, and after them
  #small = new Map(); // small pictures, by name and head

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the part goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor(parts) {
    Object.assign(this, parts);
    const { root, work } = parts;
    this.questions = {
      lines: new Question(work, "Reading the statements"),
      small: new Question(work, "Drawing the arrays"),
    };
    const button = (key, text) => element("button", { type: "button", onclick: () => this.#step(STEPS[key]) },
      text, " ", element("kbd", {}, key.toUpperCase()));
    this.buttons = { p: button("p", "Previous"), n: button("n", "Next") };
    this.where = element("p", { role: "status" });
    this.columns = element("div", { className: "lines-columns" });
    const side = element("div", { className: "lines-side" });
    this.overview = new Overview(parts);
    root.append(element("div", { className: "stepper" }, this.buttons.p, this.buttons.n, this.where), this.columns);
    this.source = new Source({ ...parts, root: this.columns });
    this.columns.append(side);
    this.large = new Large({ ...parts, root: side, onReveal: () => root.focus() });
    this.cell = new Cell({ ...parts, root: side });
    root.tabIndex = -1; // a click into the part gives it the keys
    root.addEventListener("keydown", (event) => this.#onKey(event));
    this.guessing.addEventListener("change", () => this.#lines && this.show(this.state, this.pass));
  }

  /** Shows the state of the address. */
  async show(state, pass) {
    const changes = JSON.stringify(state.changes);
    if (pass !== this.pass || changes !== JSON.stringify(this.state.changes)) this.#clear();
    Object.assign(this, { state, pass });
    const request = { kind: "lines", text: state.text, layer: state.layer, changes: state.changes };
    const lines = await this.questions.lines.ask(request, pass.model);
    if (state !== this.state) return;
    if (!lines) this.#clear();
    else {
      this.#take(lines);
      this.#keepingFocus(() => this.#show());
      if (this.#isStepping) this.source.reveal();
      this.#isStepping = false;
    }
  }

  /** Does something after which the focus, if it was in this part, is there still: its keys go on working. */
  #keepingFocus(action) {
    const had = this.root.contains(document.activeElement);
    action();
    const { activeElement } = document;
    const isThere = this.root.contains(activeElement) && activeElement.checkVisibility() && !activeElement.matches(":disabled");
    if (had && !isThere) this.root.focus();
  }

  /** Forgets the numbers of another text, of another model or without the changes. */
  #clear() {
    this.#lines = null;
    this.#arrays = [];
    this.#small.clear();
    this.questions.small.stop();
    this.#hide(true);
  }

  #hide(isHidden) {
    for (const each of this.root.children) each.hidden = isHidden;
  }

  #take(lines) {
    if (lines === this.#lines) return;
    this.#lines = lines;
    this.#arrays = lines.filter((line) => "name" in line);
    this.#functions = new Map(lines.filter((line) => !("name" in line)).map((line) => [line.function, line]));
  }

  #show() {
    const { at } = this;
    const state = { ...this.state, name: at.name, cell: fits(this.state.cell, at.shape) ? this.state.cell : null };
    this.#hide(false);
    this.overview.show(state, this.pass, this.#arrays, at.name);
    const call = callOf(at, this.#arrays);
    this.source.show(this.#functions.get(at.function) ?? unknown(at), call, at, this.#arrays);
    this.#showPlace();
    this.large.show(state, this.pass, at);
    const isCovered = this.guessing.covers(at.name);
    this.cell.element.hidden = isCovered;
    if (!isCovered) this.cell.show(state, this.pass);
    this.#drawSmall(call);
  }

  /** The array where one is, in the block whose lines have come; the first one, if the address names none of them. */
  get at() {
    const here = general(this.state.name);
    const isHere = ({ name, also }) => general(name) === here || (also !== null && general(also) === here);
    return this.#arrays.find(isHere) ?? this.#arrays[0];
  }

  #showPlace() {
    const n = this.#total;
    const i = this.#place;
    this.where.replaceChildren(`Statement ${i + 1} of ${n}: `, element("code", {}, this.at.name));
    this.buttons.p.disabled = i === 0;
    this.buttons.n.disabled = i === n - 1;
  }

  /** Draws the small pictures of a call, one after another. */
  #drawSmall(call) {
    const { text, changes, head } = this.state;
    const arrays = call.map(({ name, n_heads }) => ({ name, head: n_heads === null ? null : head }));
    const request = { kind: "array", text, changes, n_most: SMALL, arrays };
    this.questions.small.ask(request, this.pass.model, (...asked) => this.#readSmall(...asked));
  }

  async #readSmall({ arrays, ...request }, signal) {
    for (const array of arrays) {
      const key = JSON.stringify(array);
      const picture = this.#small.get(key) ?? await lastAnswer({ ...request, ...array }, signal);
      signal.throwIfAborted();
      this.#small.set(key, picture);
      this.source.draw(array.name, picture);
    }
    return true;
  }

  #onKey(event) {
    const isTyped = event.target.closest("input, select, textarea");
    if (isTyped || !isPlain(event) || !(event.key in STEPS)) return;
    event.preventDefault();
    this.#step(STEPS[event.key]);
  }

  /** Goes to the next statement of the whole pass (1) or the one before (-1). */
  #step(step) {
    if (!this.#lines) return;
    const place = this.#place + step;
    if (place < 0 || place >= this.#total) return;
    const { begin, size, n_layer } = this.#sizes;
    const last = begin + n_layer * size;
    if (place < begin) this.#goTo(this.#arrays[place].name);
    else if (place >= last) this.#goTo(this.#arrays[place - last + begin + size].name);
    else {
      const layer = Math.floor((place - begin) / size);
      this.#goTo(inLayer(this.#arrays[begin + ((place - begin) % size)].name, layer), layer);
    }
  }

  #goTo(name, layer = this.state.layer) {
    this.#isStepping = true;
    this.address.go({ name, layer, cell: null }, { replace: true });
  }

  /** How many arrays are before the blocks and in each, and how many blocks there are. */
  get #sizes() {
    const inside = this.#arrays.filter(({ name }) => isInBlock(name));
    return { begin: this.#arrays.indexOf(inside[0]), size: inside.length, n_layer: this.pass.n_layer };
  }

  /** How many statements the whole pass has. */
  get #total() {
    return this.#arrays.length + (this.pass.n_layer - 1) * this.#sizes.size;
  }

  /** Which statement of the whole pass this is. */
  get #place() {
    const { begin, size, n_layer } = this.#sizes;
    const i = this.#arrays.indexOf(this.at);
    const n_before = i < begin ? 0 : i < begin + size ? this.state.layer : n_layer - 1;
    return i + n_before * size;
  }
}

const fits = (cell, shape) => cell?.length === shape.length && cell.every((i, axis) => i < shape[axis]);

/** What is shown for a line whose function is not known. */
const unknown = ({ line, source }) => ({ function: "?", file: "unknown", first: line, lines: [source], docstring: null });

/**
 * The arrays that were computed in the same call of a function as one of them. A function may be called several times in
 * a part of the model, as `linear` is: then a line comes again, or an earlier one.
 */
function callOf(at, arrays) {
  const part = partOf(at.name);
  let call = [];
  let isFound = false;
  arrays.forEach((array, i) => {
    if (array.function !== at.function || partOf(array.name) !== part || (isFound && !call)) return;
    const last = call.at(-1);
    const isNew = last && (array.line < last.line || (array.line === last.line && arrays[i - 1] !== last));
    if (isNew && call.includes(at)) isFound = true;
    else if (isNew) call = [array];
    else if (!isFound) call.push(array);
  });
  return call;
}
