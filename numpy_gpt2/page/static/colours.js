/** Colours each token of the text by the probability that the model gave it. */

import { answer } from "./answers.js";
import { byId, counted, debounced, element } from "./dom.js";
import { SHADES } from "./editor.js";
import { recall, remember } from "./store.js";

const WAIT = 300; // milliseconds after the last key
const QUIET = 400; // milliseconds until it is said that this runs
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
    byId("legend").hidden = !this.box.checked;
    this.editor.addEventListener("change", () => this.#changed());
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
    byId("legend").hidden = !this.box.checked;
    if (this.box.checked) this.restart();
    else {
      this.stop();
      this.editor.cutTokens(0);
    }
  }

  #read() {
    this.#job?.stop();
    if (!this.box.checked || !this.models.name) return;
    const { text } = this.editor;
    if (text) this.#job = this.work.run("Reading the text", (...job) => this.#colour(text, ...job), QUIET);
  }

  async #colour(text, signal, report) {
    let n = 0;
    for await (const token of answer({ kind: "tokens", text, n_alternatives: N_ALTERNATIVES }, signal)) {
      if (signal.aborted) return;
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
