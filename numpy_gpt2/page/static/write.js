/** The view "Write": the editor with suggestions, alternatives, colours, branches and settings. */

import { Alternatives } from "./alternatives.js";
import { Branches } from "./branches.js";
import { Colours } from "./colours.js";
import { byId } from "./dom.js";
import { Picture } from "./picture.js";
import { Popup } from "./popup.js";
import { Settings } from "./settings.js";
import { Suggestions } from "./suggestions.js";
import { Texts } from "./texts.js";

const MODIFIERS = new Set(["Shift", "Alt", "Control", "Meta"]);
const NARROW = "(max-width: 60rem)";

export class Write {
  #leavesOnTab = false; // after an Escape that had no list to close

  /**
   * @param {object} parts
   * @param {import("./address.js").Address} parts.address
   * @param {import("./editor.js").Editor} parts.editor
   * @param {import("./work.js").Work} parts.work
   * @param {import("./models.js").Models} parts.models
   */
  constructor(parts) {
    Object.assign(this, parts);
    this.settings = new Settings();
    this.popup = new Popup(this.editor.area);
    this.suggestions = new Suggestions(this);
    this.alternatives = new Alternatives(this);
    this.colours = new Colours(this);
    this.picture = new Picture(this);
    this.branches = new Branches((id, end) => this.#goTo(id, end));
    this.texts = new Texts(this.work);
    this.#listen();
  }

  /** Opens the text that was open last. */
  async start() {
    for (const panel of document.querySelectorAll(".side .panel")) panel.open = !window.matchMedia(NARROW).matches;
    await this.texts.start();
  }

  #listen() {
    const { area } = this.editor;
    this.editor.addEventListener("change", ({ detail }) => this.#record(detail));
    this.texts.addEventListener("open", () => this.#opened());
    this.models.addEventListener("change", () => this.#newModel());
    area.addEventListener("keydown", (event) => this.#onKey(event));
    area.addEventListener("blur", ({ relatedTarget }) => relatedTarget && this.popup.close());
    area.addEventListener("focus", () => (this.#leavesOnTab = false));
    byId("suggest").addEventListener("pointerdown", (event) => event.preventDefault()); // the list stays open
    byId("suggest").addEventListener("click", () => this.#suggest());
  }

  #onKey(event) {
    if (event.isComposing || event.ctrlKey || event.metaKey || MODIFIERS.has(event.key)) return;
    const leaves = this.#leavesOnTab;
    this.#leavesOnTab = event.key === "Escape" && !this.popup.isOpen;
    if (event.key === "Escape") this.popup.close();
    if (!event.altKey && !event.shiftKey && this.popup.onKey(event.key)) event.preventDefault();
    else if (event.key === "Tab" && !event.shiftKey && !event.altKey && !leaves) this.#onTab(event);
    else if (event.key === "ArrowDown" && event.altKey) this.#showAlternatives(event);
  }

  /** Without a model the key does what it does elsewhere. */
  #onTab(event) {
    if (this.models.name) event.preventDefault();
    this.#suggest();
  }

  #showAlternatives(event) {
    event.preventDefault();
    this.suggestions.drop();
    this.alternatives.showAtCaret();
  }

  /** Nothing else is asked of the model until the suggestions are there. */
  async #suggest() {
    if (!this.models.name) await this.models.start();
    if (!this.models.name) return;
    if (this.settings.problem) {
      this.work.say(this.settings.problem, true);
      return;
    }
    this.colours.stop();
    this.picture.stop();
    await this.suggestions.more();
    if (this.suggestions.isBusy) return;
    this.colours.refresh();
    this.picture.refresh();
  }

  #record({ start, ...made }) {
    const { tree } = this.texts.text;
    if (made.how === "visited") tree.goTo(made.id, made.end);
    else tree.record(this.editor.text, made, start);
    if (made.how === "typed" && this.texts.text.isKept) this.work.forgetError();
    if (made.how === "typed") this.branches.renderSoon(tree);
    else this.branches.render(tree);
    this.texts.keepSoon();
  }

  #goTo(id, end) {
    const text = this.texts.text.tree.text(id).slice(0, end);
    this.editor.become(text, { how: "visited", id, end });
  }

  #opened() {
    this.popup.close();
    const { tree } = this.texts.text;
    this.editor.open(tree.text());
    this.editor.area.focus({ preventScroll: true });
    this.branches.render(tree);
    this.colours.restart();
    this.picture.refresh();
  }

  #newModel() {
    this.popup.close();
    this.settings.show(this.models.about.options);
    this.colours.restart();
    this.picture.refresh();
  }
}
