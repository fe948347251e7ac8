/** Guess the next token, for teaching: a prediction stays covered until somebody has guessed or revealed it. */

import { named } from "./dom.js";
import { Guess, mark } from "./guess.js";

/** The name of the prediction after a position, by which `Guessing` knows what was revealed. */
export const predictionAt = (position, { text, changes }, { model }) =>
  JSON.stringify(["prediction", model, text, changes, position]);

/** The form in which one guesses the likeliest token. */
export class PredictionGuess extends Guess {
  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the form goes; it has the focus when the form gives place to the prediction
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor({ root, guessing }) {
    super({ root, guessing, onReveal: () => root.focus(), placeholder: "a word, or a part of one" });
    root.tabIndex = -1;
    this.element.hidden = true;
  }

  /**
   * Asks for a prediction, if it is to be guessed.
   * @param {string} name as `predictionAt` makes it
   * @param {string} after the text of the token before
   * @param {string} likeliest the text of the token that is to be guessed
   * @returns {boolean} whether the prediction is covered
   */
  ask(name, after, likeliest) {
    this.likeliest = likeliest;
    this.begin(name, ["Which token is the likeliest after ", named(after), "?"], "Spaces around it do not count.");
    const isCovered = this.guessing.covers(name);
    this.element.hidden = !isCovered;
    return isCovered;
  }

  /** As for shapes. */
  judge(typed) {
    const guess = typed.trim();
    if (!guess) return { isRight: null, verdict: ["Type a token, such as the next word."] };
    const isRight = guess === this.likeliest.trim();
    return { isRight, verdict: [mark(isRight, `“${guess}”`)] };
  }
}
