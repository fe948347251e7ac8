/** A question that the view "Look inside" asks again and again, each time about something else. */

import { answer } from "./answers.js";
import { QUIET } from "./work.js";

const WAIT = 120; // milliseconds before what is asked while an older question runs: the next one may come soon

/** Another question stops the older one; the same one is asked only once. */
export class Question {
  #key = null; // what was asked last
  #job = null;
  #isRunning = false;

  /**
   * @param {import("./work.js").Work} work
   * @param {string} what what the wait is for: `Reading a row`
   */
  constructor(work, what) {
    Object.assign(this, { work, what });
  }

  /**
   * Asks, unless the same was asked last.
   * @param {object} request
   * @param {string} model the one that is to answer: another one, which somebody has loaded elsewhere, refuses
   * @param {(request: object, signal: AbortSignal, report: (share: number) => void) => Promise} [read] what is made of the
   *   answer; by default, its lines
   * @returns {Promise} what `read` gave; undefined if it did not end well, or something else was asked meanwhile
   */
  async ask(request, model, read = linesOf) {
    const asked = { ...request, model };
    const key = JSON.stringify(asked);
    if (key !== this.#key) {
      const wait = this.#isRunning ? WAIT : 0;
      this.stop();
      this.#key = key;
      this.#isRunning = true;
      const task = (signal, report) => later(wait, signal, () => read(asked, signal, report));
      this.#job = this.work.run(this.what, task, QUIET);
    }
    const job = this.#job;
    const found = await job.done;
    if (job !== this.#job) return undefined;
    this.#isRunning = false;
    if (!found) this.#key = null; // so that it is asked again
    return found;
  }

  /** Stops, and forgets what was asked. */
  stop() {
    this.#job?.stop();
    this.#job = this.#key = null;
    this.#isRunning = false;
  }
}

async function later(wait, signal, action) {
  if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
  signal.throwIfAborted();
  return action();
}

async function linesOf(request, signal) {
  const lines = [];
  for await (const line of answer(request, signal)) lines.push(line);
  return lines;
}
