/** The source of a function with its line numbers and, beside each statement, the arrays that it computed. */

import { element, number } from "./dom.js";
import { Matrix } from "./matrix.js";
import { blockOf, partOf } from "./names.js";

const SIZE = { width: 132, height: 44 }; // of a small picture, at most, in CSS pixels

export class Source {
  #shown = null; // which call is shown
  #cards = new Map(); // by the name of the array

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the source goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor({ root, address, guessing }) {
    Object.assign(this, { address, guessing });
    this.title = element("h2", {});
    this.lines = element("div", { className: "source-lines" });
    this.element = element("section", { className: "source", "aria-label": "Source" }, this.title, this.lines);
    root.append(this.element);
  }

  /**
   * Shows a call of a function.
   * @param {object} code of the function: `function`, `file`, `first`, `lines`, `docstring`
   * @param {object[]} call the arrays that it computed, in order
   * @param {object} at the one where one is
   * @param {object[]} arrays of the whole pass, in order
   */
  show(code, call, at, arrays) {
    const hadFocus = this.element.contains(document.activeElement);
    const key = JSON.stringify([code.function, code.first, call]);
    if (key !== this.#shown) {
      this.#shown = key;
      this.#build(code, call, arrays);
    }
    for (const { row, line } of this.rows) row.classList.toggle("is-current", line === at.line);
    for (const [name, card] of this.#cards) this.#update(name, card, name === at.name);
    for (const { link, target } of this.links) link.href = this.address.link({ name: target, cell: null });
    if (hadFocus && !this.element.contains(document.activeElement)) this.#cards.get(at.name)?.link.focus();
  }

  /** Scrolls the page to the line where one is, if it cannot be seen. */
  reveal() {
    this.rows.find(({ row }) => row.classList.contains("is-current"))?.row.scrollIntoView({ block: "nearest" });
  }

  /** Draws the small picture of an array. */
  draw(name, picture) {
    const card = this.#cards.get(name);
    if (!card) return;
    const { rows, columns, is_derived } = picture;
    card.matrix.draw(picture, { width: Math.min(8, SIZE.width / columns), height: Math.min(8, SIZE.height / rows) });
    card.derived.hidden = !is_derived;
    card.isDrawn = true;
    this.#uncover(name, card);
  }

  #build(code, call, arrays) {
    this.#cards.clear();
    this.links = [];
    this.rows = [];
    const last = code.first + code.lines.length - 1;
    this.title.replaceChildren(element("code", {}, code.function), " ",
      element("span", { className: "faint" }, `${code.file}, lines ${code.first} to ${last}`));
    const [from, to] = code.docstring ?? [0, -1];
    const rows = [];
    code.lines.forEach((text, i) => {
      const line = code.first + i;
      if (line === from) rows.push(folded(code.lines.slice(from - code.first, to - code.first + 1), from));
      else if (line < from || line > to) rows.push(this.#row(text, line, call, arrays));
    });
    this.lines.replaceChildren(...rows);
  }

  #row(text, line, call, arrays) {
    const code = element("code", { className: "code" }, ...this.#linked(text, line, call, arrays));
    const cards = call.filter((array) => array.line === line).map((array) => this.#card(array));
    const row = element("div", { className: "source-line" },
      element("span", { className: "line-number" }, String(line)), code,
      element("div", { className: "values" }, ...cards));
    this.rows.push({ row, line });
    return row;
  }

  /** The code of a line, in which the name of a function that computed arrays leads there. */
  #linked(text, line, call, arrays) {
    const before = call.findLast((array) => array.line < line) ?? arrays[0];
    const after = call.find((array) => array.line >= line) ?? arrays.at(-1);
    const between = arrays.slice(arrays.indexOf(before), arrays.indexOf(after) + 1);
    const { name } = call[0];
    const part = partOf(name) || blockOf(name); // a call in a part leads to arrays of this part
    return text.split(/\b([A-Za-z_]\w*)(?=\()/).map((piece) => {
      const target = between.find((array) => array.function === piece && array.name.startsWith(part) && !call.includes(array));
      if (!target) return piece;
      const link = element("a", {}, piece);
      this.links.push({ link, target: target.name });
      return link;
    });
  }

  #card(array) {
    const { name, also, axes, low, high, mean, n_infinite, n_other, is_patched } = array;
    const matrix = new Matrix({ label: `Picture of ${name}` });
    const shape = element("span", { className: "shape" });
    const derived = element("span", { className: "tag", hidden: true, title: "The picture is thinned: a cell stands for several numbers" }, "derived");
    const range = low === null ? "no finite number" : `${number(low)} to ${number(high)}, mean ${number(mean)}`;
    const count = (n, what) => (n ? `, ${n.toLocaleString("en")} × ${what}` : "");
    const others = count(n_infinite, "−∞") + count(n_other, "NaN or ∞");
    const link = element("a", { className: "value" },
      element("span", { className: "value-name" }, element("code", {}, name), ...(also ? [" = ", element("code", {}, also)] : []),
        ...(is_patched ? [element("span", { className: "tag" }, "changed")] : [])),
      shape,
      element("span", { className: "value-range faint" }, range + others),
      matrix.element, derived);
    this.#cards.set(name, { link, matrix, derived, shape, isDrawn: false, shapeText: `[${array.shape.join(", ")}] ${axes}` });
    return link;
  }

  #update(name, card, isCurrent) {
    card.link.href = this.address.link({ name, cell: null });
    if (isCurrent) card.link.setAttribute("aria-current", "true");
    else card.link.removeAttribute("aria-current");
    this.#uncover(name, card);
  }

  #uncover(name, card) {
    const isCovered = this.guessing.covers(name);
    card.shape.textContent = isCovered ? "shape: ?" : card.shapeText;
    card.matrix.element.hidden = isCovered || !card.isDrawn;
  }
}

function folded(lines, first) {
  const [title, ...rest] = lines;
  return element("details", { className: "docstring" },
    element("summary", {}, element("span", { className: "line-number" }, String(first)), element("code", { className: "code" }, title)),
    ...rest.map((text, i) => element("div", { className: "source-line" },
      element("span", { className: "line-number" }, String(first + 1 + i)), element("code", { className: "code" }, text))));
}
