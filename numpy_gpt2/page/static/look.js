/** The view "Look inside": the text as tokens, what is locked, and the parts of the view. */

import { PARTS } from "./address.js";
import { described } from "./changes.js";
import { byId, counted, element, shown } from "./dom.js";
import { Guessing } from "./guess.js";
import { ALONG, isPlain } from "./keys.js";
import { Attention } from "./look_attention.js";
import { Experiments } from "./look_experiments.js";
import { Layers } from "./look_layers.js";
import { Lines } from "./look_lines.js";
import { Origin } from "./look_origin.js";
import { Steps } from "./look_steps.js";
import { Question } from "./question.js";
import { reveal } from "./scrolling.js";

const KINDS = {
  lines: { title: "Line by line", Part: Lines },
  attention: { title: "Attention", Part: Attention },
  layers: { title: "Layers", Part: Layers },
  origin: { title: "Why this word", Part: Origin },
  steps: { title: "Generation", Part: Steps },
  experiments: { title: "Experiments", Part: Experiments },
};

export class Look {
  #pass = null; // sizes of the model and tokens of the text, as the server described them
  #asked = null; // the text and the model that `#pass` is about
  #model = ""; // the one that answered last
  #parts = new Map(); // by name, each with its `root`

  /**
   * @param {object} parts
   * @param {import("./address.js").Address} parts.address
   * @param {import("./editor.js").Editor} parts.editor
   * @param {import("./work.js").Work} parts.work
   * @param {import("./models.js").Models} parts.models
   * @param {Promise} parts.opened done when the editor has its text
   */
  constructor(parts) {
    Object.assign(this, parts);
    this.guessing = new Guessing();
    this.question = new Question(this.work, "Reading the text");
    this.tokens = byId("look-tokens");
    this.field = byId("look-text");
    this.tabs = PARTS.map((part) => element("a", {}, KINDS[part].title));
    byId("look-tabs").append(...this.tabs);
    this.#listen();
    this.#follow();
  }

