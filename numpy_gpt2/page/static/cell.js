/** The panel "One number": how a number of the pass was computed, with the real numbers it was computed from. */

import { element, number } from "./dom.js";
import { Question } from "./question.js";

const N_TERMS = 8; // of a sum, how many are shown
const HINT = "Choose a cell of the picture (click, or Enter) to see the arithmetic behind its number.";

export class Cell {
  #found = null; // the explanation that is shown

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the panel goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   */
  constructor({ root, address, work }) {
    this.address = address;
    this.question = new Question(work, "Explaining a number");
    this.body = element("div", {});
    this.element = element("section", { className: "one-number", tabIndex: -1, "aria-label": "One number" },
      element("h2", {}, "One number"), this.body);
    root.append(this.element);
  }

  /**
   * Explains the locked number, or says how to lock one.
   * @param {object} state of the address; its `name` and `cell` say which number
   * @param {object} pass to which the number belongs
   */
  async show(state, pass) {
    this.state = state;
    const { text, name, cell, changes } = state;
    if (!cell) {
      this.question.stop();
      this.#fill(null, element("p", { className: "faint" }, HINT));
      return;
    }
    const request = { kind: "explain", text, name, index: cell, changes, n_terms: N_TERMS };
    const [found = null] = (await this.question.ask(request, pass.model)) ?? [];
    if (state !== this.state) return;
    if (!found) this.#fill(null);
    else if (found !== this.#found) this.#fill(found, ...this.#explained(found));
  }

  #fill(found, ...content) {
    const hadFocus = this.body.contains(document.activeElement);
    this.#found = found;
    this.body.replaceChildren(...content);
    if (hadFocus) this.element.focus();
  }

  #explained({ name, index, value, source, file, line, formula, numbers, note }) {
    const steps = numbers.map((each) => element("li", {}, ...this.#number(each)));
    return [
      element("p", { className: "one-value" }, element("code", {}, indexed(name, index)), " = ",
        element("strong", { className: "number", title: exact(value) }, number(value, 6))),
      element("p", {}, element("code", {}, source), " ", element("span", { className: "faint" }, `${file}, line ${line}`)),
      ...(formula ? [element("p", { className: "formula" }, formula)] : []),
      element("ol", { className: "operands" }, ...steps),
      ...(note ? [element("p", { className: "faint" }, note)] : []),
    ];
  }

  #number({ text, value, name, index, n_terms, terms, rest }) {
    const shown = element("span", { className: "number", title: exact(value) }, number(value, 6));
    const head = [element("span", { className: "operand-text" }, text), " = ", shown, ...this.#where(name, index)];
    if (!terms.length) return head;
    const items = terms.map((term) => element("li", {}, ...this.#term(term)));
    const n_others = n_terms - terms.length;
    if (n_others) items.push(element("li", { className: "faint" }, `${number(rest, 6)}: the sum of the other ${n_others.toLocaleString("en")}`));
    const title = n_others ? `The ${terms.length} largest of ${n_terms.toLocaleString("en")} terms` : "Its terms";
    return [...head, element("details", { open: true }, element("summary", {}, title), element("ul", {}, ...items))];
  }

  #term({ value, factors }) {
    const parts = factors.flatMap((factor, i) => [i ? " × " : "", this.#link(factor)]);
    if (factors.length === 1) return parts;
    return [element("span", { className: "number" }, number(value, 6)), " = ", ...parts];
  }

  #link({ text, value, name, index }) {
    const title = name ? indexed(name, index) : text;
    if (!isOfPass(name)) return element("span", { className: "number", title }, number(value, 6));
    const label = `${title} = ${number(value, 6)}`;
    return element("a", { className: "number", href: this.#to(name, index), title, "aria-label": label }, number(value, 6));
  }

  #where(name, index) {
    if (!name) return [];
    const title = indexed(name, index);
    return [" ", isOfPass(name)
      ? element("a", { href: this.#to(name, index) }, element("code", {}, title))
      : element("code", { className: "faint" }, title)];
  }

  #to(name, index) {
    return this.address.link(placeOf(name, index));
  }
}

/** The change of the address that leads to a number: to its array, and its layer, head and position. */
function placeOf(name, index) {
  const layer = /^h(\d+)/.exec(name)?.[1];
  return {
    part: "lines",
    name,
    cell: index,
    ...(layer === undefined ? {} : { layer: Number(layer) }),
    ...(index.length === 4 && !name.endsWith("/qkv") ? { head: index[1] } : {}),
    ...(index.length > 1 ? { token: index.at(-2) } : {}),
  };
}

/** Whether a name is that of an array of the pass, not of a parameter, which has no picture. */
const isOfPass = (name) => name !== "" && !/(^|\/)(w|b|g|wte|wpe)$/.test(name);

/** All digits of a number. */
const exact = (value) => (typeof value === "number" ? String(value) : number(value));

const indexed = (name, index) => `${name}[${index.join(", ")}]`;
