/** The part "lines" of the view "Look inside": a pass statement by statement, with the real value of each. */

import { answer, lastAnswer } from "./answers.js";
import { Cell } from "./cell.js";
import { element } from "./dom.js";
import { Large } from "./large.js";
import { Overview } from "./overview.js";
import { Source } from "./source.js";
import { QUIET } from "./work.js";

const SMALL = 44; // rows and columns of a small picture
const STEPS = { p: -1, n: 1 }; // keys

export class Lines {
  #asked = null; // which statements were asked for
  #job = null;
  #smallJob = null;
  #drawn = null; // which small pictures are drawn, or are going to be
  #functions = new Map(); // by file and name
  #arrays = []; // of the pass: before the blocks, in one of them, and after them
  #small = new Map(); // small pictures, by what was asked

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the part goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor(parts) {
    Object.assign(this, parts);
    const { root } = parts;
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
    this.guessing.addEventListener("change", () => this.state && this.#show());
  }

  /** Shows the state of the address. */
  async show(state, pass) {
    Object.assign(this, { state, pass });
    const { text, layer, changes } = state;
    const asked = JSON.stringify([pass.model, text, layer, changes]);
    if (asked !== this.#asked) {
      this.#asked = asked;
      this.#job?.stop();
      this.#job = this.work.run("Reading the statements", (signal) => this.#read({ text, layer, changes }, signal), QUIET);
    }
    const lines = await this.#job.done;
    if (asked !== this.#asked || state !== this.state) return;
    if (!lines) this.#asked = null; // so that it is asked again
    else {
      this.#take(lines);
      this.#show();
    }
  }

  async #read(request, signal) {
    const lines = [];
    for await (const line of answer({ kind: "lines", ...request }, signal)) lines.push(line);
    return lines;
  }

  #take(lines) {
    if (lines === this.lines) return;
    this.lines = lines;
    this.#arrays = lines.filter((line) => "name" in line);
    this.#functions = new Map(lines.filter((line) => !("name" in line)).map((line) => [line.function, line]));
  }

  #show() {
    const { layer, name } = this.state;
    const here = name.replace(/^h\d+/, `h${layer}`);
    const at = this.#arrays.find((array) => array.name === here || array.also === here) ?? this.#arrays[0];
    this.at = at;
    const state = { ...this.state, name: at.name, cell: fits(this.state.cell, at.shape) ? this.state.cell : null };
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

  #showPlace() {
    const n = this.#total;
    const i = this.#place;
    this.where.replaceChildren(`Statement ${i + 1} of ${n}: `, element("code", {}, this.at.name));
    this.buttons.p.disabled = i === 0;
    this.buttons.n.disabled = i === n - 1;
  }

  /** Draws the small pictures of a call, one after another. */
  async #drawSmall(call) {
    const { text, changes, head } = this.state;
    const key = JSON.stringify([this.#asked, head, call]);
    if (key === this.#drawn) return;
    this.#drawn = key;
    this.#smallJob?.stop();
    const read = async (signal) => {
      for (const { name, n_heads } of call) {
        const request = { kind: "array", text, name, changes, head: n_heads === null ? null : head, n_most: SMALL };
        const key = JSON.stringify(request) + this.pass.model;
        if (!this.#small.has(key)) this.#small.set(key, await lastAnswer(request, signal));
        this.source.draw(name, this.#small.get(key));
      }
    };
    this.#smallJob = this.work.run("Drawing the arrays", read, QUIET);
  }

  #onKey(event) {
    const isTyped = event.target.closest("input, select, textarea");
    if (isTyped || event.ctrlKey || event.metaKey || event.altKey || !(event.key in STEPS)) return;
    event.preventDefault();
    this.#step(STEPS[event.key]);
  }

  /** Goes to the next statement of the whole pass (1) or the one before (-1). */
  #step(step) {
    if (!this.at) return;
    const place = this.#place + step;
    if (place < 0 || place >= this.#total) return;
    const { begin, size, n_layer } = this.#sizes;
    const last = begin + n_layer * size;
    if (place < begin) this.#goTo(this.#arrays[place].name);
    else if (place >= last) this.#goTo(this.#arrays[place - last + begin + size].name);
    else {
      const layer = Math.floor((place - begin) / size);
      this.#goTo(this.#arrays[begin + ((place - begin) % size)].name.replace(/^h\d+/, `h${layer}`), layer);
    }
  }

  #goTo(name, layer = this.state.layer) {
    this.address.go({ name, layer, cell: null }, { replace: true });
  }

  /** How many arrays are before the blocks and in each, and how many blocks there are. */
  get #sizes() {
    const inside = this.#arrays.filter(({ name }) => /^h\d/.test(name));
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

/** The part of a block to which an array belongs: `h1/attn` for `h1/attn/q`; none for `h1/x` and outside of the blocks. */
const partOf = (name) => /^h\d+\/(?!x$)\w+/.exec(name)?.[0] ?? "";
