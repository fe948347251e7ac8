/** Asks the server. What goes wrong on the way becomes a line with an `error`, as the server itself says it. */

const GONE = "The server does not answer. Start it again with `numpy-gpt2 page`; the text is kept in this browser.";

/**
 * Sends a request, and yields each line of the answer as an object.
 * @param {object} request
 * @param {AbortSignal} [signal] ends the answer; the model then stops at the next token
 */
export async function* lines(request, signal) {
  let reply;
  try {
    reply = await fetch("answer", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
      signal,
    });
    for await (const line of parts(reply)) yield parsed(line, reply);
  } catch (error) {
    if (error?.name === "AbortError") throw error;
    yield { error: GONE };
  }
}

async function* parts(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    let rest = "";
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      const ended = (rest + piece.value).split("\n");
      rest = ended.pop();
      yield* ended;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading, stops the model
  }
}

function parsed(line, reply) {
  try {
    return JSON.parse(line);
  } catch {
    return { error: `The server gave an answer that cannot be read (HTTP ${reply.status}).` };
  }
}
