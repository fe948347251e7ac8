/**
 * The list by the cursor. The focus stays in the text; `aria-activedescendant` says which option is the active one.
 */

import { byId, element } from "./dom.js";

export class Popup {
  #options = []; // what `add` returned
  #close = null; // told when the list closes
  #ids = 0;
  #takesKeys = false;

  /** @param {HTMLTextAreaElement} area the text field that keeps the focus */
  constructor(area) {
    this.area = area;
    this.box = byId("popup");
    this.list = byId("popup-list");
    this.box.addEventListener("pointerdown", (event) => event.preventDefault()); // the focus stays in the text
    byId("popup-close").addEventListener("click", () => this.close());
  }

  get isOpen() {
    return !this.box.hidden;
  }

  /** Whether keys go to the list: not while it was only opened by the mouse. */
  get takesKeys() {
    return this.isOpen && this.#takesKeys;
  }

  /**
   * Opens an empty list, in place of one that is open.
   * @param {DOMRect} place where, in the window
   * @param {boolean} takesKeys whether arrows and Enter go to it
   * @param {boolean} isWide whether it is as wide as the text
   * @param {() => void} [onClose]
   */
  open(place, takesKeys, isWide, onClose = null) {
    this.close();
    this.#close = onClose;
    this.#takesKeys = takesKeys;
    this.box.classList.toggle("is-wide", isWide);
    this.box.hidden = false;
    this.area.setAttribute("aria-controls", this.list.id);
    const sheet = this.box.parentElement.getBoundingClientRect();
    const left = Math.min(place.left - sheet.left, sheet.width - this.box.offsetWidth);
    this.box.style.left = `${isWide ? 0 : Math.max(0, left)}px`;
    this.box.style.top = `${place.bottom - sheet.top + 4}px`;
  }

  /** Says what the list is; nodes or strings. */
  setTitle(...title) {
    byId("popup-title").replaceChildren(...title);
  }

  /**
   * Adds an option.
   * @param {Node[]} content
   * @param {(() => void)|null} take what choosing it does; null if it cannot be chosen
   * @returns {HTMLElement}
   */
  add(content, take) {
    const option = element("div", { id: `option-${this.#ids++}`, role: "option", className: "option" }, ...content);
    option.setAttribute("aria-selected", "false");
    if (take) option.addEventListener("click", take);
    else option.setAttribute("aria-disabled", "true");
    this.list.append(option);
    this.#options.push(option);
    return option;
  }

  /** Removes an option; if it is the active one, another one becomes that. */
  remove(option, other) {
    if (option === this.active) this.activate(other);
    this.#options.splice(this.#options.indexOf(option), 1);
    option.remove();
  }

  /** Makes an option the active one. */
  activate(option) {
    this.active?.setAttribute("aria-selected", "false");
    option.setAttribute("aria-selected", "true");
    this.area.setAttribute("aria-activedescendant", option.id);
    this.reveal();
  }

  get active() {
    return this.#options.find((option) => option.getAttribute("aria-selected") === "true");
  }

  /** Scrolls to the list, and in it to the active option. */
  reveal() {
    this.box.scrollIntoView({ block: "nearest" });
    this.active?.scrollIntoView({ block: "nearest" });
  }

  /** Moves to the next option (1) or the one before (-1), around the ends. */
  move(step) {
    const n = this.#options.length;
    if (!n) return;
    const from = this.#options.indexOf(this.active);
    this.activate(this.#options[(from < 0 ? (step > 0 ? 0 : n - 1) : from + step + n) % n]);
  }

  close() {
    if (!this.isOpen) return;
    this.box.hidden = true;
    this.#options = [];
    this.list.replaceChildren();
    this.area.removeAttribute("aria-activedescendant");
    this.area.removeAttribute("aria-controls");
    const close = this.#close;
    this.#close = null;
    close?.();
  }

  /** Handles a key that was pressed in the text; whether it was one for the list. */
  onKey(key) {
    if (!this.takesKeys) return false;
    if (key === "ArrowDown") this.move(1);
    else if (key === "ArrowUp") this.move(-1);
    else if (key === "Enter") this.active?.click();
    else return false;
    return true;
  }
}
