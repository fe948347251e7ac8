/** The part "origin" of the view "Look inside": from a token down to the lines that it came from. */

import { readTerms } from "./attribution.js";
import { Cell } from "./cell.js";
import { bar, counted, element, named, number, percent } from "./dom.js";
import { PredictionGuess, predictionAt } from "./guess_prediction.js";
import { Question } from "./question.js";
import { DERIVED, signed, sum, termsOf } from "./terms.js";
import { Words, largest } from "./words.js";

const N_TERMS = 10; // largest ones that are shown
const N_NAMED = 5; // words whose weight is said

export class Origin {
  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the part goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor({ root, address, work, guessing }) {
    Object.assign(this, { address, guessing });
    this.questions = {
      attribution: new Question(work, "Reading where a token came from"),
      row: new Question(work, "Reading where a head looks"),
      likeliest: new Question(work, "Reading the likeliest token"),
    };
    this.none = element("p", { className: "card", hidden: true });
    this.refused = element("p", { className: "refused" });
    this.about = element("p", { className: "origin-about" });
    this.terms = element("tbody", {});
    this.total = element("p", {});
    this.headTitle = element("h2", {});
    this.headAbout = element("p", { "aria-live": "polite" });
    this.words = new Words({
      label: "The words of the text, shaded by the weights of that head: Enter leads to where a word came from",
      onChoose: (token) => address.go({ token, cell: null }),
    });
    const columns = ["Part", "Adds"].map((name) => element("th", { scope: "col" }, name));
    this.headCard = element("section", { className: "card", "aria-label": "The attention of the head that added most" },
      this.headTitle, this.words.element, this.headAbout);
    const chain = element("div", { className: "origin-columns" },
      element("section", { className: "card", "aria-label": "What added to the logit" },
        element("h2", {}, "2. What added to its logit"),
        element("table", { className: "numbers bars" },
          element("caption", { className: "unseen" }, "The parts of the model that added most, the largest first"),
          element("thead", {}, element("tr", {}, ...columns, element("td", {}))), this.terms),
        this.total, element("p", { className: "faint" }, DERIVED)),
      element("div", { className: "origin-side" }, this.headCard));
    this.body = element("div", { className: "origin", hidden: true },
      element("section", { className: "card", "aria-label": "The prediction" }, element("h2", {}, "1. The prediction"), this.about), chain);
    this.headCard.hidden = true;
    this.guess = new PredictionGuess({ root, guessing });
    root.append(this.none, this.refused, this.body);
    this.cell = new Cell({ root: chain.lastChild, address, work });
    this.cell.element.firstChild.textContent = "4. The arithmetic of the logit";
    guessing.addEventListener("change", () => root.checkVisibility() && this.show(this.state, this.pass));
  }

  /** Shows the state of the address. */
  async show(state, pass) {
    if (pass !== this.pass) this.body.hidden = true; // its numbers are those of another text or model
    Object.assign(this, { state, pass });
    const { text, token, changes } = state;
    this.none.hidden = token > 0;
    this.guess.element.hidden = true;
    this.refused.textContent = "";
    if (token === 0) {
      this.questions.attribution.stop();
      this.body.hidden = true;
      this.none.replaceChildren(this.#word(0), pass.n_unseen
        ? " is the first token that the model sees in this pass: what it was predicted from is no longer in its context."
        : " is the first token of the text: nothing comes before it, so that no prediction led to it. Choose another one.");
      return;
    }
    const request = { kind: "attribution", text, position: token - 1, token: pass.tokens[token].id, changes };
    if (this.guessing.covers(predictionAt(token - 1, state, pass))) {
      this.body.hidden = true;
      await this.#ask({ ...request, token: null });
      return;
    }
    const read = (asked, signal) => readTerms(asked, signal, this.refused);
    const found = await this.questions.attribution.ask(request, pass.model, read);
    if (state !== this.state) return;
    this.body.hidden = !found;
    if (found) this.#show(found);
  }

  /** Asks what the model finds likeliest, before it is shown. */
  async #ask(request) {
    const { state, pass } = this;
    const { position } = request;
    const [found] = (await this.questions.likeliest.ask(request, pass.model)) ?? [];
    if (found && state === this.state) {
      this.guess.ask(predictionAt(position, state, pass), pass.tokens[position].text, found.token.text);
    }
  }

  async #show(found) {
    const { state, pass, address } = this;
    const { position, probability, rank, logit, token } = found;
    const cell = [0, position, token.id];
    const lines = element("a", { href: address.link({ part: "lines", name: "logits", token: position, cell }) }, "the line that computed it");
    this.about.replaceChildren(this.#word(position + 1), ` (token ${position + 1}) was predicted after `, this.#word(position),
      ` (token ${position}): ${percent(probability)}, rank ${rank.toLocaleString("en")} of ${counted(pass.n_vocab, "token")}. Its logit is `,
      element("strong", { className: "number" }, number(logit, 6)), ": ", lines, ".");
    const terms = termsOf(found).sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
    this.#showTerms(terms, found);
    await this.#showHead(terms.filter(({ isHead }) => isHead).reduce((a, b) => (b.value > a.value ? b : a)), position);
    if (state === this.state) this.cell.show({ ...state, name: "logits", cell }, pass);
  }

  #showTerms(terms, { total, logit }) {
    const most = Math.abs(terms[0].value);
    const rest = terms.slice(N_TERMS);
    const row = (name, value) => element("tr", {}, element("th", { scope: "row" }, name),
      element("td", { className: "number" }, signed(value)),
      element("td", { className: "strip-cell", "aria-hidden": "true" }, bar(value, most)));
    this.terms.replaceChildren(
      ...terms.slice(0, N_TERMS).map(({ text, value, place }) => row(element("a", { href: this.address.link(place) }, text), value)),
      row(`the other ${rest.length}`, sum(rest.map(({ value }) => value))));
    this.total.replaceChildren("The sum of all: ", element("strong", { className: "number" }, number(total, 6)),
      `; the logit is ${number(logit, 6)}.`);
  }

  async #showHead({ value, place: { layer, head } }, position) {
    const { state, pass, address } = this;
    const name = `h${layer}/attn/weights`;
    this.headTitle.textContent = `3. Where the head that added most looked: layer ${layer}, head ${head} (${signed(value)})`;
    this.words.show(pass.tokens);
    const request = { kind: "row", text: state.text, name, head, row: position, changes: state.changes };
    const [found] = (await this.questions.row.ask(request, pass.model)) ?? [];
    if (state !== this.state) return;
    this.headCard.hidden = !found;
    if (!found) return;
    const { values } = found;
    this.words.shade(values, position);
    this.words.reveal(position);
    const lookedAt = largest(values, N_NAMED);
    const link = (i, text) => element("a", {
      href: address.link({ part: "lines", layer, head, name, token: position, cell: [0, head, position, i] }),
      title: `${name}[0, ${head}, ${position}, ${i}]`,
    }, text);
    this.headAbout.replaceChildren(this.#word(position), " looked at ",
      ...lookedAt.flatMap((i, k) => [k ? ", " : "", this.#word(i), " ", link(i, percent(values[i]))]), ". ",
      link(lookedAt[0], "The line that computed these weights"), " · ",
      element("a", { href: address.link({ part: "attention", layer, head, token: position, cell: null }) }, "This head, large"));
  }

  #word(i) {
    return named(this.pass.tokens[i].text);
  }
}
