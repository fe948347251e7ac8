/** The picture of the next token's distribution: what stays in the draw, and in grey what was ruled out. */

import { lastAnswer } from "./answers.js";
import { bar, byId, counted, debounced, element, percent, shown, without } from "./dom.js";
import { QUIET } from "./work.js";

const WAIT = 250; // milliseconds after the last change
const N = 10; // tokens that are shown

export class Picture {
  #job = null;

  /** @param {object} parts `editor`, `work`, `settings` and `models`, as for `Suggestions` */
  constructor(parts) {
    Object.assign(this, parts);
    this.refresh = debounced(() => this.#read(), WAIT);
    this.section = byId("picture-section");
    this.section.addEventListener("toggle", () => this.refresh());
    this.settings.addEventListener("change", () => this.refresh());
    this.editor.addEventListener("change", () => this.refresh());
    this.editor.addEventListener("caret", () => this.refresh());
  }

  /** Stops reading. */
  stop() {
    this.refresh.cancel();
    this.#job?.stop();
  }

  async #read() {
    this.#job?.stop();
    if (!this.section.open || !this.models.name || this.settings.problem) return;
    const { options, max_new_tokens } = this.settings.request(0);
    const request = { kind: "distribution", text: this.editor.before, options, max_new_tokens, n: N };
    const key = JSON.stringify(request) + this.models.name;
    if (key === this.shownKey) return;
    this.#job = this.work.run("Looking at the next token", (signal) => lastAnswer(request, signal), QUIET);
    const distribution = await this.#job.done;
    if (!distribution) return;
    this.shownKey = key;
    this.#show(distribution);
  }

  #show({ tokens, n_kept, others, half_word, n_unseen }) {
    byId("picture-title").textContent = half_word ? "How the last word may go on" : "The next token";
    const what = half_word ? grows(half_word.trim() || "␣") : "";
    const stays = `${draw(n_kept, this.models.about.n_vocab)}${without(n_unseen)}.`;
    byId("picture-summary").textContent = `${what}${stays}`;
    const most = Math.max(...tokens.map((token) => Math.max(token.probability, token.drawn)));
    const rows = tokens.map((token) => row([...shown(token.text)], token, bar((token.drawn || token.probability) / most)));
    if (others.probability) rows.push(row(["all others"], others, ""));
    byId("picture").tBodies[0].replaceChildren(...rows);
  }
}

const grows = (half) => `The last token may still grow, so only tokens that agree with “${half}” are counted. `;

function draw(n_kept, n_vocab) {
  if (n_kept === n_vocab) return "All tokens stay in the draw";
  return `${n_kept.toLocaleString("en")} of ${counted(n_vocab, "token")} ${n_kept === 1 ? "stays" : "stay"} in the draw`;
}

function row(name, { probability, drawn }, strip) {
  const isOut = drawn === 0;
  return element("tr", { className: isOut ? "is-out" : "" },
    element("th", { scope: "row", className: "token-text" }, ...name),
    element("td", { className: "number" }, percent(probability)),
    element("td", { className: "number" }, isOut ? "out" : percent(drawn)),
    element("td", { className: "strip-cell", "aria-hidden": "true" }, strip));
}
