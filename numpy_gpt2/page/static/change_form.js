/** A form that replaces the value of an array: by zero, by a multiple, or by what it is for another text. */

import { withThese } from "./changes.js";
import { element, excerpt } from "./dom.js";
import { helpLine, labelled } from "./fields.js";
import { inLayer, isInBlock } from "./names.js";
import { Question } from "./question.js";

const ANY_TEXT = "a"; // every text has arrays of the same names
const HOW = { zero: "by zero", scale: "by a multiple of it", put: "by its value for another text" };

export class ChangeForm {
  #arrays = []; // of a pass, those of block 0 for all blocks
  #proposed = ""; // as the other text, for somebody to change

  /**
   * @param {object} parts
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {(changes: object[]) => void} parts.change takes the changes that are to be in effect
   */
  constructor({ address, work, change }) {
    Object.assign(this, { address, change });
    this.question = new Question(work, "Listing the arrays of a pass");
    this.name = element("select", { id: "change-name" });
    this.how = choice("change-how", Object.entries(HOW));
    this.factor = element("input", { type: "number", id: "change-factor", step: 0.05, value: 0.5 });
    this.text = element("textarea", { id: "change-text", rows: 2, autocomplete: "off", spellcheck: false });
    this.head = choice("change-head", [["all", "all heads"], ["locked", ""]]);
    this.position = choice("change-position", [["all", "all positions"], ["locked", ""]]);
    this.fields = {
      scale: labelled("Times", this.factor, "1 leaves it as it is, −1 changes its sign"),
      put: labelled("The other text", this.text, "it must have as many tokens"),
    };
    this.element = element("form", { className: "change-form", noValidate: true },
      labelled("Array", this.name, "those of the layer that is chosen above; a click on a line chooses as well"),
      labelled("Replace", this.how, "what comes in place of the value"),
      this.fields.scale, this.fields.put,
      labelled("Heads", this.head, "for arrays that have an axis of heads"),
      labelled("Positions", this.position, "of the text; for scores and weights, those of the queries"),
      element("button", {}, "Replace it"));
    this.element.append(helpLine(this.element));
    this.element.addEventListener("submit", (event) => this.#submit(event));
    this.name.addEventListener("change", () => this.address.go({ name: this.name.value, cell: null }));
    this.how.addEventListener("change", () => this.#showFields());
    this.#showFields();
  }

  /** Shows what can be changed in a pass, and what is locked. */
  async show(state, pass) {
    Object.assign(this, { state, pass });
    if (this.text.value === this.#proposed) this.text.value = this.#proposed = state.text;
    this.#showPlaces();
    const lines = await this.question.ask({ kind: "lines", text: ANY_TEXT, layer: 0 }, pass.model);
    if (state !== this.state) return;
    this.#arrays = (lines ?? []).filter((line) => "name" in line);
    this.#showNames();
  }

  #showPlaces() {
    const { head, token } = this.state;
    this.head.options[1].text = `head ${head}, the chosen one`;
    const name = excerpt(this.pass.tokens[token].text, 16);
    this.position.options[1].text = `position ${token} “${name}”, the chosen one`;
  }

  /** The names in the locked layer. An array that was chosen in another layer is chosen in this one. */
  #showNames() {
    const { layer } = this.state;
    const arrays = this.#arrays.map(({ name, also, n_heads }) =>
      ({ name: inLayer(name, layer), also: also && inLayer(also, layer), n_heads }));
    const first = arrays.findIndex(({ name }) => isInBlock(name));
    const place = ({ name }, i) => (isInBlock(name) ? 1 : i < first ? 0 : 2);
    const groups = ["Embeddings", `Layer ${layer}`, "After the layers"].map((label, k) => element("optgroup", { label },
      ...arrays.filter((array, i) => place(array, i) === k).map(option)));
    this.name.replaceChildren(...groups);
    const wanted = inLayer(this.state.name, layer) || `h${layer}/attn/a`;
    const chosen = arrays.find(({ name, also }) => name === wanted || also === wanted) ?? arrays[0];
    this.name.value = chosen?.name;
    this.head.disabled = chosen?.n_heads !== this.pass.n_head;
    if (this.head.disabled) this.head.value = "all";
  }

  #showFields() {
    for (const [how, field] of Object.entries(this.fields)) field.hidden = how !== this.how.value;
  }

  #submit(event) {
    event.preventDefault();
    const { changes, head, token } = this.state;
    const how = this.how.value;
    const change = {
      name: this.name.value,
      how,
      ...(how === "scale" ? { factor: this.factor.valueAsNumber } : {}),
      ...(how === "put" ? { text: this.text.value } : {}),
      ...(this.head.value === "locked" ? { head } : {}),
      ...(this.position.value === "locked" ? { position: token } : {}),
    };
    this.change(withThese(changes, [change]));
  }
}

const option = ({ name, also }) => element("option", { value: name }, also ?? name);

function choice(id, options) {
  return element("select", { id }, ...options.map(([value, text]) => element("option", { value }, text)));
}
