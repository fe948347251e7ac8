/** Direct logit attribution: what each part of the model adds to the logit of a token. */

import { AnswerError, lastAnswer } from "./answers.js";
import { element, named, number, percent } from "./dom.js";
import { Matrix } from "./matrix.js";
import { signedPicture } from "./shades.js";
import { DERIVED, signed, sum } from "./terms.js";

const ROOM = 300; // CSS pixels that the picture of the heads should fill
const [SMALLEST, LARGEST] = [12, 36]; // CSS pixels of a cell

/** The terms of a logit. That the changes of the pass leave no such terms is said in an element as well. */
export async function readTerms(request, signal, refused) {
  refused.textContent = "";
  try {
    return await lastAnswer(request, signal);
  } catch (error) {
    if (error instanceof AnswerError) refused.textContent = error.message;
    throw error;
  }
}

export class Attribution {
  #shown = null; // the answer

  /**
   * @param {object} options
   * @param {HTMLElement} options.root where it goes
   * @param {(layer: number, head: number) => void} options.onChoose a head was chosen
   */
  constructor({ root, onChoose }) {
    this.refused = element("p", { className: "refused" });
    this.about = element("p", {});
    this.total = element("p", { className: "sum" });
    this.matrix = new Matrix({
      label: "What each head adds to the logit, layers against heads: the arrows move from head to head, Enter locks one",
      onHover: (layer, head) => this.#say(layer, head),
      onChoose,
    });
    this.readout = element("p", { className: "readout", "aria-live": "polite" });
    this.table = element("tbody", {});
    const columns = ["Layer", "All heads", "Bias", "MLP"];
    this.body = element("div", { className: "attribution-body", hidden: true }, this.about, this.total,
      element("p", { className: "faint" }, DERIVED),
      element("div", { className: "attribution" },
        element("figure", {}, element("figcaption", { className: "faint" },
          "Heads: a row is a layer, a column a head. Orange adds, blue takes away."),
        element("div", { className: "scroll-box" }, this.matrix.element), this.readout),
        element("div", { className: "scroll-box" }, element("table", { className: "numbers" },
          element("caption", { className: "unseen" }, "What the parts of each layer add"),
          element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))),
          this.table))));
    this.element = element("section", { className: "card", "aria-label": "Direct logit attribution" },
      element("h2", {}, "What adds to the logit"), this.refused, this.body);
    root.append(this.element);
  }

  /**
   * Shows the terms of a logit.
   * @param {object} found the answer to `attribution`
   * @param {object} state of the address
   * @param {object} pass
   */
  show(found, { layer, head }, { tokens }) {
    if (found !== this.#shown) this.#draw(found, tokens);
    this.matrix.mark(layer, head);
    this.#say(layer, head);
  }

  #draw(found, tokens) {
    this.#shown = found;
    const { token, position, logit, probability, rank, terms, total } = found;
    this.about.replaceChildren("After ", named(tokens[position].text), ", the token ", named(token.text),
      ` has the logit ${number(logit, 6)}: ${percent(probability)}, rank ${rank.toLocaleString("en")}.`);
    const parts = {
      "embedding of the token": terms.token_embedding, "embedding of the position": terms.position_embedding,
      "all heads": sum(terms.heads.flat()), "biases of the attention": sum(terms.biases), MLPs: sum(terms.mlps),
      "bias of the last layer norm": terms.last_bias,
    };
    this.total.replaceChildren(...Object.entries(parts).flatMap(([name, value], i) =>
      [i ? " " : "", element("span", { className: "summand" }, element("strong", { className: "number" }, signed(value, 5)), ` ${name}`)]),
    " ", element("span", { className: "summand" }, "= ", element("strong", { className: "number" }, number(total, 6)), " in all"));
    const { length: n_head } = terms.heads[0];
    const width = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(ROOM / n_head)));
    this.matrix.draw(signedPicture(terms.heads), {
      width, rowLabels: terms.heads.map((_, i) => `h${i}`), columnLabels: terms.heads[0].map((_, i) => String(i)),
    });
    this.table.replaceChildren(...terms.heads.map((row, i) => element("tr", {}, element("th", { scope: "row" }, `h${i}`),
      ...[sum(row), terms.biases[i], terms.mlps[i]].map((value) => element("td", { className: "number" }, signed(value))))));
  }

  #say(layer, head) {
    this.readout.textContent = `Layer ${layer}, head ${head}: ${signed(this.#shown.terms.heads[layer][head], 6)}`;
  }
}
