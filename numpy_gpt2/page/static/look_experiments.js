/** The part "experiments" of the view "Look inside": changes of the pass, and what they do to it. */

import { answer, AnswerError } from "./answers.js";
import { ChangeForm } from "./change_form.js";
import { described, off, withoutPlaces } from "./changes.js";
import { Copyable } from "./copyable.js";
import { bar, debounced, element, named, percent, shown } from "./dom.js";
import { PredictionGuess, predictionAt } from "./guess_prediction.js";
import { MovedMap } from "./moved_map.js";
import { Switches } from "./switches.js";
import { QUIET } from "./work.js";

const WAIT = 150; // milliseconds after the last change of the state
const N = 10; // of the likeliest tokens before, and of those after
const WOMAN = "The old woman was so angry that";
const MAN = "The old man was so angry that";

export class Experiments {
  #asked = null; // the experiment whose answer is shown or on its way
  #mapped = null; // the text and changes whose map is complete
  #prediction = null; // the one that is shown: its name, the token before it, and its likeliest token
  #job = null;
  #askSoon = debounced(() => this.#ask(), WAIT);

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the part goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {import("./models.js").Models} parts.models
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor({ root, address, work, models, guessing }) {
    Object.assign(this, { root, address, work, models });
    const change = (changes) => address.go({ changes });
    this.switches = new Switches(change);
    this.form = new ChangeForm({ address, work, change });
    this.list = element("ul", { className: "changes" });
    this.effect = element("p", { className: "faint" });
    this.refused = element("p", { className: "refused", hidden: true });
    this.examples = element("ul", {});
    this.summary = element("p", { "aria-live": "polite" });
    this.rows = element("tbody");
    this.python = new Copyable("The lines of Python");
    this.map = new MovedMap();
    this.moved = section("What moved", this.map.element);
    this.table = this.#table();
    const prediction = section("The next token, before and after", this.summary, this.table);
    this.guess = new PredictionGuess({ root: prediction, guessing });
    guessing.addEventListener("change", () => this.#cover());
    this.results = element("div", { className: "experiment-results" },
      prediction,
      this.moved,
      section("The same in Python", this.python.element));
    root.append(element("div", { className: "experiment-columns" },
      element("div", { className: "experiment-makers" },
        section("Changes in effect", this.effect, this.list, this.refused),
        section("Examples", this.examples),
        section("Switch off", this.switches.element),
        section("Replace a value", this.form.element)),
      this.results));
  }

  /**
   * Shows the state of the address.
   * @param {object} state with a token, a layer and a head that the pass has
   * @param {object} pass sizes of the model and tokens of the text, as the answer to `look` has them
   */
  show(state, pass) {
    Object.assign(this, { state, pass });
    this.switches.show(state.changes, pass);
    this.form.show(state, pass);
    this.#showChanges(state.changes);
    this.#showExamples();
    if (this.#asked === this.#key) return;
    this.#asked = null;
    this.#job?.stop();
    this.results.setAttribute("aria-busy", "true");
    this.results.classList.add("is-old");
    this.#askSoon();
  }

  get #key() {
    return JSON.stringify([this.#mapKey, this.state.token]);
  }

  get #mapKey() {
    return JSON.stringify([this.models.name, this.state.text, this.state.changes]);
  }

  #showChanges(changes) {
    this.effect.textContent = changes.length
      ? "All parts of this view show the pass with these changes, until they are removed here."
      : "None: all parts of this view show the pass as the model computes it.";
    const remove = (change) => this.address.go({ changes: withoutPlaces(changes, [change]) });
    const items = changes.map((change) => element("li", {}, element("code", {}, described(change)),
      element("button", {
        type: "button", className: "small", onclick: () => remove(change), "aria-label": `Remove ${described(change)}`,
      }, "Remove")));
    const had = this.list.contains(document.activeElement);
    this.list.replaceChildren(...items);
    if (changes.length > 1) this.list.append(element("li", {}, this.#removeAll()));
    if (had) (this.list.querySelector("button") ?? this.switches.button)?.focus();
  }

  #removeAll() {
    const onclick = () => this.address.go({ changes: [] });
    return element("button", { type: "button", className: "small", onclick }, "Remove all");
  }

  /** Makes links to ready experiments, once: who follows one keeps the place. */
  #showExamples() {
    const examples = [[{ changes: off(0, "mlp") }, "This text without the MLP of layer 0"]];
    if (this.pass.model === "tiny") examples.unshift(
      [{ text: WOMAN, layer: 3, head: 1, changes: off(3, 1) },
        `“${WOMAN}”: without head 1 of layer 3, “she” becomes “he”`],
      [{ text: WOMAN, layer: 2, changes: [{ name: "h2", how: "put", text: MAN, position: 2 }] },
        "The same text: the value of h2 at “woman” is that of “man”"]);
    const { children } = this.examples;
    while (children.length > examples.length) this.examples.lastChild.remove();
    examples.forEach(([change, title], i) => {
      if (!children[i]) this.examples.append(element("li", {}, element("a", {})));
      const link = children[i].firstChild;
      link.href = this.address.link({ token: null, cell: null, ...change });
      link.textContent = title;
    });
  }

  #table() {
    const head = (name, kind) => element("th", { scope: "col" },
      element("span", { className: `swatch-${kind}`, "aria-hidden": "true" }), name);
    return element("table", { className: "picture before-after" },
      element("caption", { className: "unseen" }, "Probabilities of the likeliest tokens, before and after"),
      element("thead", {}, element("tr", {},
        element("th", { scope: "col" }, "Token"), head("Before", "before"), head("After", "after"), element("td"))),
      this.rows);
  }

