/** One step of a generation: the text so far, what is in the past, and what was drawn. */

import { bar, counted, element, ordinal, percent, shown } from "./dom.js";
import { PredictionGuess, predictionAt } from "./guess_prediction.js";
import { Question } from "./question.js";
import { Strips } from "./strips.js";

const KINDS = {
  past: "read from the past",
  computed: "computed in this step",
  drawn: "drawn in this step, not read yet",
  later: "not there yet",
};

export class StepView {
  #text = ""; // what was read in the first step
  #pass = null;
  #chips = []; // an element for each token, those of the text and those that were written
  #steps = []; // those that are there
  #at = 0; // the one that is shown
  #n_given = 0; // how many of the tokens the text had

  /**
   * @param {object} parts
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {import("./guess.js").Guessing} parts.guessing
   * @param {(step: number) => void} parts.onVisit another step was chosen
   */
  constructor({ address, work, guessing, onVisit }) {
    this.address = address;
    this.question = new Question(work, "Reading the text of a step");
    this.facts = element("p", {});
    this.note = element("p", { className: "faint" });
    this.tokens = element("p", {
      className: "step-tokens", tabIndex: 0, role: "group", "aria-label": "The text so far",
    });
    this.before = element("a", {}, "Look inside at the text of this step");
    this.after = element("a", {}, "Where does the drawn token come from?");
    this.other = element("span", { className: "faint" },
      "The text of the next step is read as other tokens, so that nothing can be asked about the drawn one.");
    this.rows = element("tbody");
    this.caption = element("caption");
    this.legend = legend();
    const colourOf = (kind) => getComputedStyle(this.legend.querySelector(`[data-kind="${kind}"]`)).backgroundColor;
    this.strips = new Strips({ colourOf, onChoose: onVisit });
    this.table = element("table", { className: "picture" }, this.caption,
      element("thead", {}, element("tr", {},
        element("th", { scope: "col" }, "Token"), element("th", { scope: "col", colSpan: 2 }, "Probability"))),
      this.rows);
    const prediction = element("section", { "aria-label": "The prediction" }, this.table);
    this.guess = new PredictionGuess({ root: prediction, guessing });
    this.tokens.addEventListener("click", ({ target }) => {
      const chip = target.closest(".step-token");
      if (chip) onVisit(this.#chips.indexOf(chip) - this.#n_given);
    });
    this.element = element("div", { className: "step-view" },
      this.facts, this.legend, this.note, this.tokens, element("p", { className: "step-links" }, this.before, this.after, this.other),
      element("div", { className: "step-columns" },
        element("section", { className: "step-past", "aria-label": "The past" },
          element("h2", {}, "The past fills"),
          element("p", { className: "faint" },
            "A row for each step, a column for each position. A click on a row or a written token goes to its step."),
          this.strips.element),
        prediction));
    guessing.addEventListener("change", () => this.#steps.length && this.#cover());
  }

  /** Whether screen readers are not told about each step, because the steps play. */
  set isQuiet(isQuiet) {
    this.facts.setAttribute("aria-live", isQuiet ? "off" : "polite");
  }

  /** Begins a generation that goes on with a text. */
  begin(text, pass) {
    this.question.stop();
    this.#text = text;
    this.#pass = pass;
    this.#chips = [];
    this.#steps = [];
    this.tokens.replaceChildren();
  }

  /**
   * Shows a step.
   * @param {object[]} steps the lines of the answer so far
   * @param {number} at which of them
   */
  show(steps, at) {
    this.#steps = steps;
    this.#at = at;
    const { n_past, n_read } = steps[at];
    this.#addChips(steps);
    this.#chips.forEach((chip, i) => {
      const kind = i < n_past ? "past" : i < n_past + n_read ? "computed" : i === n_past + n_read ? "drawn" : "later";
      if (chip.dataset.kind !== kind) chip.dataset.kind = kind;
    });
    this.tokens.scrollTop = this.tokens.scrollHeight;
    this.facts.textContent = facts(steps[at]);
    this.#cover();
    this.caption.replaceChildren(...drawn(steps[at]));
    this.rows.replaceChildren(...alternatives(steps[at]));
    this.strips.draw(steps, at);
  }

  /** Adds what is missing: the tokens of the text that are read, and those that were written by now. */
  #addChips(steps) {
    if (!this.#chips.length) this.#addGiven(steps[0].n_read);
    this.#append(steps.slice(this.#chips.length - this.#n_given).map((step) => step.token));
  }

