/** Guess, for teaching: shapes and predictions stay covered until somebody has guessed or revealed them. */

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

  /** Whether something is covered now: an array, whatever its layer, since all layers have the same shapes; or a prediction. */
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

/** A form in which one guesses what is covered. */
export class Guess {
  #name = null; // of what is covered

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the form goes
   * @param {Guessing} parts.guessing
   * @param {() => void} parts.onReveal called when the form, which has the focus, gives place to what was covered
   * @param {string} parts.placeholder
   */
  constructor({ root, guessing, onReveal, placeholder }) {
    Object.assign(this, { guessing, onReveal });
    this.question = element("span", {});
    this.given = element("p", { className: "faint" });
    this.field = element("input", { type: "text", autocomplete: "off", placeholder });
    this.verdict = element("p", { className: "verdict", role: "status" });
    this.element = element("form", { className: "guess", onsubmit: (event) => this.#check(event) },
      element("label", {}, this.question, " ", this.field),
      element("div", { className: "buttons" },
        element("button", { type: "submit" }, "Check"),
        element("button", { type: "button", onclick: () => this.#reveal() }, "Show it")),
      this.given, this.verdict);
    root.append(this.element);
  }

  /**
   * Asks about something, unless it is what was asked about last.
   * @param {string} name under which it is covered
   * @param {(Node|string)[]} question
   * @param {string} given what one may know
   */
  begin(name, question, given) {
    if (name === this.#name && given === this.given.textContent) return;
    this.#name = name;
    this.question.replaceChildren(...question);
    this.given.textContent = given;
    this.field.value = "";
    this.verdict.replaceChildren();
  }

  #check(event) {
    event.preventDefault();
    const { isRight, verdict } = this.judge(this.field.value);
    this.verdict.replaceChildren(...verdict);
    if (isRight !== null) this.guessing.count(isRight);
    if (isRight) this.#reveal();
  }

  #reveal() {
    this.guessing.reveal(this.#name);
    this.onReveal();
  }
}

/** A verdict on a guess, or on a part of it. */
export const mark = (isRight, what) =>
  element("span", { className: isRight ? "is-right" : "is-wrong" }, `${what} is ${isRight ? "right ✓" : "wrong ✗"}`);

/** The form in which one guesses the shape of an array. */
export class ShapeGuess extends Guess {
  constructor(parts) {
    super({ ...parts, placeholder: "1, 2, 3" });
  }

  /** Asks for the shape of an array. */
  ask({ name, shape }, { tokens, n_embd, n_head, n_vocab }) {
    this.shape = shape;
    this.begin(name, ["What shape does ", element("code", {}, name), " have?"],
      `There is one text of ${counted(tokens.length, "token")}; the model has n_embd = ${n_embd}, n_head = ${n_head}, `
      + `n_vocab = ${n_vocab}.`);
  }

  /** Whether a guess is right (null: it is none), and what is to be said about it. */
  judge(typed) {
    const { shape } = this;
    const guess = (typed.match(/\d+/g) ?? []).map(Number);
    if (!guess.length) return { isRight: null, verdict: ["Type the numbers of the shape, such as 1, 2, 3."] };
    const marks = guess.map((n, i) => mark(n === shape[i], n));
    const axes = guess.length === shape.length ? [] : [`It has ${counted(shape.length, "axis", "axes")}. `];
    const verdict = [...axes, ...marks.flatMap((each, i) => (i ? [", ", each] : [each])), "."];
    return { isRight: guess.join() === shape.join(), verdict };
  }
}
