/**
 * The editor: a native text field over a backdrop with the same text in the same places, in which each token is a span
 * that can be coloured and found.
 */

import { byId, element } from "./dom.js";
import { commonEnd, commonStart } from "./tree.js";

// The least probability of each shade, from the palest on; what is below the last has the strongest.
export const SHADES = [0.5, 0.2, 0.05, 0.01, 0.001];
const LONGEST_UNDO = 50_000; // longer texts are replaced without the browser's undo, which takes seconds for them

/** The shade of a probability: 0, the palest, to 5. */
export function shade(probability) {
  const found = SHADES.findIndex((least) => probability >= least);
  return found < 0 ? SHADES.length : found;
}

/**
 * Fires `change` when the text has changed, with how as `detail`: what was given to `replace`, or `{ how: "typed" }`.
 * Fires `composing` while an input method makes a word, and `caret` when the cursor has moved.
 */
export class Editor extends EventTarget {
  #replacing = false;
  #text = "";
  #rest = document.createTextNode("");

  constructor() {
    super();
    this.area = byId("text");
    this.backdrop = byId("backdrop");
    this.tokens = []; // as the server described them, each with its `span`, if it has one
    this.backdrop.append(this.#rest, "\u200b"); // what comes last gives a line of its own to a final line end
    this.area.addEventListener("input", (event) => this.#onInput(event));
    this.area.addEventListener("compositionend", () => this.#changed({ how: "typed" }));
    document.addEventListener("selectionchange", () => this.dispatchEvent(new Event("caret")));
  }

  get text() {
    return this.#text;
  }

  get caret() {
    return this.area.selectionEnd;
  }

  /** The text before the cursor. */
  get before() {
    return this.#text.slice(0, this.caret);
  }

  /** Puts another text in place of all, with no way to undo. */
  open(text) {
    this.area.readOnly = false; // it was while no text was open
    this.area.value = text;
    this.area.setSelectionRange(text.length, text.length);
    this.#follow();
  }

  /**
   * Replaces a part of the text, so that the browser's own undo takes it back.
   * @param {number} begin
   * @param {number} end
   * @param {string} text
   * @param {object} detail of the `change` that this fires
   */
  replace(begin, end, text, detail) {
    this.area.focus({ preventScroll: true });
    this.area.setSelectionRange(begin, end);
    this.#replacing = true;
    if (!this.#insert(begin, end, text)) this.area.setRangeText(text, begin, end, "end");
    this.#replacing = false;
    this.#changed(detail);
  }

  /** Makes the text another one, touching only what differs, and puts the cursor at its end. */
  become(text, detail) {
    const begin = commonStart(this.#text, text);
    const n_same = commonEnd(this.#text, text, begin);
    this.replace(begin, this.#text.length - n_same, text.slice(begin, text.length - n_same), detail);
    this.area.setSelectionRange(text.length, text.length);
  }

  /** Adds token `i` of the text, or replaces what was known of it. */
  setToken(i, token) {
    const old = this.tokens[i];
    if (old && old.id === token.id && old.begin === token.begin && old.end === token.end) {
      this.tokens[i] = { ...token, span: old.span };
    } else {
      this.cutTokens(i);
      this.tokens.push({ ...token, span: this.#newSpan(token) });
    }
    this.#colour(this.tokens[i]);
  }

  /** Forgets the tokens from `i` on. */
  cutTokens(i) {
    for (const token of this.tokens.splice(i)) token.span?.remove();
    this.#showRest();
  }

  /** The index of the token before or around a place in the text, or -1. */
  tokenBefore(place) {
    return this.tokens.findIndex((token) => token.begin < place && place <= token.end);
  }

  /** The index of the token that is painted at a point of the window, or -1. */
  tokenAt(x, y) {
    const span = document.elementsFromPoint(x, y).find((found) => found.parentNode === this.backdrop);
    return span ? this.tokens.findIndex((token) => token.span === span) : -1;
  }

  /** The rectangle of a place in the text, in the window. */
  rectangle(place) {
    const token = this.tokens.find(({ span, begin, end }) => span && begin <= place && place <= end);
    const node = token ? token.span.firstChild : this.#rest;
    const range = document.createRange();
    range.setStart(node, Math.min(node.length, place - (token ? token.begin : this.#restBegin)));
    return range.getClientRects()[0] ?? this.area.getBoundingClientRect();
  }

  get #restBegin() {
    return this.tokens.at(-1)?.end ?? 0;
  }

  #insert(begin, end, text) {
    if (Math.max(text.length, end - begin) > LONGEST_UNDO) return false;
    if (text) return document.execCommand("insertText", false, text);
    return begin === end || document.execCommand("delete");
  }

  #onInput(event) {
    if (this.#replacing) return;
    if (!event.isComposing) this.#changed({ how: "typed" });
    else {
      this.#follow(); // the text is noted when the word is whole
      this.dispatchEvent(new Event("composing"));
    }
  }

  #changed(detail) {
    this.#follow();
    this.dispatchEvent(new CustomEvent("change", { detail }));
  }

  /** Gives the backdrop the text of the field; the tokens before what has changed stay. */
  #follow() {
    const text = this.area.value;
    const same = commonStart(this.#text, text);
    this.#text = text;
    const first = this.tokens.findIndex((token) => token.end > same);
    this.cutTokens(first < 0 ? this.tokens.length : first);
  }

  #newSpan(token) {
    if (token.begin === token.end) return null; // a part of a character, which the last of its tokens shows
    const span = element("span", {}, this.#text.slice(token.begin, token.end));
    this.backdrop.insertBefore(span, this.#rest);
    this.#rest.data = this.#text.slice(token.end);
    return span;
  }

  #showRest() {
    this.#rest.data = this.#text.slice(this.#restBegin);
  }

  #colour({ span, probability }) {
    if (span) span.className = probability === null ? "token" : `token shade-${shade(probability)}`;
  }
}
