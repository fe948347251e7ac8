/** The model chooser. */

import { answer, lastAnswer } from "./answers.js";
import { byId, counted, debounced, element } from "./dom.js";
import { QUIET } from "./work.js";

const WAIT = 400; // milliseconds after the last choice: on a closed chooser, the arrow keys choose each model on the way


/** Fires `change` when another model answers from now on. */
export class Models extends EventTarget {
  #missing = new Set(); // names of models that are not on disk
  #wanted = null; // the model that is to be loaded, until it is
  #job = null;

  /** @param {object} parts `editor` and `work`, as for `Suggestions` */
  constructor(parts) {
    super();
    Object.assign(this, parts);
    this.about = null; // what the server says of its model
    this.select = byId("model");
    this.loadSoon = debounced(() => this.use(this.#wanted), WAIT);
    this.select.addEventListener("change", () => this.#choose());
    byId("missing-copy").hidden = !navigator.clipboard; // as at an address that is not secure
    byId("missing-copy").addEventListener("click", () => this.#copyCommand());
    this.select.addEventListener("focus", () => (this.name ? this.#list() : this.start()));
    document.addEventListener("visibilitychange", () => document.hidden || this.ask()); // of what another tab did
    this.work.addEventListener("refused", ({ error }) => error.model && this.ask()); // another one answers by now
  }

  get name() {
    return this.about?.model;
  }

  /** Asks which model there is, and which others. */
  async start() {
    await this.ask();
    if (this.name) await this.#list();
  }

  /** Asks which model answers now. */
  async ask() {
    const read = (...job) => lastAnswer({ kind: "about" }, ...job);
    const about = await this.work.run("Asking for the model", read, QUIET).done;
    if (about && about.model !== this.name) this.#show(about);
  }

  async #list() {
    const models = [];
    const read = async (signal) => {
      for await (const model of answer({ kind: "models" }, signal)) models.push(model);
      return models;
    };
    if (await this.work.run("Listing the models", read, QUIET).done) this.#fill(models);
  }

  #fill(models) {
    this.#missing = new Set(models.filter(({ is_here }) => !is_here).map(({ name }) => name));
    const options = models.map(({ name, n_bytes, is_here, same_as }) => {
      const notes = [inBytes(n_bytes), ...(same_as ? [`the same as ${same_as}`] : []), ...(is_here ? [] : ["not here"])];
      return element("option", { value: name }, [name, ...notes].join(" · "));
    });
    this.select.replaceChildren(...options);
    this.select.value = this.#wanted ?? this.name;
  }

  /** Stops loading what was chosen before, and loads soon what is chosen now. */
  #choose() {
    this.#job?.stop();
    this.#job = null;
    this.#wanted = this.select.value;
    this.loadSoon();
  }

  /** Loads a model, from now on for all who use this server; or says how to get it. */
  async use(model) {
    byId("missing").hidden = !this.#missing.has(model);
    if (this.#missing.has(model)) this.#sayMissing(model);
    else await this.#load(model);
  }

  #sayMissing(model) {
    this.#wanted = null;
    this.select.value = this.name;
    byId("missing-name").textContent = model;
    byId("missing-command").textContent = `numpy-gpt2 download ${model}`;
    this.work.say(`${model} is not on this machine.`);
  }

  async #copyCommand() {
    try {
      await navigator.clipboard.writeText(byId("missing-command").textContent);
      this.work.say("The command is copied: paste it into a terminal.");
    } catch {
      this.work.say("The browser does not let the page copy: select the command, and copy it yourself.", true);
    }
  }

  async #load(model) {
    const old = this.name;
    const request = { kind: "load", model, text: this.editor.text };
    const job = this.work.run(`Loading ${model}`, (...given) => load(request, ...given));
    this.#job = job;
    const loaded = await job.done;
    if (job !== this.#job) return; // another one was chosen
    this.#wanted = null;
    if (!loaded) {
      this.select.value = old;
      await this.ask(); // it may have been loaded already when it was stopped
      return;
    }
    this.#show(loaded.about);
    this.work.say(retokenized(old, this.name, loaded));
  }

  #show(about) {
    this.about = about;
    this.select.value = this.#wanted ?? about.model; // if it is listed already
    const size = `${inMillions(about.n_parameters)} parameters`;
    byId("model-about").textContent = `${size}, sees ${counted(about.n_ctx, "token")}`;
    this.dispatchEvent(new Event("change"));
  }
}

async function load(request, signal, report) {
  let last;
  for await (const line of answer(request, signal)) {
    if ("progress" in line) report(line.progress, line.what);
    else last = line;
  }
  return last;
}

function retokenized(old, name, { n_tokens_before, n_tokens }) {
  if (!n_tokens) return `${name} writes from here on.`;
  const before = n_tokens_before.toLocaleString("en");
  return `${name} reads the text as ${counted(n_tokens, "token")}; with ${old} there were ${before}.`;
}

const inMillions = (n) => (n < 1e6 ? n.toLocaleString("en") : `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} million`);

function inBytes(n) {
  if (n === null) return "size unknown";
  return n < 1e9 ? `${Math.round(n / 1e6)} MB` : `${(n / 1e9).toFixed(1)} GB`;
}
