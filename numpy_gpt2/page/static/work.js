/** What runs: says what for, how far it is, and lets one stop it. Errors become a sentence in the status line. */

import { AnswerError, isStop } from "./answers.js";
import { byId } from "./dom.js";

export const QUIET = 400; // milliseconds that a task may run before it is shown, where it is mostly short

/** Fires `refused`, with its `error`, when a request was not answered, or not to its end. */
export class Work extends EventTarget {
  constructor() {
    super();
    this.jobs = new Set();
    this.failed = null; // what the error is about that the status line shows
    const stop = byId("stop");
    stop.addEventListener("pointerdown", (event) => event.preventDefault()); // the cursor stays in the text
    stop.addEventListener("click", () => this.stop());
    this.say(""); // in place of what an exported page says until it runs
  }

  /**
   * Runs a task until it ends, fails or is stopped.
   * @param {string} what what the wait is for: `Reading the text`
   * @param {(signal: AbortSignal, report: (share: number|null, what?: string) => void) => Promise} task
   * @param {number} [quiet] how long the task may run before it is shown, in milliseconds
   * @returns {{stop: () => void, done: Promise}} `done` gives what the task gave; undefined if it did not end well
   */
  run(what, task, quiet = 0) {
    const job = { what, share: undefined, isShown: quiet === 0, controller: new AbortController() };
    this.jobs.add(job);
    const show = () => {
      job.isShown = true;
      this.#render();
    };
    const timer = setTimeout(show, quiet);
    this.#render();
    const done = this.#result(job, task).finally(() => {
      clearTimeout(timer);
      this.jobs.delete(job);
      this.#render();
    });
    return { stop: () => job.controller.abort(), done };
  }

  /** Stops all that runs. */
  stop() {
    for (const job of this.jobs) job.controller.abort();
    this.say("Stopped.");
  }

  /** Shows a sentence, which screen readers read out. */
  say(sentence, isError = false) {
    this.failed = null;
    const status = byId("status");
    status.textContent = sentence;
    status.classList.toggle("is-error", isError);
  }

  /** Takes an error out of the status line, since something else is being done now. */
  forgetError() {
    if (byId("status").classList.contains("is-error")) this.say("");
  }

  async #result(job, task) {
    const report = (share, what = job.what) => {
      Object.assign(job, { share, what });
      this.#render();
    };
    try {
      const result = await task(job.controller.signal, report);
      if (this.failed === job.what) this.say("");
      return result;
    } catch (error) {
      if (isStop(error)) return undefined;
      if (!(error instanceof AnswerError)) throw error;
      if (!error.model) {
        this.say(error.message, true);
        this.failed = job.what;
      }
      this.dispatchEvent(Object.assign(new Event("refused"), { error }));
      return undefined;
    }
  }

  #render() {
    const shown = [...this.jobs].filter((job) => job.isShown);
    byId("work").hidden = !shown.length;
    if (!shown.length) return;
    const { what, share } = shown.at(-1);
    byId("work-what").textContent = `${what}…`;
    const progress = byId("work-progress");
    progress.hidden = share === undefined;
    if (share === null) progress.removeAttribute("value");
    else if (share !== undefined) progress.value = share;
  }
}
