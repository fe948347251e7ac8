/** All heads of all layers as small pictures of their attention, each with its habits. */

import { answer } from "./answers.js";
import { counted, element, percent } from "./dom.js";
import { isPlain } from "./keys.js";
import { Matrix } from "./matrix.js";
import { Question } from "./question.js";

const SIZE = 48; // rows and columns of a small picture
const SHOWN = 72; // CSS pixels of its sides
const BUDGET = 8; // milliseconds of a frame that go to drawing
const AT_ONCE = 2e7; // weights that are computed without being asked for
const MANY = 5; // heads of a layer that need the whole width
const HABITS = {
  previous: { short: "before", long: "on the token before", title: "the token before" },
  first: { short: "first", long: "on the first token", title: "the first token" },
  itself: { short: "itself", long: "on the token itself", title: "itself" },
};

export class Heads {
  #found = []; // each head with its `layer`, `head`, `habits`, and `button`
  #wanted = null; // a text with so many weights that somebody had to ask for them

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the pictures go
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   */
  constructor({ root, address, work }) {
    Object.assign(this, { address });
    this.question = new Question(work, "Drawing all heads");
    this.ask = element("button", { type: "button", hidden: true, onclick: () => this.#want() });
    this.order = element("select", { onchange: () => this.#arrange() },
      element("option", { value: "" }, "layer by layer"),
      ...Object.entries(HABITS).map(([habit, { long }]) => element("option", { value: habit }, `most ${long} first`)));
    this.best = element("ul", { className: "best-heads" });
    this.grid = element("div", { className: "heads-grid", role: "group", "aria-label": "All heads: the arrows go from head to head" });
    this.grid.addEventListener("keydown", (event) => this.#onKey(event));
    this.body = element("div", { className: "heads-body" },
      element("label", {}, "Order ", this.order),
      this.best,
      element("p", { className: "faint" }, "Rows look at columns; the darker, the more (on dark paper, the brighter). "
        + "Below each head is its strongest habit: its average weight, over all tokens but the first, on the token "
        + "before, on the first token, or on the token itself."),
      element("div", { className: "scroll-box" }, this.grid));
    this.body.hidden = true;
    this.element = element("section", { className: "card", "aria-label": "All heads" },
      element("h2", {}, "All heads"), this.ask, this.body);
    root.append(this.element);
  }

  /** Shows all heads of a pass, and marks the locked one. */
  async show(state, pass) {
    Object.assign(this, { state, pass });
    const { text, changes } = state;
    const { n_layer, n_head, tokens, model } = pass;
    const request = { kind: "heads", text, changes, size: SIZE };
    this.element.classList.toggle("is-wide", n_head > MANY);
    const isAsked = n_layer * n_head * tokens.length ** 2 <= AT_ONCE || this.#wanted === JSON.stringify([request, model]);
    this.ask.hidden = isAsked;
    this.body.hidden = !isAsked;
    if (!isAsked) {
      this.ask.textContent = `Draw all ${counted(n_layer * n_head, "head")}`;
      this.question.stop();
      return;
    }
    const found = await this.question.ask(request, model, (...asked) => this.#read(...asked));
    if (state !== this.state) return;
    this.body.hidden = !found;
    if (found) this.#mark();
  }

  #want() {
    const { text, changes } = this.state;
    this.#wanted = JSON.stringify([{ kind: "heads", text, changes, size: SIZE }, this.pass.model]);
    this.show(this.state, this.pass);
  }

  /** Draws each head when it arrives, only a few in each frame. */
  async #read(request, signal) {
    this.#found = [];
    this.grid.replaceChildren();
    this.best.replaceChildren();
    this.#columns();
    let begun = performance.now();
    for await (const { layer, heads } of answer(request, signal)) {
      for (const [head, each] of heads.entries()) {
        if (performance.now() - begun > BUDGET) begun = await frame();
        signal.throwIfAborted();
        this.#add(layer, head, each);
      }
    }
    this.#showBest();
    if (this.order.value) this.#arrange();
    return this.#found;
  }

  #add(layer, head, { habits, ...picture }) {
    const matrix = new Matrix({ label: "" });
    matrix.element.setAttribute("aria-hidden", "true");
    matrix.draw(picture, { width: SHOWN / picture.columns });
    const caption = element("span", { className: "head-habit" });
    const button = element("button", {
      type: "button", className: "head-picture", tabIndex: -1,
      onclick: () => this.address.go({ layer, head, cell: null }),
    }, element("span", { className: "head-name" }, `${layer}.${head}`), matrix.element, caption);
    const found = { layer, head, habits, button, caption };
    this.#found.push(found);
    this.grid.append(button);
    this.#name(found);
    this.#markOne(found);
  }

  /** Writes the habit below a head: the one by which heads are ordered, or else the strongest. */
  #name({ layer, head, habits, button, caption }) {
    const habit = this.order.value || strongest(habits);
    caption.textContent = habits ? `${HABITS[habit].short} ${percent(habits[habit])}` : "";
    const all = habits ? Object.entries(HABITS).map(([each, { long }]) => `${percent(habits[each])} ${long}`) : [];
    const distance = habits ? [`on average ${habits.distance.toFixed(1)} tokens back`] : [];
    button.title = [`Layer ${layer}, head ${head}`, ...all, ...distance].join("\n");
    button.setAttribute("aria-label", [`Layer ${layer}, head ${head}`, ...all, ...distance].join(", "));
  }

  /** Says which head has which habit most. */
  #showBest() {
    if (!this.#found[0]?.habits) return;
    this.best.replaceChildren(...Object.entries(HABITS).map(([habit, { title }]) => {
      const { layer, head, habits } = this.#found.reduce((a, b) => (b.habits[habit] > a.habits[habit] ? b : a));
      const lock = element("button", { type: "button", className: "small", onclick: () => this.address.go({ layer, head, cell: null }) },
        `layer ${layer}, head ${head}`);
      return element("li", {}, `Looks most at ${title}: `, lock, ` ${percent(habits[habit])}`);
    }));
  }

  #arrange() {
    const habit = this.order.value;
    const ordered = habit && this.#found[0]?.habits
      ? this.#found.toSorted((a, b) => b.habits[habit] - a.habits[habit]) : this.#found;
    this.grid.replaceChildren(...ordered.map(({ button }) => button));
    this.#columns();
    for (const each of this.#found) this.#name(each);
  }

  /** Layer by layer, each layer has a line of its own. */
  #columns() {
    this.grid.style.gridTemplateColumns = `repeat(${this.order.value ? "auto-fill" : this.pass.n_head}, ${SHOWN + 14}px)`;
  }

  #mark() {
    for (const found of this.#found) this.#markOne(found);
  }

  #markOne({ layer, head, button }) {
    const isLocked = layer === this.state.layer && head === this.state.head;
    button.setAttribute("aria-pressed", isLocked);
    button.tabIndex = isLocked ? 0 : -1;
  }

  #onKey(event) {
    if (!isPlain(event)) return;
    const buttons = [...this.grid.children];
    const inLine = buttons.filter(({ offsetTop }) => offsetTop === buttons[0].offsetTop).length;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -inLine, ArrowDown: inLine };
    const next = buttons[buttons.indexOf(document.activeElement) + moves[event.key]];
    if (!(event.key in moves)) return;
    event.preventDefault();
    next?.focus();
  }
}

const strongest = (habits) => habits && Object.keys(HABITS).reduce((a, b) => (habits[b] > habits[a] ? b : a));

const frame = () => new Promise((resolve) => requestAnimationFrame(() => resolve(performance.now())));