  /** Adds the tokens of the text. Those that would leave no room for the new ones are not read. */
  #addGiven(n) {
    const { tokens } = this.#pass;
    const read = tokens.slice(-n);
    const n_left = tokens.length - n;
    this.#n_given = n;
    this.#text = this.#text.slice(read[0].begin);
    this.note.hidden = n_left === 0;
    this.note.textContent =
      `The first ${counted(n_left, "token")} of the text are left out, so that there is room for the new ones.`;
    this.#append(read);
  }

  #append(tokens) {
    const chips = tokens.map(({ text }) => element("span", { className: "step-token" }, ...shown(text)));
    this.#chips.push(...chips);
    this.tokens.append(...chips);
  }

  /** Covers what is predicted in the step, while it is to be guessed. */
  #cover() {
    const { alternatives } = this.#steps[this.#at];
    const name = predictionAt(this.#at, { text: this.#textBefore(this.#at), changes: [] }, this.#pass);
    const isCovered = this.guess.ask(name, this.#tokenBefore.text, alternatives[0].text);
    this.table.hidden = isCovered;
    this.tokens.classList.toggle("is-covered", isCovered);
    this.#link(isCovered);
  }

  /** Leads to where the text before and after the step can be looked at. */
  async #link(isCovered) {
    const [before, after] = [this.#textBefore(this.#at), this.#textBefore(this.#at + 1)];
    const { token } = this.#steps[this.#at];
    const place = { name: "", cell: null, changes: [], token: null };
    this.before.href = this.address.link({ ...place, part: "lines", text: before });
    this.after.href = this.address.link({ ...place, part: "origin", text: after });
    this.after.hidden = this.other.hidden = true;
    if (isCovered) {
      this.question.stop();
      return;
    }
    const [read] = (await this.question.ask({ kind: "look", text: after }, this.#pass.model)) ?? [];
    if (!read) return;
    const isRead = read.tokens.at(-1).id === token.id;
    this.after.hidden = !isRead;
    this.other.hidden = isRead;
  }

  /** The text with what was written before a step. */
  #textBefore(step) {
    return this.#text + written(this.#steps.slice(0, step).map(({ token }) => token));
  }

  /** The newest token that is read in the step. */
  get #tokenBefore() {
    return this.#at ? this.#steps[this.#at - 1].token : this.#pass.tokens.at(-1);
  }
}

function facts({ step, n_steps, n_past, n_read, n_bytes }) {
  const past = n_past ? `${counted(n_past, "position")} read from the past` : "nothing in the past yet";
  return `Step ${step + 1} of ${n_steps}: ${past}, ${counted(n_read, "position")} computed. ` +
    `The past then holds ${counted(n_past + n_read, "position")} in ${counted(n_bytes, "byte")}.`;
}

function drawn({ token, probability, rank, drawn }) {
  return ["Drawn: ", element("strong", { className: "token-text" }, ...shown(token.text)),
    ` — ${percent(probability)} for the model, ${ordinal(rank)} likeliest; ${percent(drawn)} in the draw`];
}

/** The likeliest tokens, and the one that was drawn. */
function alternatives({ token, probability, alternatives }) {
  const isListed = alternatives.some(({ id }) => id === token.id);
  const listed = isListed ? alternatives : [...alternatives, { ...token, probability }];
  const most = Math.max(...listed.map((each) => each.probability));
  return listed.map((each) => element("tr", { className: each.id === token.id ? "is-drawn" : "" },
    element("th", { scope: "row", className: "token-text" }, ...shown(each.text),
      ...(each.id === token.id ? [element("span", { className: "faint" }, " drawn")] : [])),
    element("td", { className: "number" }, percent(each.probability)),
    element("td", { className: "strip-cell", "aria-hidden": "true" }, bar(each.probability / most))));
}

/** The text of tokens, of which some may be parts of a character. */
function written(tokens) {
  const encoder = new TextEncoder();
  const bytes = tokens.flatMap((token) => [...(token.bytes ?? encoder.encode(token.text))]);
  return new TextDecoder().decode(new Uint8Array(bytes));
}

function legend() {
  const items = Object.entries(KINDS).map(([kind, name]) => {
    const swatch = element("span", { className: "step-swatch", "aria-hidden": "true" });
    const item = element("li", {}, swatch, name);
    swatch.dataset.kind = kind;
    return item;
  });
  return element("ul", { className: "step-legend", "aria-label": "What the colours mean" }, ...items);
}
