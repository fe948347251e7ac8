/** A grid of switches: layers by heads, with the attention, the MLP and the whole block of each. */

import { includesAll, off, withThese, withoutPlaces } from "./changes.js";
import { element } from "./dom.js";
import { ACROSS, isPlain } from "./keys.js";

const PARTS = { attention: "attn", mlp: "MLP", block: "all" };

export class Switches {
  #buttons = []; // rows of buttons, each with its changes as `off`
  #changes = [];
  #size = null; // of the model for which the grid was made

  /** @param {(changes: object[]) => void} change takes the changes that are to be in effect */
  constructor(change) {
    this.change = change;
    this.table = element("table", { className: "switches" });
    this.element = element("div", {},
      element("p", { className: "faint" },
        "A click switches a part of a layer off, so that it adds nothing, or on again. The arrow keys go from one to " +
        "the next."),
      element("div", { className: "wide" }, this.table));
    this.table.addEventListener("keydown", (event) => this.#onKey(event));
    this.table.addEventListener("focusin", ({ target }) => this.#makeStop(target));
    this.table.addEventListener("click", ({ target }) => this.#toggle(target.closest("button")));
  }

  /** The switch that the Tab key reaches. */
  get button() {
    return this.table.querySelector("[tabindex='0']");
  }

  /** Shows which parts are off. */
  show(changes, { n_layer, n_head }) {
    this.#changes = changes;
    const size = `${n_layer} ${n_head}`;
    if (size !== this.#size) this.#make(n_layer, n_head);
    this.#size = size;
    for (const button of this.#buttons.flat()) button.setAttribute("aria-pressed", includesAll(changes, button.off));
  }

  #make(n_layer, n_head) {
    const parts = [...Array(n_head).keys(), ...Object.keys(PARTS)];
    this.#buttons = Array.from({ length: n_layer }, (_, layer) => parts.map((part) => switchOf(layer, part)));
    this.#buttons[0][0].tabIndex = 0;
    const rows = this.#buttons.map((buttons, layer) => element("tr", {},
      element("th", { scope: "row" }, String(layer)), ...buttons.map((button) => element("td", {}, button))));
    const head = (text, colSpan) => element("th", { scope: "colgroup", colSpan }, text);
    this.table.replaceChildren(
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "layer"), head("heads", n_head), head("parts", 3))),
      element("tbody", {}, ...rows));
  }

  #toggle(button) {
    if (!button) return;
    const isOff = includesAll(this.#changes, button.off);
    this.change((isOff ? withoutPlaces : withThese)(this.#changes, button.off));
  }

  #onKey(event) {
    if (!(event.key in ACROSS) || !isPlain(event)) return;
    event.preventDefault();
    const row = this.#buttons.findIndex((buttons) => buttons.includes(event.target));
    const column = this.#buttons[row].indexOf(event.target);
    const [down, right] = ACROSS[event.key];
    this.#buttons[row + down]?.[column + right]?.focus();
  }

  #makeStop(button) {
    this.button.tabIndex = -1;
    button.tabIndex = 0;
  }
}

function switchOf(layer, part) {
  const name = { attention: "the attention", mlp: "the MLP", block: "the whole" }[part] ?? `head ${part}`;
  const label = part === "block" ? `Switch off layer ${layer}` : `Switch off ${name} of layer ${layer}`;
  const button = element("button", {
    type: "button", className: "switch-off", tabIndex: -1, "aria-label": label, title: label,
  }, PARTS[part] ?? String(part));
  return Object.assign(button, { off: off(layer, part) });
}
