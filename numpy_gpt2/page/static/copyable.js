/** Lines of code with a button that copies them. */

import { element } from "./dom.js";

const NOT_ALLOWED = "This browser does not let the page copy. The lines are selected: copy them with Ctrl+C, or ⌘C.";

export class Copyable {
  /** @param {string} label what they are, for screen readers */
  constructor(label) {
    this.code = element("pre", { className: "python-lines", tabIndex: 0, role: "group", "aria-label": label });
    this.note = element("span", { className: "faint", role: "status" });
    this.element = element("div", { className: "copyable" }, this.code, element("div", { className: "buttons" },
      element("button", { type: "button", onclick: () => this.#copy() }, "Copy"), this.note));
  }

  set text(text) {
    this.code.textContent = text;
    this.note.textContent = "";
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.code.textContent);
      this.note.textContent = "Copied.";
    } catch {
      window.getSelection().selectAllChildren(this.code);
      this.note.textContent = NOT_ALLOWED;
    }
  }
}
