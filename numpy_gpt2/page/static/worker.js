/**
 * A worker that runs the package by Pyodide, for a page that was exported. `python.js` sends it `{ id, request }` for the
 * first line of an answer, `{ id }` for each other one, and `{ id, isStopped }` when no more is wanted.
 */

const CORE = ["pyodide.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json"];
const EMPTY_PROGRAM = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]); // in WebAssembly
const PACKAGE = "numpy_gpt2.zip";
const [PACKAGES, MODELS] = ["/packages", "/models"]; // folders in Pyodide's memory

/** What went wrong, as a sentence to show. */
class StartError extends Error {}

const answers = new Map(); // by the number of a request: the generator of its lines
let python = null; // the module `numpy_gpt2.page.worker`, and what answers

const say = (what, share = null) => self.postMessage({ progress: { what, share } });

const why = (reply) => (reply ? `HTTP ${reply.status}` : "there is no connection");

/** The content of a file beside the page, of n bytes. */
async function read(name, n, report = () => {}) {
  const reply = await fetch(new URL(name, import.meta.url), { cache: "no-cache" }).catch(() => null);
  if (!reply?.ok) throw new StartError(`${name} of this page cannot be loaded (${why(reply)}).`);
  const [content, reader] = [new Uint8Array(n), reply.body.getReader()];
  let nRead = 0;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    if (nRead + piece.value.length > n) break;
    content.set(piece.value, nRead);
    report((nRead += piece.value.length));
  }
  if (nRead !== n) throw new StartError(`${name} of this page is not the one that was exported: export the page again.`);
  return content;
}

async function readExport() {
  const reply = await fetch(new URL("export.json", import.meta.url), { cache: "no-cache" }).catch(() => null);
  const content = reply?.ok && (await reply.json().catch(() => null));
  if (!content) throw new StartError("export.json of this page cannot be loaded.");
  return content;
}

/** Reads several files, one after another, and says how far it is. */
async function readAll(what, sizes) {
  const total = Object.values(sizes).reduce((a, b) => a + b, 0);
  const megabytes = total < 1e7 ? (total / 1e6).toFixed(1) : Math.round(total / 1e6);
  const [contents, before] = [{}, { n: 0 }];
  for (const [name, n] of Object.entries(sizes)) {
    contents[name] = await read(name, n, (nRead) => say(`${what}, ${megabytes} MB`, (before.n + nRead) / total));
    before.n += n;
  }
  return contents;
}

/** Checks what Pyodide does not: without one of these it would wait for ever. */
async function checkPyodide(home) {
  await WebAssembly.compile(EMPTY_PROGRAM).catch(() => {
    throw new StartError("This browser or this server does not allow WebAssembly, and so the page cannot run Python.");
  });
  for (const name of CORE) {
    const reply = await fetch(home + name, { method: "HEAD" }).catch(() => null);
    if (!reply?.ok) throw new StartError(`${name} cannot be loaded from ${home} (${why(reply)}).`);
  }
}

async function loadPyodide(home) {
  say("Loading Python");
  await checkPyodide(home);
  try {
    const module = await import(`${home}pyodide.mjs`);
    return await module.loadPyodide({ indexURL: home, stderr: (line) => console.warn(line) });
  } catch (error) {
    throw new StartError(`Pyodide cannot be loaded from ${home} (${error.message ?? error}).`);
  }
}

async function loadWheels(pyodide, home) {
  say("Loading NumPy");
  const names = ["numpy", "regex"];
  const errors = [];
  const callbacks = { messageCallback: () => {}, errorCallback: (message) => errors.push(message) };
  await pyodide.loadPackage(names, callbacks).catch((error) => errors.push(error.message));
  const missing = names.filter((name) => !(name in pyodide.loadedPackages));
  if (!missing.length) return;
  throw new StartError(`${missing.join(" and ")} cannot be loaded from ${home} (${errors.join("; ")}).`);
}

async function start() {
  const { pyodide: place, sizes, model } = await readExport();
  const home = new URL(place, import.meta.url).href;
  const pyodide = await loadPyodide(home);
  await loadWheels(pyodide, home);
  const { [PACKAGE]: archive } = await readAll("Loading the package", { [PACKAGE]: sizes[PACKAGE] });
  pyodide.unpackArchive(archive.buffer, "zip", { extractDir: PACKAGES });
  pyodide.runPython(`import sys; sys.path.insert(0, "${PACKAGES}")`);
  const module = pyodide.pyimport("numpy_gpt2.page.worker");
  const folder = module.prepare(model.name, MODELS);
  const files = Object.fromEntries(model.files.map((name) => [name, sizes[name]]));
  for (const [name, content] of Object.entries(await readAll(`Loading ${model.name}`, files))) {
    pyodide.FS.writeFile(`${folder}/${name}`, content, { canOwn: true });
  }
  say(`Starting ${model.name}`);
  python = { module, answers: module.ExportedAnswers(model.name, MODELS) };
}

function answer({ id, request, isStopped }) {
  if (isStopped) {
    end(id);
    return;
  }
  if (request !== undefined) answers.set(id, python.module.lines(python.answers, request));
  const line = answers.get(id)?.next();
  self.postMessage({ id, line: line?.done ? undefined : line?.value });
}

function end(id) {
  const lines = answers.get(id);
  answers.delete(id);
  lines?.return();
  lines?.destroy();
}

function fail(error) {
  if (!(error instanceof StartError)) console.warn(error);
  const isOut = /memory/i.test(error.message);
  const why = isOut ? "there is not enough memory for it" : "the browser's console says why";
  self.postMessage({ failure: error instanceof StartError ? error.message : `Python has stopped: ${why}.` });
}

const started = start();
started.catch(fail);
self.addEventListener("message", async ({ data }) => {
  await started.catch(() => {});
  if (!python) return; // the page knows why
  try {
    answer(data);
  } catch (error) {
    fail(error);
  }
});
