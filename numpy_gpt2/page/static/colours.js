/** Colours each token of the text by the probability that the model gave it. */

import { answer } from "./answers.js";
import { byId, counted, debounced, element } from "./dom.js";
import { SHADES } from "./editor.js";
import { recall, remember } from "./store.js";
import { QUIET } from "./work.js";

const WAIT = 300; // milliseconds after the last key
const N_ALTERNATIVES = 8;
const REPORT = 64; // tokens between two steps of the progress bar

export class Colours {
  #job = null;

  /** @param {object} parts `editor`, `work` and `models`, as for `Suggestions` */
  constructor(parts) {
    Object.assign(this, parts);
    this.refresh = debounced(() => this.#read(), WAIT);
    this.box = byId("colours");
    this.box.checked = recall("colours") ?? true;
    this.box.addEventListener("change", () => this.#switch());
    byId("legend").append(...legend());
    this.#paint();
    this.editor.addEventListener("change", () => this.#changed());
    this.editor.addEventListener("composing", () => this.stop());
  }

  /** Reads the whole text again: with another model, every token may be another one. */
  restart() {
    this.stop();
    this.editor.cutTokens(0);
    this.#read();
  }

  /** Stops reading. */
  stop() {
    this.refresh.cancel();
    this.#job?.stop();
  }

  #changed() {
    this.stop();
    byId("count").textContent = "";
    this.refresh();
  }

  #switch() {
    remember("colours", this.box.checked);
    this.#paint();
  }

  /** Without the colours the tokens stay: their alternatives can still be asked for. */
  #paint() {
    byId("legend").hidden = !this.box.checked;
    this.editor.backdrop.classList.toggle("is-plain", !this.box.checked);
  }

  #read() {
    this.#job?.stop();
    if (!this.models.name) return;
    const { text } = this.editor;
    if (text) this.#job = this.work.run("Reading the text", (...job) => this.#colour(text, ...job), QUIET);
  }

  async #colour(text, signal, report) {
    let n = 0;
    for await (const token of answer({ kind: "tokens", text, n_alternatives: N_ALTERNATIVES }, signal)) {
      if (signal.aborted) return;
      if (n === 0 && token.model !== this.models.name) {
        this.models.ask(); // another tab has changed it
        return;
      }
      this.editor.setToken(n++, token);
      if (n % REPORT === 0) report(token.end / text.length);
    }
    this.editor.cutTokens(n);
    byId("count").textContent = counted(n, "token");
  }
}

function legend() {
  const names = [...SHADES.map((least) => `≥ ${100 * least} %`), "less"];
  const swatch = (name, i) => element("span", { className: `swatch shade-${i}` }, name);
  return names.map((name, i) => element("li", {}, swatch(name, i)));
}
