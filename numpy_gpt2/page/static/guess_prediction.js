/** Guess the next token, for teaching: a prediction stays covered until somebody has guessed or revealed it. */

import { element, named } from "./dom.js";

/** The name of the prediction after a position, by which `Guessing` knows what was revealed. */
export const predictionAt = (position, { text, changes }, { model }) =>
  JSON.stringify(["prediction", model, text, changes, position]);

/** The form in which one guesses the likeliest token. */
export class PredictionGuess {
  #name = null; // of the prediction
  #likeliest = ""; // the text of its likeliest token

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the form goes; it has the focus when the form gives place to the prediction
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor({ root, guessing }) {
    Object.assign(this, { root, guessing });
    root.tabIndex = -1;
    this.question = element("span", {});
    this.field = element("input", { type: "text", autocomplete: "off" });
    this.verdict = element("p", { className: "verdict", role: "status" });
    this.element = element("form", { className: "guess", hidden: true, onsubmit: (event) => this.#check(event) },
      element("label", {}, this.question, " ", this.field),
      element("div", { className: "buttons" },
        element("button", { type: "submit" }, "Check"),
        element("button", { type: "button", onclick: () => this.#reveal() }, "Show it")),
      this.verdict);
    root.append(this.element);
  }

  /**
   * Asks for a prediction, if it is to be guessed.
   * @param {string} name as `predictionAt` makes it
   * @param {string} after the text of the token before
   * @param {string} likeliest the text of the token that is to be guessed
   * @returns {boolean} whether the prediction is covered
   */
  ask(name, after, likeliest) {
    const isCovered = this.guessing.covers(name);
    this.element.hidden = !isCovered;
    if (name !== this.#name) {
      this.question.replaceChildren("Which token is the likeliest after ", named(after), "?");
      this.field.value = "";
      this.verdict.textContent = "";
    }
    this.#name = name;
    this.#likeliest = likeliest;
    return isCovered;
  }

  #check(event) {
    event.preventDefault();
    const guess = this.field.value.trim();
    if (!guess) {
      this.verdict.textContent = "Type a token, such as the next word.";
      return;
    }
    const isRight = guess === this.#likeliest.trim();
    this.guessing.count(isRight);
    if (isRight) this.#reveal();
    else this.verdict.replaceChildren(element("span", { className: "is-wrong" }, `“${guess}” is not the likeliest ✗`));
  }

  #reveal() {
    this.root.focus();
    this.guessing.reveal(this.#name);
  }
}
