/** Asks the server: one request, and the objects of its answer as they arrive. */

/** What went wrong, as a sentence to show. */
export class AnswerError extends Error {}

const GONE = "The server does not answer. Start it again with `numpy-gpt2 page`; the text is kept in this browser.";

/**
 * Sends a request, and yields each line of the answer as an object.
 * @param {object} request what is asked, with its `kind`
 * @param {AbortSignal} [signal] ends the answer; the model then stops at the next token
 * @returns {AsyncGenerator<object>}
 * @throws {AnswerError} the server refused, failed on the way, or is gone
 */
export async function* answer(request, signal) {
  const reply = await reached(fetch("answer", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  }));
  for await (const line of lines(reply)) {
    const object = parsed(line, reply);
    if ("error" in object) throw new AnswerError(object.error);
    if (Object.keys(object).length) yield object; // an empty one says only that the model is at work
  }
}

/** The last object of an answer. */
export async function lastAnswer(request, signal) {
  let last;
  for await (const object of answer(request, signal)) last = object;
  return last;
}

/** Whether an error says only that somebody stopped the request. */
export const isStop = (error) => error?.name === "AbortError";

async function* lines(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    let rest = "";
    for (let piece = await reached(reader.read()); !piece.done; piece = await reached(reader.read())) {
      const parts = (rest + piece.value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading, stops the model
  }
}

async function reached(promise) {
  try {
    return await promise;
  } catch (error) {
    if (isStop(error)) throw error;
    throw new AnswerError(GONE);
  }
}

function parsed(line, reply) {
  try {
    return JSON.parse(line);
  } catch {
    throw new AnswerError(`The server gave an answer that cannot be read (HTTP ${reply.status}).`);
  }
}
