/** Asks the model: one request, and the objects of its answer as they arrive, from the server or from this browser. */

import * as python from "./python.js";
import * as server from "./server.js";

/** What went wrong, as a sentence to show. */
export class AnswerError extends Error {
  /**
   * @param {{error: string, model?: string}} line of the answer; `model` is the one that answers, if another one was asked
   * @param {object} request
   */
  constructor({ error, model }, request) {
    super(error);
    Object.assign(this, { model, request });
  }
}

const isExported = document.querySelector("meta[name='numpy-gpt2-export']") !== null;
const { lines } = isExported ? python : server;

/**
 * Sends a request, and yields each line of the answer as an object.
 * @param {object} request what is asked, with its `kind`
 * @param {AbortSignal} [signal] ends the answer; the model then stops at the next token
 * @param {(share: number|null, what: string) => void} [report] told what is waited for, where Python starts first
 * @returns {AsyncGenerator<object>}
 * @throws {AnswerError} the request is refused, or the answer fails on the way
 */
export async function* answer(request, signal, report) {
  for await (const object of lines(request, signal, report)) {
    if ("error" in object) throw new AnswerError(object, request);
    if (Object.keys(object).length) yield object; // an empty one says only that the model is at work
  }
}

/** The last object of an answer. */
export async function lastAnswer(request, signal, report) {
  let last;
  for await (const object of answer(request, signal, report)) last = object;
  return last;
}

/** Whether an error says only that somebody stopped the request. */
export const isStop = (error) => error?.name === "AbortError";
