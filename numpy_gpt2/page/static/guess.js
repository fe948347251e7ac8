/** Guess the shape, for teaching: shapes and predictions stay covered until somebody has guessed. */

import { counted, element } from "./dom.js";
import { general } from "./names.js";
import { recall, remember } from "./store.js";

/** Fires `change` when it was switched, a guess was made, or something revealed, which is never covered again. */
export class Guessing extends EventTarget {
  #revealed = new Set();
  #isOn = recall("guess") ?? false;
  right = 0;
  tries = 0;

  get isOn() {
    return this.#isOn;
  }

  set isOn(isOn) {
    this.#isOn = isOn;
    remember("guess", isOn);
    this.dispatchEvent(new Event("change"));
  }

  /** Whether something is covered now: an array, whatever its layer, since all layers have the same shapes, or a prediction under a name of its own. */
  covers(name) {
    return this.#isOn && !this.#revealed.has(general(name));
  }

  /** Uncovers something. */
  reveal(name) {
    this.#revealed.add(general(name));
    this.dispatchEvent(new Event("change"));
  }

  /** Counts a guess. */
  count(isRight) {
    this.tries++;
    if (isRight) this.right++;
    this.dispatchEvent(new Event("change"));
  }

  get score() {
    return `${counted(this.right, "right guess", "right guesses")} in ${counted(this.tries, "try", "tries")}`;
  }
}

/** The form in which one guesses the shape of an array. */
export class ShapeGuess {
  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the form goes
   * @param {Guessing} parts.guessing
   * @param {() => void} parts.onReveal called when the form, which has the focus, gives place to the array
   */
  constructor({ root, guessing, onReveal }) {
    Object.assign(this, { guessing, onReveal });
    this.question = element("label", { htmlFor: "guess" });
    this.given = element("p", { className: "faint" });
    this.field = element("input", { id: "guess", type: "text", autocomplete: "off", placeholder: "1, 2, 3" });
    this.verdict = element("p", { className: "verdict", role: "status" });
    this.element = element("form", { className: "guess", onsubmit: (event) => this.#check(event) },
      this.question, this.field,
      element("div", { className: "buttons" },
        element("button", { type: "submit" }, "Check"),
        element("button", { type: "button", onclick: () => this.#reveal() }, "Show it")),
      this.given, this.verdict);
    root.append(this.element);
  }

  /** Asks for the shape of an array. */
  ask({ name, shape }, { tokens, n_embd, n_head, n_vocab }) {
    if (name === this.name && shape.join() === this.shape.join()) return;
    Object.assign(this, { name, shape });
    this.question.replaceChildren("Which shape has ", element("code", {}, name), "?");
    this.given.textContent = `There is one text of ${counted(tokens.length, "token")}; the model has ` +
      `n_embd = ${n_embd}, n_head = ${n_head}, n_vocab = ${n_vocab}.`;
    this.field.value = "";
    this.verdict.replaceChildren();
  }

  #check(event) {
    event.preventDefault();
    const guess = (this.field.value.match(/\d+/g) ?? []).map(Number);
    if (!guess.length) {
      this.verdict.textContent = "Type the numbers of the shape, such as 1, 2, 3.";
      return;
    }
    const isRight = guess.length === this.shape.length && guess.every((n, i) => n === this.shape[i]);
    this.guessing.count(isRight);
    if (isRight) this.#reveal();
    else this.#show(guess);
  }

  #reveal() {
    this.guessing.reveal(this.name);
    this.onReveal();
  }

  #show(guess) {
    const marks = guess.map((n, i) => {
      const isRight = n === this.shape[i];
      return element("span", { className: isRight ? "is-right" : "is-wrong" }, `${n} is ${isRight ? "right ✓" : "wrong ✗"}`);
    });
    const axes = guess.length === this.shape.length ? [] : [`It has ${counted(this.shape.length, "axis", "axes")}. `];
    this.verdict.replaceChildren(...axes, ...marks.flatMap((mark, i) => (i ? [", ", mark] : [mark])), ".");
  }
}
