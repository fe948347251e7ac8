/** The texts in this browser: which one is open, a list of the others, export and import. */

import { byId, debounced, element } from "./dom.js";
import { StoreError, Text, hold, load, parseText, recall, remember, remove, save, summaries } from "./store.js";
import { Tree } from "./tree.js";

const WAIT = 300; // milliseconds from the last key to keeping the text
const PATIENCE = 1000; // milliseconds for a tab that is being closed to let go of its text
const RELOAD = 5000; // the same for this tab, which has been loaded again

/** Fires `open` when another text is open. */
export class Texts extends EventTarget {
  #release = null; // gives the lock back
  #isKept = true;
  #shown = null; // what the list shows

  /** @param {import("./work.js").Work} work */
  constructor(work) {
    super();
    this.work = work;
    this.text = new Text();
    this.keepSoon = debounced(() => this.#keep(), WAIT);
    byId("new-text").addEventListener("click", () => this.#open(new Text()));
    byId("export-text").addEventListener("click", () => download(this.text.tree.text(), "text/plain", "txt"));
    byId("export-json").addEventListener("click", () => download(toJSON(this.text), "application/json", "json"));
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", (event) => this.#import(event.target));
    byId("texts-where").textContent = `Kept in this browser, for the address ${location.host}.`;
    window.addEventListener("pagehide", () => this.keepSoon.now());
    document.addEventListener("visibilitychange", () => this.keepSoon.now());
    window.addEventListener("storage", () => this.#render());
  }

  /** Opens the text that this tab had open, else the one that was written last, else a new one. */
  async start() {
    const own = recall("open", "sessionStorage");
    const last = summaries()[0];
    const id = own ?? last?.id;
    if (id && (await this.#openKept(id, own ? RELOAD : PATIENCE))) return;
    this.#open(new Text());
    const title = summaries().find((summary) => summary.id === id)?.title;
    if (title) this.work.say(`“${title}” is open in another tab; this is a new text.`);
  }

  async #openKept(id, patience) {
    const release = await hold(id, patience);
    if (!release) return false;
    try {
      const text = load(id);
      if (text) this.#open(text, release);
      else release();
      return text !== null;
    } catch (error) {
      release();
      this.work.say(`This text cannot be opened: ${error.message}.`, true);
      return false;
    }
  }

  #open(text, release = null) {
    this.keepSoon.now();
    this.#release?.();
    this.#release = release;
    this.text = text;
    if (!release) this.#hold(text);
    remember("open", text.id, "sessionStorage");
    this.dispatchEvent(new Event("open"));
    this.#render();
  }

  async #hold(text) {
    const release = await hold(text.id, PATIENCE);
    if (this.text === text) this.#release = release;
    else release?.();
  }

  #keep() {
    try {
      const isCopy = save(this.text);
      if (isCopy) this.#becomeCopy();
      if (!this.#isKept) this.work.say("The text is kept again.");
      this.#isKept = true;
      this.#render();
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      this.#isKept = false;
      this.work.say(error.message, true);
    }
  }

  #becomeCopy() {
    this.#release?.();
    this.#hold(this.text);
    remember("open", this.text.id, "sessionStorage");
    this.work.say("Another tab has written this text; here it goes on as a copy.");
  }

  /** Shows the list; if nothing in it has changed it stays, so that a click on it is not lost. */
  #render() {
    const items = summaries().map(({ id, title, time }) => [id, title, id === this.text.id ? "open" : shortTime(time)]);
    const key = JSON.stringify(items);
    if (key === this.#shown) return;
    this.#shown = key;
    byId("texts").replaceChildren(...items.map((item) => this.#item(...item)));
  }

  #item(id, title, note) {
    const isOpen = id === this.text.id;
    const open = element("button", { type: "button", className: "text-title", onclick: () => this.#choose(id) },
      title, element("span", { className: "faint" }, note));
    if (isOpen) open.setAttribute("aria-current", "true");
    const ask = () => this.#delete(id, title);
    const away = element("button", { type: "button", className: "small", onclick: ask }, "Delete");
    away.setAttribute("aria-label", `Delete “${title}”`);
    return element("li", {}, open, away);
  }

  async #choose(id) {
    if (id === this.text.id) return;
    if (!(await this.#openKept(id, PATIENCE))) this.work.say("This text is open in another tab.");
  }

  async #delete(id, title) {
    if (!(await confirmed(`Delete “${title}” with all its versions? This cannot be undone.`))) return;
    const isOpen = id === this.text.id;
    const release = isOpen ? null : await hold(id, PATIENCE);
    if (!isOpen && !release) {
      this.work.say("This text is open in another tab.");
      return;
    }
    if (isOpen) this.keepSoon.cancel();
    remove(id);
    release?.();
    if (isOpen) this.#open(new Text());
    else byId("new-text").focus(); // the button that had the focus is gone
    this.#render();
  }

  async #import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      const content = await file.text();
      this.#open(file.name.endsWith(".json") ? parseText(content) : fromPlain(content));
      this.#keep();
      this.work.say(`${file.name} is open.`);
    } catch (error) {
      this.work.say(`${file.name} cannot be imported: ${error.message}.`, true);
    }
  }
}

const shortTime = (time) => new Date(time).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

const toJSON = (text) => JSON.stringify(text, null, 1);

function fromPlain(content) {
  const tree = new Tree();
  tree.record(content.replace(/\r\n?/g, "\n"), { how: "loaded" });
  return new Text(tree);
}

function download(content, type, ending) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  element("a", { href: url, download: `text.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Asks a question in a dialog; whether the answer was yes. */
function confirmed(question) {
  const dialog = byId("question");
  byId("question-text").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
