/** What else a token could have been: a list by the token, opened by the mouse, a tap or a key. */

import { element, ordinal, percent, shown } from "./dom.js";

const HOVER = 250; // milliseconds that the mouse rests on a token
const AWAY = 350; // milliseconds that the mouse may be elsewhere
const END_OF_TEXT = "<|endoftext|>";

export class Alternatives {
  #index = -1; // of the token that is shown
  #timer = null;

  /** @param {object} parts `address`, `editor`, `popup`, `work` and `models`, as for `Write` */
  constructor(parts) {
    Object.assign(this, parts);
    const { area } = this.editor;
    area.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.#hover(event));
    area.addEventListener("click", (event) => this.#show(this.editor.tokenAt(event.clientX, event.clientY), false));
    for (const place of [area, this.popup.box]) {
      place.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#leave());
    }
    this.popup.box.addEventListener("pointerenter", () => clearTimeout(this.#timer));
    this.editor.addEventListener("change", () => this.#close());
  }

  /** Shows those of the token before or around the cursor, for the keyboard. */
  showAtCaret() {
    this.#index = -1;
    this.#show(this.editor.tokenBefore(this.editor.caret), true);
    if (this.#index >= 0) this.popup.move(1);
    else this.work.say("There are alternatives to the tokens that have been read: write something, or wait for them.");
  }

  #hover({ clientX, clientY }) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const index = this.editor.tokenAt(clientX, clientY);
      if (index >= 0) this.#show(index, false);
      else this.#leave();
    }, HOVER);
  }

  #leave() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => !this.popup.takesKeys && this.#close(), AWAY);
  }

  #close() {
    clearTimeout(this.#timer);
    if (this.#index >= 0) this.popup.close();
  }

  #show(index, takesKeys) {
    const token = this.editor.tokens[index];
    if (!token?.span || index === this.#index || this.popup.takesKeys) return;
    const first = this.#firstPart(index);
    const isChoice = takesKeys && first.alternatives.length > 0;
    this.popup.open(token.span.getClientRects()[0], isChoice, false, () => this.#closed(token));
    this.#index = index;
    token.span.classList.add("is-shown");
    this.popup.setTitle(...this.#title(token, first));
    for (const alternative of first.alternatives) this.#add(alternative, first);
    if (token.probability === null) return;
    this.popup.add(["Where does it come from?"], () => this.#lookInside(index)).classList.add("is-way");
  }

  #closed(token) {
    token.span.classList.remove("is-shown");
    this.#index = -1;
  }

  /** The first of the tokens that make up the same character: the one that others could stand in place of. */
  #firstPart(index) {
    const { tokens } = this.editor;
    while (index > 0 && tokens[index - 1].begin === tokens[index - 1].end) index--;
    return tokens[index];
  }

  #title(token, first) {
    const text = this.editor.text.slice(token.begin, token.end);
    const name = element("strong", { className: "token-text" }, ...shown(text));
    if (first.probability === null) return [name, " is the first token: nothing comes before it."];
    const part = first === token ? "" : " (the first of its tokens)";
    return [name, ` ${percent(first.probability)}${part}, ${likeliest(first.rank)}`];
  }

  #add({ id, text, probability }, token) {
    const isSame = id === token.id;
    const isText = text !== END_OF_TEXT && !text.includes("\ufffd");
    const name = element("span", { className: "token-text" }, ...(isText ? shown(text) : [strange(text)]));
    const note = isSame ? element("span", { className: "faint" }, "as it is") : "";
    const share = element("span", { className: "number" }, percent(probability));
    this.popup.add([name, note, share], isText && !isSame ? () => this.#take(token, { id, text, probability }) : null);
  }

  #take({ begin }, { id, text, probability }) {
    this.popup.close();
    const detail = { how: "alternative", ids: [id], model: this.models.name, probability, start: begin };
    this.editor.replace(begin, this.editor.text.length, text, detail);
    this.work.say("What stood there before is kept in Branches.");
  }

  /** Leads to the other view: to the token, as the last one of its text. */
  #lookInside(index) {
    this.popup.close();
    const text = this.editor.text.slice(0, this.editor.tokens[index].end);
    const { name: model } = this.models;
    this.address.go({ view: "look", part: "origin", token: index, text, model, cell: null, changes: [] });
  }
}

const strange = (text) => (text === END_OF_TEXT ? "the end of the text" : "a part of a character");
const likeliest = (rank) => (rank === 1 ? "the likeliest" : `${ordinal(rank)} likeliest`);
