/** The part "layers" of the view "Look inside": what the model would predict after each layer, and what adds to it. */

import { answer } from "./answers.js";
import { Attribution, readTerms } from "./attribution.js";
import { bar, element, named, number, percent, shown } from "./dom.js";
import { PredictionGuess, predictionAt } from "./guess_prediction.js";
import { Lens } from "./lens.js";
import { Question } from "./question.js";

const N = 10; // tokens of the distribution

export class Layers {
  #explained = null; // the token whose logit is looked at; null: the likeliest one, until it is known
  #tokens = null; // the answer that the list shows
  #likeliest = []; // of them

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the part goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor({ root, address, work, guessing }) {
    Object.assign(this, { address });
    this.questions = {
      lens: new Question(work, "Reading the predictions of the layers"),
      next: new Question(work, "Reading the next token's distribution"),
      attribution: new Question(work, "Reading what adds to the logit"),
    };
    this.lens = new Lens({
      onChoose: (token, layer) => this.#lock(token, layer),
      isCovered: (token) => guessing.covers(predictionAt(token, this.state, this.pass)),
    });
    root.append(element("section", { className: "card", "aria-label": "Logit lens" },
      element("h2", {}, "Logit lens"),
      element("p", { className: "faint" }, "What the next token would be if the model ended there: the last layer norm and the "
        + "output head, applied to the embeddings (x) and to what leaves each block (h0, h1, …). The darker, the more probable "
        + "(on dark paper, the brighter); ✓ marks the token that does follow in the text. Row x mostly has the token itself: "
        + "the matrix that embeds the tokens scores them as well."),
      this.lens.element));
    this.next = element("tbody", {});
    this.nextTitle = element("p", { className: "faint" });
    const next = element("section", { className: "card", "aria-label": "The next token" }, element("h2", {}, "The next token"),
      this.nextTitle, table("The likeliest next tokens", ["Token", "Probability"], this.next));
    this.guess = new PredictionGuess({ root: next, guessing });
    this.norms = element("tbody", {});
    const norms = element("section", { className: "card", "aria-label": "The residual stream" },
      element("h2", {}, "The residual stream"),
      element("p", { className: "faint" }, "The root mean square of the vector of the chosen token, after the embeddings (x) and each layer."),
      table("Root mean square by layer", ["After", "Size"], this.norms));
    const columns = element("div", { className: "layers-columns" }, next, norms);
    root.append(columns);
    this.attribution = new Attribution({ root: columns, onChoose: (layer, head) => address.go({ layer, head }) });
    guessing.addEventListener("change", () => root.checkVisibility() && this.show(this.state, this.pass));
  }

  /** Shows the state of the address: one thing after another, since the model computes them one by one anyway. */
  async show(state, pass) {
    if (pass !== this.pass) this.#clear(pass);
    Object.assign(this, { state, pass });
    for (const show of [() => this.#showLens(), () => this.#showNext(), () => this.#showAttribution()]) {
      await show();
      if (state !== this.state) return;
    }
  }

  /** Forgets the numbers of another text or model. */
  #clear(pass) {
    this.lens.clear();
    this.lens.reserve(pass);
    this.attribution.body.hidden = true;
    for (const each of [this.norms, this.next, this.nextTitle]) each.hidden = true;
  }

  #lock(token, layer) {
    this.address.go({ token, cell: null, ...(layer < 0 ? {} : { layer }) });
  }

  async #showLens() {
    const { state, pass } = this;
    const request = { kind: "lens", text: state.text, changes: state.changes };
    const layers = await this.questions.lens.ask(request, pass.model, layersOf(pass.n_layer + 1));
    if (state !== this.state) return;
    this.norms.hidden = !layers;
    if (!layers) {
      this.lens.clear();
      return;
    }
    this.lens.show(layers, state, pass);
    const norms = layers.map((each) => each.norms[state.token]);
    const most = Math.max(...norms);
    this.norms.replaceChildren(...layers.map(({ name }, i) => row(name, number(norms[i], 5), bar(norms[i], most))));
  }

  async #showNext() {
    const { state, pass } = this;
    const { text, token, changes } = state;
    const request = { kind: "experiment", text, position: token, changes, n: N };
    const tokens = await this.questions.next.ask(request, pass.model, distribution);
    if (state !== this.state) return;
    for (const each of [this.next, this.nextTitle]) each.hidden = !tokens;
    if (!tokens) return;
    if (tokens !== this.#tokens) this.#drawNext(tokens);
    this.#markChoice();
    const [{ text: likeliest }] = this.#likeliest;
    const isCovered = this.guess.ask(predictionAt(token, state, pass), pass.tokens[token].text, likeliest);
    for (const each of [this.next, this.nextTitle, this.attribution.element]) each.hidden = isCovered;
  }

  /** Draws the list for a new answer only: who has chosen a token keeps the focus on it. */
  #drawNext(tokens) {
    this.#tokens = tokens;
    const { pass, state: { token } } = this;
    const likeliest = (this.#likeliest = tokens.toSorted((a, b) => b.after - a.after).slice(0, N));
    const most = likeliest[0].after;
    this.nextTitle.replaceChildren("After ", named(pass.tokens[token].text),
      ", by the model alone. Choose one to see what adds to its logit.");
    this.next.replaceChildren(...likeliest.map((each) => row(this.#choice(each), percent(each.after), bar(each.after, most))));
    const following = pass.tokens[token + 1];
    if (following && !likeliest.some(({ id }) => id === following.id)) {
      this.next.append(row(this.#choice(following), "follows", ""));
    }
  }

  #choice({ id, text }) {
    return element("button", {
      type: "button", className: "small token-text", value: id,
      onclick: () => this.address.go({ name: "logits", cell: [0, this.state.token, id] }),
    }, ...shown(text));
  }

  /** The token of the address, if it names one. */
  get #chosen() {
    const { name, cell, token } = this.state;
    return name === "logits" && cell?.[1] === token ? cell[2] : null;
  }

  #markChoice() {
    for (const choice of this.next.querySelectorAll("button")) {
      choice.setAttribute("aria-pressed", Number(choice.value) === this.#explained);
    }
  }

  async #showAttribution() {
    const { state, pass } = this;
    this.#explained = this.#chosen;
    const { text, token: position, changes } = state;
    const request = { kind: "attribution", text, position, token: this.#chosen, changes };
    const read = (asked, signal) => readTerms(asked, signal, this.attribution.refused);
    const found = await this.questions.attribution.ask(request, pass.model, read);
    if (state !== this.state) return;
    this.attribution.body.hidden = !found;
    if (!found) return;
    this.attribution.show(found, state, pass);
    this.#explained = found.token.id;
    this.#markChoice();
  }
}

/** Reads n lines, and says how many are there: in a large model, each may take seconds. */
const layersOf = (n) => async (request, signal, report) => {
  const lines = [];
  for await (const line of answer(request, signal)) report(lines.push(line) / n);
  return lines;
};

/** The likeliest tokens after a position: an experiment says them before it goes on to what else has changed. */
async function distribution(request, signal) {
  for await (const { tokens } of answer(request, signal)) if (tokens) return tokens;
}

function table(caption, columns, body) {
  return element("table", { className: "numbers bars" }, element("caption", { className: "unseen" }, caption),
    element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)), element("td", {}))), body);
}

function row(name, value, strip) {
  return element("tr", {}, element("th", { scope: "row" }, name), element("td", { className: "number" }, value),
    element("td", { className: "strip-cell", "aria-hidden": "true" }, strip));
}
