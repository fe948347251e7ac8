/** Suggestions: continuations of the text before the cursor, shown as they are made. */

import { answer } from "./answers.js";
import { counted, element, without } from "./dom.js";

const ENDS_IN_WORD = /[\p{L}\p{N}]$/u;
const NOTHING = {
  end_of_text: "nothing: the text ends here",
  stop: "nothing: a stop string comes first",
  length: "nothing new yet: a greater Length gives more",
};

export class Suggestions {
  #anchor = null; // the place in the text that is continued; null while no list is open
  #jobs = new Set();
  #rows = []; // that have ended, each with another text
  #n_batches = 0;

  /**
   * @param {object} parts
   * @param {import("./editor.js").Editor} parts.editor
   * @param {import("./popup.js").Popup} parts.popup
   * @param {import("./work.js").Work} parts.work
   * @param {import("./settings.js").Settings} parts.settings
   * @param {import("./models.js").Models} parts.models
   */
  constructor(parts) {
    Object.assign(this, parts);
    this.editor.addEventListener("change", () => this.drop());
    this.editor.addEventListener("caret", () => this.editor.caret !== this.#anchor && this.drop());
  }

  get isOpen() {
    return this.#anchor !== null;
  }

  /** Whether suggestions are still being made. */
  get isBusy() {
    return this.#jobs.size > 0;
  }

  /** Asks for suggestions; if there are some already, for others, which are added to the list. */
  async more() {
    if (!this.isOpen) this.#open();
    const batch = this.#newBatch();
    this.popup.activate(batch.rows[0].option);
    const job = this.work.run("Suggesting", (signal) => this.#read(batch, signal));
    this.#jobs.add(job);
    await job.done;
    this.#jobs.delete(job);
    for (const row of batch.rows) this.#end(row, batch.asked);
    for (const row of batch.rows) this.#merge(row);
  }

  /** Closes the list and stops the model. */
  drop() {
    if (this.isOpen) this.popup.close();
  }

  #open() {
    const { area, caret } = this.editor;
    area.focus();
    area.setSelectionRange(caret, caret);
    this.#n_batches = 0;
    this.popup.open(this.editor.rectangle(caret), true, true, () => this.#closed());
    this.#anchor = caret;
    this.popup.setTitle("Suggestions");
  }

  #closed() {
    this.#anchor = null;
    this.#rows = [];
    for (const job of this.#jobs) job.stop();
  }

  #newBatch() {
    const asked = this.settings.request(this.#n_batches++);
    const batch = { asked, rows: [], made: {} };
    for (let i = 0; i < asked.n; i++) batch.rows.push(this.#newRow(batch, i));
    return batch;
  }

  #newRow(batch, index) {
    const row = { index, text: "", ids: [], isDone: false, count: 1 };
    row.half = element("span", { className: "half" });
    row.shown = element("span");
    row.end = element("span", { className: "faint" }, "…");
    row.option = this.popup.add([row.half, row.shown, row.end], () => this.#take(row, batch));
    return row;
  }

  async #read({ asked, rows, made }, signal) {
    for await (const line of answer({ kind: "suggest", text: this.editor.before, ...asked }, signal)) {
      if ("seed" in line) this.#begin(rows, made, line);
      else if ("row" in line) this.#add(rows[line.row], asked, line);
      else this.#say(rows.length, made.seed, line);
    }
  }

  #begin(rows, made, { seed, n_dropped, half_word, model, n_unseen }) {
    Object.assign(made, { seed, n_dropped, model });
    this.settings.showSeed(seed);
    this.popup.setTitle(`Suggestions${without(n_unseen)}`);
    const half = ENDS_IN_WORD.test(half_word) ? half_word.trimStart() : "";
    for (const row of rows) row.half.textContent = half;
  }

  #add(row, asked, { text, ids, finish_reason }) {
    if (finish_reason) this.#end(row, asked, finish_reason);
    if (ids) row.ids.push(...ids);
    if (!text) return;
    row.text += text;
    row.shown.replaceChildren(...lines(row.text));
    this.popup.reveal();
  }

  #end(row, { stop }, reason) {
    if (row.isDone) return;
    row.isDone = true;
    const next = stop.length === 1 ? `“${stop[0]}”` : "a stop string";
    const stopped = reason === "stop" ? ` (stopped at ${next})` : "";
    row.end.textContent = row.text ? stopped : (NOTHING[reason] ?? "nothing yet: stopped");
  }

  /** Takes a suggestion out of the list if there is the same one, which then says so. */
  #merge(row) {
    if (!row.option.isConnected || !row.text) return;
    const same = this.#rows.find(({ text }) => text === row.text);
    if (!same) {
      this.#rows.push(row);
      return;
    }
    same.count++;
    same.end.textContent = ` (${same.count} times the same)`;
    this.popup.remove(row.option, same.option);
  }

  #say(n, seed, { tokens, tokens_per_second }) {
    const speed = tokens_per_second === null ? "" : `, ${Math.round(tokens_per_second)} tokens a second`;
    this.work.say(`${counted(n, "suggestion")}: ${counted(tokens, "token")}${speed}.`);
  }

  #take(row, { asked, made }) {
    if (!row.text) return;
    const place = this.#anchor;
    const { n, ...settings } = asked;
    this.drop();
    const detail = { how: "taken", ids: row.ids, ...made, row: row.index, settings: { ...settings, seed: undefined } };
    const isInside = place < this.editor.text.length;
    this.editor.replace(place, place, row.text, { ...detail, start: place });
    if (isInside) this.work.say("The suggestion is inserted before the rest of the text.");
  }
}

/** A text whose line ends can be seen. */
function lines(text) {
  return text.split(/(\n)/).map((part) => part === "\n" ? element("span", { className: "line-end" }, part) : part);
}
