/** A form that replaces the value of an array: by zero, by a multiple, or by what it is for another text. */

import { answer } from "./answers.js";
import { withThese } from "./changes.js";
import { element, excerpt } from "./dom.js";
import { labelled } from "./fields.js";

const QUIET = 400; // milliseconds until it is said that this runs
const ANY_TEXT = "a"; // every text has arrays of the same names
const HOW = { zero: "by zero", scale: "by a multiple of it", put: "by its value for another text" };

export class ChangeForm {
  #arrays = []; // of a pass, those of block 0 for all blocks
  #model = null; // the one that has them
  #job = null;

  /**
   * @param {object} parts
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {(changes: object[]) => void} parts.change takes the changes that are to be in effect
   */
  constructor({ address, work, change }) {
    Object.assign(this, { address, work, change });
    this.name = element("select", { id: "change-name" });
    this.how = choice("change-how", Object.entries(HOW));
    this.factor = element("input", { type: "number", id: "change-factor", step: 0.05, value: 0.5 });
    this.text = element("input", { type: "text", id: "change-text", autocomplete: "off", spellcheck: false });
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
    this.element.addEventListener("submit", (event) => this.#submit(event));
    this.name.addEventListener("change", () => this.address.go({ name: this.name.value, cell: null }));
    this.how.addEventListener("change", () => this.#showFields());
    this.#showFields();
  }

  /** Shows what can be changed in a pass, and what is locked. */
  async show(state, pass) {
    Object.assign(this, { state, pass });
    if (!this.text.value) this.text.value = state.text;
    this.#showPlaces();
    if (this.#model !== pass.model) await this.#read(pass.model);
    this.#showNames();
  }

  async #read(model) {
    this.#model = model;
    this.#job?.stop();
    this.#job = this.work.run("Listing the arrays of a pass", arraysOfPass, QUIET);
    this.#arrays = (await this.#job.done) ?? [];
    if (!this.#arrays.length) this.#model = null; // so that it is asked again
  }

  #showPlaces() {
    const { head, token } = this.state;
    this.head.options[1].text = `head ${head}, the locked one`;
    const name = excerpt(this.pass.tokens[token].text, 16);
    this.position.options[1].text = `position ${token} “${name}”, the locked one`;
  }

  /** The names of the locked layer. An array that was chosen in another layer is chosen in this one. */
  #showNames() {
    const { layer, name } = this.state;
    const inLayer = (each) => each.replace(/^h\d+/, `h${layer}`);
    const groups = { "Embeddings": [], [`Block ${layer}`]: [], "After the blocks": [] };
    const [before, block, after] = Object.values(groups);
    for (const array of this.#arrays) (/^h\d/.test(array.name) ? block : block.length ? after : before).push(array);
    this.name.replaceChildren(...Object.entries(groups).map(([label, arrays]) => element("optgroup", { label },
      ...arrays.map(({ name, also }) => element("option", { value: inLayer(name) }, inLayer(also ?? name))))));
    const known = this.#arrays.find((array) => [array.name, array.also].map((each) => each && inLayer(each)).includes(inLayer(name)));
    this.name.value = inLayer(known?.name ?? "h0/attn/a");
    const chosen = this.#arrays.find((array) => inLayer(array.name) === this.name.value);
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

async function arraysOfPass(signal) {
  const arrays = [];
  for await (const line of answer({ kind: "lines", text: ANY_TEXT, layer: 0 }, signal)) {
    if ("name" in line) arrays.push(line);
  }
  return arrays;
}

function choice(id, options) {
  return element("select", { id }, ...options.map(([value, text]) => element("option", { value }, text)));
}