  async #ask() {
    const { text, token, changes } = this.state;
    const key = (this.#asked = this.#key);
    const mapKey = this.#mapKey;
    this.refused.hidden = true;
    this.moved.hidden = !changes.length;
    const needsMap = changes.length > 0 && mapKey !== this.#mapped;
    if (needsMap) this.#beginMap();
    const request = { kind: "experiment", text, position: token, changes, n: N, model: this.pass.model };
    const read = (...job) => this.#read(request, needsMap, ...job).catch((error) => this.#refuse(error));
    this.#job = this.work.run("Comparing the pass with and without the changes", read, QUIET);
    const isDone = await this.#job.done;
    if (this.#asked !== key) return;
    this.results.removeAttribute("aria-busy");
    if (!isDone) this.#asked = null; // so that it is asked again
    if (!needsMap) return;
    this.#mapped = isDone ? mapKey : null;
    this.moved.hidden = !isDone; // half a map would say of the rest that it cannot move
  }

  #beginMap() {
    this.#mapped = null; // it shows no longer what it showed
    this.map.begin(this.pass.n_layer);
  }

  async #read(request, needsMap, signal, report) {
    for await (const line of answer(request, signal)) {
      if (signal.aborted) return false;
      if ("python" in line) this.python.text = line.python;
      else if ("tokens" in line) this.#compare(line.tokens);
      else {
        this.map.set(line);
        report(line.progress);
      }
      if ("tokens" in line && !needsMap) break;
    }
    return true;
  }

  #refuse(error) {
    if (error instanceof AnswerError) {
      this.refused.textContent = error.message;
      this.refused.hidden = false;
      this.results.hidden = true;
    }
    throw error;
  }

  #compare(tokens) {
    const { state, pass } = this;
    const { text: likeliest } = tokens.reduce((best, token) => (token.after > best.after ? token : best));
    this.#prediction = [predictionAt(state.token, state, pass), pass.tokens[state.token].text, likeliest];
    this.#cover();
    this.results.hidden = false;
    this.results.classList.remove("is-old");
    this.summary.replaceChildren(...this.#summary(tokens));
    const most = Math.max(...tokens.flatMap(({ before, after }) => [before, after]));
    this.rows.replaceChildren(...tokens.map(({ text, before, after }) => element("tr", {},
      element("th", { scope: "row", className: "token-text" }, ...shown(text)),
      element("td", { className: "number" }, percent(before)),
      element("td", { className: "number" }, percent(after)),
      element("td", { className: "strip-cell", "aria-hidden": "true" }, bar(before / most), bar(after / most)))));
  }

  /** Covers the prediction while it is to be guessed. */
  #cover() {
    if (!this.#prediction) return;
    const isCovered = this.guess.ask(...this.#prediction);
    for (const each of [this.summary, this.table]) each.hidden = isCovered;
  }

  #summary(tokens) {
    const [before, after] = ["before", "after"].map((when) =>
      tokens.reduce((best, token) => (token[when] > best[when] ? token : best)));
    const { state, pass } = this;
    const where = [`After token ${state.token} `, named(pass.tokens[state.token].text), ", the likeliest "];
    const first = [named(before.text), ` (${percent(before.before)})`];
    if (!state.changes.length) return [...where, "is ", ...first, ". There is no change yet."];
    if (before.id === after.id) return [...where, "stays ", ...first, `, now with ${percent(before.after)}.`];
    return [...where, "was ", ...first, " and becomes ", named(after.text), ` (${percent(after.after)}).`];
  }
}

function section(title, ...content) {
  return element("section", { "aria-label": title }, element("h2", {}, title), ...content);
}