  #listen() {
    this.address.addEventListener("change", () => this.#follow());
    this.models.addEventListener("change", () => this.#newModel());
    byId("look-form").addEventListener("submit", (event) => this.#newText(event));
    this.tokens.addEventListener("click", ({ target }) => this.#clicked(target.closest("[role='option']")));
    this.tokens.addEventListener("keydown", (event) => this.#onKey(event));
    byId("look-guess").checked = this.guessing.isOn;
    byId("look-guess").addEventListener("change", ({ target }) => (this.guessing.isOn = target.checked));
    this.guessing.addEventListener("change", () => this.#showScore());
    this.work.addEventListener("refused", ({ error }) => this.#showRefusal(error));
    for (const name of ["layer", "head"]) {
      const picker = byId(`look-${name}`);
      picker.addEventListener("change", () => this.address.go({ [name]: Number(picker.value), cell: null }));
    }
  }

  /** Shows what the address says. */
  async #follow() {
    const { state } = this.address;
    if (state.view !== "look" || !this.models.name) return;
    if (state.text === null || !state.model) {
      if (state.text === null) await this.opened;
      if (this.address.state !== state) return;
      const { text, model } = state;
      this.address.go({ text: text ?? this.editor.text, model: model || this.models.name }, { replace: true });
      return;
    }
    this.#showModel(state.model);
    const { text } = state;
    const asked = JSON.stringify([text, this.models.name]);
    if (asked !== this.#asked) this.#clear(text);
    this.#asked = asked;
    if (!text) return;
    if (!this.#pass) await this.#read(text);
    if (this.#pass && this.address.state === state) this.#show();
  }

  /** Forgets the pass of another text or model. */
  #clear(text) {
    this.#pass = null;
    this.question.stop();
    this.field.value = text;
    byId("look-body").hidden = true;
    this.tokens.replaceChildren();
    byId("look-note").textContent = text ? "" : "There is no text to look at yet: write a few words above.";
  }

  async #read(text) {
    const [pass] = (await this.question.ask({ kind: "look", text }, this.models.name)) ?? [];
    if (pass && pass !== this.#pass) this.#take(pass);
  }

  #take(pass) {
    this.#pass = pass;
    const options = pass.tokens.map(({ text }, i) => element("span", {
      id: `look-token-${i}`, role: "option", className: "look-token", "aria-selected": "false", title: `token ${i}`,
    }, ...shown(text)));
    this.tokens.replaceChildren(...options);
    fill(byId("look-layer"), pass.n_layer);
    fill(byId("look-head"), pass.n_head);
    byId("look-note").textContent = pass.n_unseen
      ? `The model sees ${counted(pass.tokens.length, "token")} at a time: the first ${counted(pass.n_unseen, "token")} of the text are not in this pass.`
      : "";
  }

  #show() {
    const state = fitted(this.address.state, this.#pass);
    this.#lock(state.token);
    byId("look-layer").value = state.layer;
    byId("look-head").value = state.head;
    this.#showChanges(state.changes);
    this.tabs.forEach((tab, i) => {
      tab.href = this.address.link({ part: PARTS[i] });
      if (PARTS[i] === state.part) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    });
    byId("look-body").hidden = false;
    const part = this.#part(state.part);
    for (const { root } of this.#parts.values()) root.hidden = root !== part.root;
    part.show(state, this.#pass);
  }

  /** A part, which is built when it is shown for the first time. */
  #part(name) {
    if (!this.#parts.has(name)) {
      const { title, Part } = KINDS[name];
      const root = element("section", { className: `part part-${name}`, "aria-label": title });
      byId("look-body").append(root);
      const { address, work, models, guessing } = this;
      this.#parts.set(name, Object.assign(new Part({ root, address, work, models, guessing }), { root }));
    }
    return this.#parts.get(name);
  }

  #lock(token) {
    this.tokens.querySelector("[aria-selected='true']")?.setAttribute("aria-selected", "false");
    const option = this.tokens.children[token];
    option.setAttribute("aria-selected", "true");
    this.tokens.setAttribute("aria-activedescendant", option.id);
    reveal(this.tokens, option);
    const { text } = this.#pass.tokens[token];
    byId("look-locked").replaceChildren(`Token ${token}: `, element("span", { className: "token-text" }, ...shown(text)));
  }

  #clicked(option) {
    if (option) this.address.go({ token: [...this.tokens.children].indexOf(option), cell: null });
  }

  #onKey(event) {
    if (!(event.key in ALONG) || !isPlain(event) || !this.#pass) return;
    event.preventDefault();
    const { token } = fitted(this.address.state, this.#pass);
    const moved = Math.max(0, Math.min(this.#pass.tokens.length - 1, token + ALONG[event.key]));
    this.address.go({ token: moved, cell: null }, { replace: true });
  }

  #showScore() {
    const { isOn, tries, score } = this.guessing;
    byId("look-score").textContent = isOn && tries ? score : "";
  }

  #newText(event) {
    event.preventDefault();
    this.address.go({ text: this.field.value, token: null, cell: null });
  }

  #newModel() {
    const isOther = this.#model && this.#model !== this.models.name;
    this.#model = this.models.name;
    if (isOther && this.address.state.view === "look") this.address.go({ model: this.#model }, { replace: true });
    else this.#follow();
  }

  /** Offers to load the model of the address, if another one answers. */
  #showModel(model) {
    const notice = byId("look-model");
    notice.hidden = !model || model === this.models.name;
    if (notice.hidden) return;
    const button = (text, onclick) => element("button", { type: "button", className: "small", onclick }, text);
    notice.replaceChildren(`This address was made with the model ${model}, but ${this.models.name} answers now. `,
      button(`Load ${model}`, () => this.models.use(model)), " ",
      button(`Stay with ${this.models.name}`, () => this.address.go({ model: this.models.name }, { replace: true })));
  }

  /** Says that the pass is not to be the model's own; whether it can have the changes, the answers show. */
  #showChanges(changes, refusal = "") {
    const notice = byId("look-changes");
    notice.hidden = !changes.length;
    if (notice.hidden) return;
    const list = changes.map(described).join("; ");
    const n = counted(changes.length, "change");
    const back = element("a", { href: this.address.link({ changes: [] }) },
      `Look at the pass without ${changes.length === 1 ? "it" : "them"}`);
    notice.replaceChildren(refusal ? `There is no pass with ${n} (${list}): ${refusal.replace(/\.$/, "")}. ` : `A pass with ${n}: ${list}. `, back);
  }

  /** Says so if the pass could not be computed with the changes of the address. */
  #showRefusal({ message, request, model }) {
    const { view, changes } = this.address.state;
    const isAbout = view === "look" && JSON.stringify(request.changes) === JSON.stringify(changes);
    if (isAbout && !model) this.#showChanges(changes, message);
  }
}

/** The state with a token, a layer and a head that there are. */
function fitted(state, { tokens, n_layer, n_head }) {
  const last = tokens.length - 1;
  return {
    ...state,
    token: Math.min(state.token ?? last, last),
    layer: Math.min(state.layer, n_layer - 1),
    head: Math.min(state.head, n_head - 1),
  };
}

function fill(select, n) {
  if (select.length === n) return;
  select.replaceChildren(...Array.from({ length: n }, (_, i) => element("option", { value: i }, String(i))));
}
