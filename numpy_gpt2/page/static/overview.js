/** The overview of the model, which is also a map: its parts, the shapes that flow between them, and where one is. */

import { element } from "./dom.js";

const NODES = [ // in the order of computation; `prefix` of the names of a part's arrays, in the block `h`
  { title: "Embeddings", prefix: () => "x", first: "positions" },
  { title: "ln_1", prefix: (h) => `${h}/ln_1` },
  { title: "attn", prefix: (h) => `${h}/attn` },
  { title: "+", prefix: (h) => `${h}/x`, label: "+: attention is added to the residual stream" },
  { title: "ln_2", prefix: (h) => `${h}/ln_2` },
  { title: "mlp", prefix: (h) => `${h}/mlp` },
  { title: "+", prefix: (h) => h, label: "+: the MLP is added to the residual stream" },
  { title: "ln_f", prefix: () => "ln_f" },
  { title: "Output head", prefix: () => "logits" },
];
const [BEGIN, END] = [1, 7]; // the nodes of a block

export class Overview {
  #blocks = []; // the links to the blocks

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the overview goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor({ root, address, guessing }) {
    Object.assign(this, { address, guessing });
    this.nodes = NODES.map(({ title, label }) => {
      const shape = element("span", { className: "node-shape" });
      const link = element("a", { className: "node" }, element("strong", {}, title), shape);
      return { link, shape, label: label ?? title };
    });
    const links = this.nodes.map(({ link }) => link);
    this.blocks = element("div", { className: "blocks" });
    const block = element("div", { className: "block-map" }, this.blocks,
      element("div", { className: "block-nodes" }, ...links.slice(BEGIN, END)));
    root.append(element("nav", { className: "overview", "aria-label": "Overview of the model" },
      ...links.slice(0, BEGIN), block, ...links.slice(END)));
  }

  /**
   * Shows where one is.
   * @param {object} state of the address
   * @param {object} pass
   * @param {object[]} arrays of the pass
   * @param {string} name of the array where one is
   */
  show(state, pass, arrays, name) {
    const h = `h${state.layer}`;
    this.#showBlocks(state, pass.n_layer, name);
    const groups = Map.groupBy(arrays, (array) => nodeOf(array.name, h));
    const here = nodeOf(name, h);
    this.nodes.forEach(({ link, shape, label }, i) => {
      const group = groups.get(i);
      link.hidden = !group;
      if (!group) return;
      const result = group.at(-1);
      shape.textContent = this.guessing.covers(result.name) ? "[?]" : `[${result.shape.join(", ")}]`;
      link.href = this.address.link({ name: group[0].name, cell: null });
      link.setAttribute("aria-label", `${label}: ${shape.textContent}`);
      current(link, i === here, "step");
    });
  }

  #showBlocks(state, n, name) {
    if (this.#blocks.length !== n) {
      this.#blocks = Array.from({ length: n }, (_, i) => element("a", { "aria-label": `Block ${i}` }, `h${i}`));
      this.blocks.replaceChildren(...this.#blocks);
    }
    this.#blocks.forEach((link, layer) => {
      const isIn = /^h\d/.test(name);
      const there = isIn ? name.replace(/^h\d+/, `h${layer}`) : `h${layer}/ln_1/centred`;
      link.href = this.address.link({ layer, name: there, cell: null });
      link.classList.toggle("is-shown", layer === state.layer);
      current(link, isIn && layer === state.layer, "true");
    });
  }
}

/** The index of the node to which an array belongs. */
function nodeOf(name, h) {
  return NODES.findIndex(({ prefix, first }) => name === first || name === prefix(h) || name.startsWith(`${prefix(h)}/`));
}

function current(link, isCurrent, what) {
  if (isCurrent) link.setAttribute("aria-current", what);
  else link.removeAttribute("aria-current");
}
