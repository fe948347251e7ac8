/** The texts in this browser: which one is open, a list of the others, export and import. */

import { byId, counted, debounced, element } from "./dom.js";
import { StoreError, Text, hold, load, parseText, recall, remember, remove, save, summaries } from "./store.js";
import { Tree } from "./tree.js";
import { QUIET } from "./work.js";

const WAIT = 300; // milliseconds from the last key to keeping the text
const PATIENCE = 1000; // milliseconds for a tab that is being closed to let go of its text
const RELOAD = 5000; // the same for this tab, which has been loaded again

/** Fires `open` when another text is open. */
export class Texts extends EventTarget {
  #release = null; // gives the lock back
  #shown = null; // what the list shows

  /** @param {import("./work.js").Work} work */
  constructor(work) {
    super();
    this.work = work;
    this.text = new Text();
    this.keepSoon = debounced(() => this.#keep(), WAIT);
    byId("new-text").addEventListener("click", () => this.#begin());
    byId("export-text").addEventListener("click", () => this.#export(this.text.tree.text(), "text/plain", "txt"));
    byId("export-json").addEventListener("click", () => this.#export(toJSON(this.text), "application/json", "json"));
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", (event) => this.#import(event.target));
    byId("texts-where").textContent = `Kept in this browser, for the address ${location.host}.`;
    window.addEventListener("beforeunload", (event) => this.#isSafe() || event.preventDefault());
    window.addEventListener("pagehide", () => this.keepSoon.now());
    document.addEventListener("visibilitychange", () => this.keepSoon.now());
    window.addEventListener("storage", () => this.#render());
  }

  /** Opens the text that this tab had open, else the one that was written last, else a new one. */
  async start() {
    const own = recall("open", "sessionStorage");
    const kept = summaries();
    const summary = own ? kept.find(({ id }) => id === own) : kept[0];
    const failure = summary && (await this.#openKept(summary, isReload() ? RELOAD : PATIENCE));
    if (summary && !failure) return;
    this.#open(new Text());
    if (failure) this.work.say(`${failure} Here is a new text.`);
  }

  /** Opens a text that is kept; what to say if that fails. */
  async #openKept({ id, title }, patience = PATIENCE) {
    const release = await this.#hold(id, patience);
    if (!release) return isElsewhere(title);
    try {
      const text = load(id);
      if (text && (await this.#mayLeave())) this.#open(text, release);
      else release();
      return text ? null : `“${title}” is no longer here.`;
    } catch (error) {
      release();
      return `“${title}” cannot be opened: ${error.message}.`;
    }
  }

  /** The lock on a text, as `hold` gives it; the wait for it can be seen and stopped. */
  #hold(id, patience = PATIENCE) {
    const task = (signal) => hold(id, patience, signal);
    return this.work.run("Waiting for another tab to close the text", task, QUIET).done;
  }

  async #begin() {
    if (await this.#mayLeave()) this.#open(new Text());
  }

  /** Keeps the open text; whether that is possible. */
  #isSafe() {
    this.keepSoon.now();
    if (!this.text.isKept) this.#keep(); // there may be room again
    return this.text.isKept;
  }

  async #mayLeave() {
    const question = "This browser could not keep the open text. What is new in it is lost unless you export it first.";
    return this.#isSafe() || confirmed(question, "Lose it");
  }

  #open(text, release = null) {
    this.keepSoon.now();
    this.#release?.();
    this.#release = release;
    this.text = text;
    if (!release) this.#holdOpen(text);
    remember("open", text.id, "sessionStorage");
    this.work.forgetError();
    this.dispatchEvent(new Event("open"));
    this.#render();
  }

  async #holdOpen(text) {
    const release = await this.#hold(text.id);
    if (this.text === text) this.#release = release;
    else release?.();
  }

  #keep() {
    try {
      const isCopy = save(this.text);
      if (isCopy) this.#becomeCopy();
      if (!this.text.isKept) this.work.say("The text is kept again.");
      this.text.isKept = true;
      this.#render();
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      this.text.isKept = false;
      this.work.say(error.message, true);
    }
  }

  #becomeCopy() {
    this.#release?.();
    this.#holdOpen(this.text);
    remember("open", this.text.id, "sessionStorage");
    this.work.say("Another tab has written this text; here it goes on as a copy.");
  }

  /** Shows the list; if nothing in it has changed it stays, so that a click on it is not lost. */
  #render() {
    const note = ({ id, time }) => (id === this.text.id ? "now open" : shortTime(time));
    const items = summaries().map((summary) => ({ id: summary.id, title: summary.title, note: note(summary) }));
    const key = JSON.stringify(items);
    if (key === this.#shown) return;
    this.#shown = key;
    const focused = document.activeElement.dataset.for;
    byId("texts").replaceChildren(...items.map((item) => this.#item(item)));
    if (focused) byId("texts").querySelector(`[data-for="${focused}"]`)?.focus();
  }

  #item({ id, title, note }) {
    const choose = { type: "button", className: "text-title", onclick: () => this.#choose({ id, title }) };
    const open = element("button", { ...choose, "data-for": `open-${id}` },
      element("span", { className: "text-name" }, title), element("span", { className: "faint" }, note));
    if (id === this.text.id) open.setAttribute("aria-current", "true");
    const ask = { type: "button", className: "small", onclick: () => this.#delete(id) };
    const away = element("button", { ...ask, "data-for": `delete-${id}` }, "Delete");
    away.setAttribute("aria-label", `Delete “${title}”`);
    return element("li", {}, open, away);
  }

  async #choose(summary) {
    if (summary.id === this.text.id) return;
    const failure = await this.#openKept(summary);
    if (failure) this.work.say(failure, true);
  }

  async #delete(id) {
    const { title, time, versions } = summaries().find((summary) => summary.id === id);
    const all = versions ? `with its ${counted(versions, "version")}` : "with all its versions";
    const question = `Delete “${title}” of ${shortTime(time)} ${all}? This cannot be undone.`;
    if (!(await confirmed(question, "Delete it"))) return;
    const isOpen = id === this.text.id;
    const release = isOpen ? null : await this.#hold(id);
    if (!isOpen && !release) {
      this.work.say(isElsewhere(title), true);
      return;
    }
    if (isOpen) this.keepSoon.cancel();
    remove(id);
    release?.();
    if (isOpen) this.#open(new Text());
    else byId("new-text").focus(); // the button that had the focus is gone
    if (!this.text.isKept) this.#keep(); // there may be room now
    this.#render();
  }

  #export(content, type, ending) {
    const name = `${fileName(this.text.title)}.${ending}`;
    download(content, type, name);
    const what = ending === "txt" ? "the text, to the letter" : "the text with all its versions";
    this.work.say(`${name} is ${what}.`);
  }

  async #import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      const content = await file.text();
      const text = /\.json$/i.test(file.name) ? parseText(content) : fromPlain(content, file.name.replace(/\.\w+$/, ""));
      if (!(await this.#mayLeave())) return;
      this.#open(text);
      this.#keep();
      if (text.isKept) this.work.say(`${file.name} is open.`);
    } catch (error) {
      this.work.say(`${file.name} cannot be imported: ${error.message}.`, true);
    }
  }
}

const shortTime = (time) => new Date(time).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

const isReload = () => performance.getEntriesByType("navigation")[0]?.type === "reload";

const isElsewhere = (title) => `“${title}” is open in another tab.`;

/** A name for a file: the title without what some system does not allow in a name, and the day. */
const fileName = (title) =>
  `${title.replace(/[\\/:*?"<>|…]|[. ]+$/g, "").trim()} ${new Date().toISOString().slice(0, 10)}`;

const toJSON = (text) => JSON.stringify(text, null, 1);

function fromPlain(content, name) {
  const tree = new Tree();
  tree.record(content.replace(/\r\n?/g, "\n"), { how: "loaded" });
  return new Text(tree, name);
}

function download(content, type, name) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Asks a question in a dialog; whether the answer was yes, in these words. */
function confirmed(question, yes) {
  const dialog = byId("question");
  dialog.querySelector("[value=yes]").textContent = yes;
  byId("question-text").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
