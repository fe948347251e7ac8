/** The words of the text, shaded by numbers: the attention of a head over the text itself. */

import { element } from "./dom.js";
import { ALONG, isPlain } from "./keys.js";
import { reveal } from "./scrolling.js";

export class Words {
  static #n = 0; // so that ids differ

  #tokens = null;
  #at = null; // the word under the mouse, or that the keys have reached
  #prefix = `words-${Words.#n++}`;

  /**
   * @param {object} options
   * @param {string} options.label its name for screen readers
   * @param {(index: number|null) => void} [options.onHover] the mouse or the keys have come to a word, or left
   * @param {(index: number) => void} options.onChoose a word was clicked, or chosen by Enter
   */
  constructor({ label, onHover, onChoose }) {
    Object.assign(this, { onHover, onChoose });
    this.element = element("div", { className: "words", role: "listbox", tabIndex: 0, "aria-label": label });
    this.element.addEventListener("pointerover", ({ target }) => this.#come(target.closest("[role='option']")));
    this.element.addEventListener("click", ({ target }) => this.#choose(target.closest("[role='option']")));
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    for (const end of ["pointerleave", "blur"]) this.element.addEventListener(end, () => this.#come(null));
  }

  /** Shows the tokens of a text. */
  show(tokens) {
    if (tokens === this.#tokens) return;
    this.#tokens = tokens;
    this.#at = null;
    this.element.replaceChildren(...tokens.map(({ text }, i) => element("span", {
      id: `${this.#prefix}-${i}`, role: "option", className: "word", "aria-selected": "false", title: `token ${i}`,
    }, text.replaceAll("\n", "↵\n"))));
  }

  /**
   * Shades each word by its number: the largest one has the full shade.
   * @param {number[]} weights
   * @param {number} subject the word that the numbers are about
   */
  shade(weights, subject) {
    const most = Math.max(...weights) || 1;
    const words = this.element.children;
    weights.forEach((weight, i) => words[i].style.setProperty("--weight", (weight / most).toFixed(3)));
    this.element.querySelector("[aria-selected='true']")?.setAttribute("aria-selected", "false");
    words[subject].setAttribute("aria-selected", "true");
  }

  /** Scrolls to a word, but not the page. */
  reveal(index) {
    reveal(this.element, this.element.children[index]);
  }

  #come(word) {
    const at = word ? this.#indexOf(word) : null;
    if (at === this.#at) return;
    this.element.querySelector(".is-pointed")?.classList.remove("is-pointed");
    word?.classList.add("is-pointed");
    this.#at = at;
    if (word) this.element.setAttribute("aria-activedescendant", word.id);
    else this.element.removeAttribute("aria-activedescendant");
    this.onHover?.(at);
  }

  #choose(word) {
    if (word) this.onChoose(this.#indexOf(word));
  }

  #indexOf(word) {
    return [...this.element.children].indexOf(word);
  }

  #onKey(event) {
    if (!isPlain(event) || !this.#tokens) return;
    const words = this.element.children;
    const selected = this.element.querySelector("[aria-selected='true']");
    const at = this.#at ?? Math.max(0, this.#indexOf(selected));
    if (event.key === "Enter") this.#choose(words[at]);
    else if (event.key in ALONG) {
      this.#come(words[Math.max(0, Math.min(words.length - 1, at + ALONG[event.key]))]);
      this.reveal(this.#at);
    } else return;
    event.preventDefault();
  }
}

/** The places of the n largest weights, the largest first; weights of 0 are none. */
export const largest = (weights, n) =>
  [...weights.keys()].sort((a, b) => weights[b] - weights[a]).filter((i) => weights[i] > 0).slice(0, n);
