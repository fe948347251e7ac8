/** The settings: a labelled control for each, with its default. They are kept in the browser. */

import { byId, element } from "./dom.js";
import { helpLine, helpOf, labelled, numberIn, numberInput, words } from "./fields.js";
import { recall, remember } from "./store.js";

const OWN = [
  { name: "n", label: "Suggestions", default: 3, help: "how many at a time", ...between(1, 16) },
  { name: "max_new_tokens", label: "Length", default: 12, help: "tokens at most", ...between(1, 1024) },
];
const MOST_SEED = 2 ** 52; // so that the next seeds are whole numbers as well
const SEED_HELP = "empty for a new one each time; the same seed gives the same suggestions";
const STOP_HELP = "one a line, \\n for a line end; a suggestion ends before the first of them";

/** Fires `change` when a setting has changed. */
export class Settings extends EventTarget {
  #inputs = new Map(); // by name
  #options = []; // of the sampling, as the server described them

  constructor() {
    super();
    this.form = byId("settings");
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.#changed());
  }

  /** Makes the controls. */
  show(options) {
    if (this.#options.length) return;
    this.#options = options;
    const kept = recall("settings") ?? {};
    const numbers = [...OWN, ...options].map((option) => this.#number(option, kept[option.name]));
    const reset = element("button", { type: "button", onclick: () => this.#reset() }, "All defaults");
    this.form.replaceChildren(...numbers, this.#seed(kept.seed), this.#stop(kept.stop), helpLine(this.form), reset);
    this.#check();
  }

  /** The first setting that cannot be asked for, as a sentence; null if there is none. */
  get problem() {
    const wrong = [...this.#inputs.values()].find((input) => input.ariaInvalid === "true");
    return wrong ? `${wrong.labels[0].textContent} ${byId(`wrong-${wrong.id}`).textContent}.` : null;
  }

  /**
   * What to ask for.
   * @param {number} batch how many times the same place was asked about before; with a seed, each time with the next
   */
  request(batch) {
    const seed = this.#inputs.get("seed").value.trim();
    const [n, max_new_tokens] = OWN.map((option) => this.#value(option));
    const options = Object.fromEntries(this.#options.map((option) => [option.name, this.#value(option)]));
    const stop = this.#inputs.get("stop").value.split("\n").filter(Boolean).map(unescaped);
    return { n, max_new_tokens, seed: seed ? Number(seed) + batch : null, stop, options };
  }

  /** Shows the seed that was used last. */
  showSeed(seed) {
    if (this.#inputs.get("seed").value) {
      byId("seed-used").replaceChildren();
      return;
    }
    const used = element("span", {}, `last: ${seed} `);
    const keep = element("button", { type: "button", className: "small", onclick: () => this.#keepSeed(seed) }, "Keep");
    byId("seed-used").replaceChildren(used, keep);
  }

  /** Says below each control what is wrong with it. */
  #check() {
    for (const option of [...OWN, ...this.#options]) this.#mark(option.name, isNumberFor(option), option.range);
    this.#mark("seed", isSeed, `a whole number below ${MOST_SEED.toLocaleString("en")}`);
  }

  #mark(name, isRight, range) {
    const input = this.#inputs.get(name);
    input.ariaInvalid = !isRight(input);
    byId(`wrong-${input.id}`).textContent = isRight(input) ? "" : `must be ${range}`;
  }

  #keepSeed(seed) {
    this.#inputs.get("seed").value = seed;
    byId("seed-used").replaceChildren();
    this.#changed();
  }

  #number(option, kept) {
    const input = numberInput(option, `set-${option.name}`, kept);
    return this.#labelled(option.name, option.label ?? words(option.name), input, helpOf(option));
  }

  #seed(kept = "") {
    const properties = { type: "text", id: "set-seed", inputMode: "numeric", autocomplete: "off", value: kept };
    const input = element("input", properties);
    const row = this.#labelled("seed", "Seed", input, SEED_HELP);
    row.append(element("p", { id: "seed-used", className: "faint seed-used" }));
    return row;
  }

  #stop(kept = "") {
    const input = element("textarea", { id: "set-stop", rows: 2, value: kept, spellcheck: false });
    return this.#labelled("stop", "Stop strings", input, STOP_HELP);
  }

  #labelled(name, label, input, help) {
    this.#inputs.set(name, input);
    return labelled(label, input, help);
  }

  #value(option) {
    return numberIn(this.#inputs.get(option.name), option);
  }

  #reset() {
    for (const option of [...OWN, ...this.#options]) this.#inputs.get(option.name).value = option.default;
    for (const name of ["seed", "stop"]) this.#inputs.get(name).value = "";
    this.#changed();
  }

  #changed() {
    this.#check();
    remember("settings", Object.fromEntries([...this.#inputs].map(([name, input]) => [name, input.value])));
    this.dispatchEvent(new Event("change"));
  }
}

function between(low, high) {
  return { low, high, whole: true, range: `a whole number, ${low} to ${high}` };
}

const unescaped = (line) => line.replace(/\\(n|t|\\)/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]);

/** Whether a control holds a number that an option accepts, or none for the default. */
const isNumberFor = ({ low, high, whole }) => ({ value, validity }) => {
  const isInRange = Number(value) >= low && (high === null || Number(value) <= high);
  return !validity.badInput && (value === "" || (isInRange && !(whole && Number(value) % 1)));
};

const isSeed = ({ value }) => /^\s*\d*\s*$/.test(value) && Number(value) < MOST_SEED;
