/** The panel that lists the versions of a text as a tree, and leads to them. */

import { byId, debounced, element, excerpt } from "./dom.js";
import { recall, remember } from "./store.js";

const MADE = { typed: "written", taken: "suggested", alternative: "alternative", loaded: "loaded" };
const DEEPEST = 6; // deeper rows are not indented further
const LONGEST = 90; // characters of a row
const WAIT = 100; // milliseconds after the last key

export class Branches {
  #items = [];
  #later = debounced(() => this.render(this.tree), WAIT);

  /** @param {(id: number, end: number) => void} goTo what choosing a row does */
  constructor(goTo) {
    this.goTo = goTo;
    this.list = byId("branches");
    this.small = byId("small");
    this.small.checked = recall("small") ?? false;
    this.small.addEventListener("change", () => this.#switch());
    this.list.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Shows a tree soon: while somebody types, not at every key. */
  renderSoon(tree) {
    this.tree = tree;
    this.#later();
  }

  /** Shows a tree. */
  render(tree) {
    this.#later.cancel();
    this.tree = tree;
    const rows = tree.versions.size > 1 ? tree.outline() : [];
    const n_small = rows.filter((row) => row.isSmall).length;
    const hadFocus = this.list.contains(document.activeElement);
    this.#items = rows.filter((row) => this.small.checked || !row.isSmall).map((row) => this.#item(row));
    this.list.replaceChildren(...this.#items);
    byId("branches-empty").hidden = rows.length > 0;
    byId("small-label").hidden = !n_small;
    byId("small-text").textContent = `Show small edits (${n_small})`;
    const current = this.#items.find((item) => item.getAttribute("aria-selected") === "true") ?? this.#items[0];
    if (current) current.tabIndex = 0;
    if (hadFocus) current?.focus();
    else current?.scrollIntoView?.({ block: "nearest" });
  }

  #switch() {
    remember("small", this.small.checked);
    this.render(this.tree);
  }

  #item({ id, end, depth, half, text, how, isCurrent }) {
    const name = excerpt(text, LONGEST).trim() || (text ? "(white space)" : "(nothing)");
    const item = element("li", { role: "treeitem", tabIndex: -1, className: `branch made-${how}` },
      element("span", { className: "branch-text" }, element("span", { className: "half" }, half), name),
      element("span", { className: "faint branch-how" }, isCurrent ? `${MADE[how]}, here` : MADE[how]));
    item.setAttribute("aria-level", depth + 1);
    item.setAttribute("aria-selected", isCurrent);
    item.style.setProperty("--depth", Math.min(depth, DEEPEST));
    item.addEventListener("click", () => this.goTo(id, end));
    return item;
  }

  #onKey(event) {
    const at = this.#items.indexOf(document.activeElement);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.#items.length - 1 }[event.key];
    if (event.key === "Enter") this.#items[at]?.click();
    else if (event.key === " ") this.#show(this.#items[at]);
    else if (next === undefined) return;
    else this.#focus(this.#items[next]);
    event.preventDefault();
  }

  /** Goes to a version as `click` does, which leads into the text, and back to the list. */
  #show(item) {
    item?.click();
    this.#focus(this.list.querySelector("[aria-selected='true']"));
  }

  #focus(item) {
    if (!item) return;
    for (const other of this.#items) other.tabIndex = -1;
    item.tabIndex = 0;
    item.focus();
  }
}
