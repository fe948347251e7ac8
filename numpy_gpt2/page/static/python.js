/**
 * Asks Python in this browser: a worker runs it. A page that was exported has no server.
 *
 * The worker makes a line of an answer when it is asked for the next one. So a request that is stopped costs one line at
 * most, and several answers take turns.
 */

const MISSING = "This browser cannot run Python: it has no WebAssembly, or no workers of the kind `module`.";
const DEAD = "Python has stopped in this browser. Press Tab, or reload the page, to start it again.";

/** A worker with Python, which starts at once. */
class Python {
  #asked = new Map(); // by the number of the request: what to do with the next message about it
  #reports = new Set();
  #progress = null; // what is waited for, while Python starts

  constructor() {
    this.failure = null; // a sentence, once this worker answers no more
    // A worker from a blob is held to the content security policy of the page; one from an address would have its own.
    const program = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
    const address = URL.createObjectURL(new Blob([program], { type: "text/javascript" }));
    this.worker = new Worker(address, { type: "module" });
    this.worker.addEventListener("message", ({ data }) => this.#hear(data));
    this.worker.addEventListener("error", (event) => this.#fail(event.message ? DEAD : "worker.js cannot be loaded."));
  }

  /** The next line of an answer, `undefined` after the last one. */
  next(message, signal, report) {
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        signal?.removeEventListener("abort", stop);
        this.#asked.delete(message.id);
        this.#reports.delete(report);
        settle(value);
      };
      const stop = () => end(reject, signal.reason);
      if (signal?.aborted) return reject(signal.reason);
      if (this.failure) return resolve({ error: this.failure });
      signal?.addEventListener("abort", stop);
      this.#asked.set(message.id, (line) => end(resolve, line));
      if (report) this.#reports.add(report);
      if (report && this.#progress) report(this.#progress.share, this.#progress.what);
      this.worker.postMessage(message);
    });
  }

  /** Ends an answer. */
  stop(id) {
    if (!this.failure) this.worker.postMessage({ id, isStopped: true });
  }

  #hear({ id, line, progress, failure }) {
    if (failure) this.#fail(failure);
    else if (progress) this.#report(progress);
    else this.#asked.get(id)?.(line && JSON.parse(line));
  }

  #report(progress) {
    this.#progress = progress;
    for (const report of this.#reports) report(progress.share, progress.what);
  }

  #fail(sentence) {
    this.failure = sentence;
    this.worker.terminate();
    for (const answer of [...this.#asked.values()]) answer({ error: sentence });
  }
}

let python = null;
let nRequests = 0;

/**
 * Sends a request, and yields each line of the answer as an object. If Python could not start or has died, it starts
 * anew.
 * @param {object} request
 * @param {AbortSignal} [signal] ends the answer; the model then stops at the next token
 * @param {(share: number|null, what: string) => void} [report] told what is waited for while Python starts
 */
export async function* lines(request, signal, report) {
  if (!("WebAssembly" in globalThis && "Worker" in globalThis)) {
    yield { error: MISSING };
    return;
  }
  if (!python || python.failure) python = new Python();
  const [asked, id] = [python, nRequests++];
  try {
    let line = await asked.next({ id, request: JSON.stringify(request) }, signal, report);
    while (line) {
      yield line;
      line = await asked.next({ id }, signal);
    }
  } finally {
    asked.stop(id);
  }
}
