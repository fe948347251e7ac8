/** A question that a part asks again and again, each time about something else. */

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
   * @param {string} model the one that answers
   * @param {(request: object, signal: AbortSignal, report: (share: number) => void) => Promise} [read] what is made of the answer; by default, its lines
   * @returns {Promise} what `read` gave; undefined if it did not end well, or something else was asked meanwhile
   */
  async ask(request, model, read = linesOf) {
    const key = JSON.stringify([request, model]);
    if (key !== this.#key) {
      const wait = this.#isRunning ? WAIT : 0;
      this.stop();
      this.#key = key;
      this.#isRunning = true;
      this.#job = this.work.run(this.what, (signal, report) => later(wait, signal, () => read(request, signal, report)), QUIET);
    }
    const found = await this.#job.done;
    if (key !== this.#key) return undefined;
    this.#isRunning = false;
    if (!found) this.#key = null; // so that it is asked again
    return found;
  }

  /** Stops, and forgets what was asked. */
  stop() {
    this.#job?.stop();
    this.#key = null;
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
