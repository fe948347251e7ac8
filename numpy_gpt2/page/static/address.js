/** The state of the page in its address, after the `#`: so that a view can be bookmarked, sent, and gone back to. */

import { debounced } from "./dom.js";

/** The parts of the view "Look inside", in the order of their tabs. */
export const PARTS = ["lines", "attention", "layers", "origin", "steps", "experiments"];

const WAIT = 200; // milliseconds: browsers refuse to change the address many times a second
const LONGEST = 20_000; // characters of a text: only its newest tokens can be looked at
const MOST_CHANGES = 32;
const MOST_FACTOR = 1000;
const NAME = /^\w+(\/\w+){0,4}$/; // of an array
const DEFAULTS = {
  view: "write", part: "lines", text: null, model: "", token: null, layer: 0, head: 0, name: "", cell: null, changes: [],
};

/**
 * Fires `change` when the state has changed, whether by `go`, a link, or the browser's Back.
 *
 * The state has: `view` ("write" or "look"), `part`, `text` (null: the text of the editor), `model` (its name, or ""),
 * `token` (the locked position in the pass; null: the last one), `layer`, `head`, `name` (of the chosen array, or ""),
 * `cell` (the index of the locked number in that array, or null) and `changes` (those that the pass is computed with).
 * What is malformed in an address is as if it were not there; whether the model has such a layer, `Look` sees.
 */
export class Address extends EventTarget {
  #state = read(location.hash, DEFAULTS);
  #writeSoon = debounced(() => history.replaceState(null, "", this.link()), WAIT);

  constructor() {
    super();
    window.addEventListener("hashchange", () => this.#follow());
    window.addEventListener("pagehide", () => this.#writeSoon.now());
  }

  get state() {
    return this.#state;
  }

  /**
   * Changes a part of the state.
   * @param {object} changes
   * @param {object} [how]
   * @param {boolean} [how.replace] whether it is a small move, to which Back does not lead
   */
  go(changes, { replace = false } = {}) {
    this.#writeSoon.now();
    this.#state = { ...this.#state, ...changes };
    const link = this.link();
    if (replace) this.#writeSoon();
    else if (link !== location.hash) history.pushState(null, "", link);
    this.dispatchEvent(new Event("change"));
  }

  /** The address of a state that differs from the present one by `changes`. */
  link(changes = {}) {
    return written({ ...this.#state, ...changes });
  }

  #follow() {
    this.#writeSoon.cancel();
    this.#state = read(location.hash, this.#state);
    this.dispatchEvent(new Event("change"));
  }
}

function written({ view, part, text, model, token, layer, head, name, cell, changes }) {
  if (view === "write") return "#write";
  const fields = {
    part, model, token, layer, head, name,
    cell: cell?.join(","),
    changes: changes.length ? JSON.stringify(changes) : "",
  };
  const given = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return `#look?${new URLSearchParams(given)}${text === null ? "" : `&${encoded(text)}`}`;
}

// Of the text that was written last: dozens of links have the same one, which may be long.
let last = { text: null, field: "" };

function encoded(text) {
  if (text !== last.text) last = { text, field: String(new URLSearchParams({ text: text.slice(-LONGEST) })) };
  return last.field;
}

/** The state that an address means. The view "Write" has no state, so that one can come back to `last`. */
function read(hash, last) {
  const [view, query = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  if (view !== "look") return { ...last, view: "write" };
  const fields = new URLSearchParams(query);
  const part = fields.get("part");
  const name = fields.get("name") ?? "";
  return {
    view,
    part: PARTS.includes(part) ? part : DEFAULTS.part,
    text: fields.get("text")?.slice(-LONGEST) ?? null,
    model: fields.get("model") ?? "",
    token: whole(fields.get("token")),
    layer: whole(fields.get("layer")) ?? DEFAULTS.layer,
    head: whole(fields.get("head")) ?? DEFAULTS.head,
    name: NAME.test(name) ? name : "",
    cell: /^\d{1,6}(,\d{1,6}){0,3}$/.test(fields.get("cell")) ? fields.get("cell").split(",").map(Number) : null,
    changes: changesIn(fields.get("changes")),
  };
}

const whole = (digits) => (/^\d{1,6}$/.test(digits ?? "") ? Number(digits) : null);

function changesIn(json) {
  try {
    const changes = JSON.parse(json ?? "[]");
    return changes.length <= MOST_CHANGES && changes.every(isChange) ? changes : [];
  } catch {
    return [];
  }
}

const GIVEN = { // what a change has, beside where it is made
  zero: () => true,
  scale: ({ factor }) => typeof factor === "number" && Math.abs(factor) <= MOST_FACTOR,
  put: ({ text }) => typeof text === "string",
};

/** Whether something has the form of a change; whether the model has such an array, only the answers say. */
function isChange({ name, how, head, position, ...given }) {
  const isPlace = (i) => i === undefined || (Number.isInteger(i) && i >= 0);
  return typeof name === "string" && NAME.test(name) && Object.hasOwn(GIVEN, how) && GIVEN[how](given) && isPlace(head) && isPlace(position);
}
