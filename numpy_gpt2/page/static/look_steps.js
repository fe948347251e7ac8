/** The part "steps" of the view "Look inside": a text grows token by token, and the past grows with it. */

import { answer } from "./answers.js";
import { element } from "./dom.js";
import { helpLine, helpOf, labelled, numberIn, numberInput, words } from "./fields.js";
import { isPlain } from "./keys.js";
import { StepView } from "./step_view.js";
import { recall, remember } from "./store.js";

const PACE = 700; // milliseconds that each step is shown while they play: as fast as one can follow
const OWN = [
  { name: "max_new_tokens", label: "Tokens", default: 20, low: 1, high: 1024, whole: true,
    help: "how many are written" },
  { name: "seed", default: 0, low: 0, high: Number.MAX_SAFE_INTEGER, whole: true,
    help: "the same seed draws the same tokens" },
];
const MOVES = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
const prefersCalm = window.matchMedia("(prefers-reduced-motion: reduce)");

export class Steps {
  #options = []; // of the form, with their inputs
  #pass = null; // the one that is continued
  #key = null; // which text and model the steps continue
  #steps = []; // those that have come
  #at = 0; // the step that is shown
  #job = null;
  #timer = null; // while the steps play

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the part goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {import("./models.js").Models} parts.models
   * @param {import("./guess.js").Guessing} parts.guessing
   */
  constructor({ root, address, work, models, guessing }) {
    Object.assign(this, { root, address, work, models });
    this.form = element("form", { className: "steps-form", "aria-label": "How to write", noValidate: true });
    this.notice = element("p", { className: "notice", hidden: true },
      "Here the model writes as it is, without the changes of the experiments.");
    this.hint = element("p", { className: "faint" },
      "The model goes on with the text: each step draws one token from its prediction. The keys and values of what " +
      "was read are kept as the past (key/value cache), so that each further step computes one position only.");
    this.view = new StepView({ address, work, guessing, onVisit: (step) => this.#visit(step) });
    this.result = element("div", { className: "steps-result", hidden: true }, this.#player(), this.view.element);
    root.append(this.form, this.notice, this.hint, this.result);
    this.form.addEventListener("submit", (event) => this.#write(event));
    address.addEventListener("change", () => this.#key && this.#key !== this.#keyOf(address.state) && this.#clear());
  }

  /**
   * Shows the state of the address.
   * @param {object} state with a token, a layer and a head that the pass has
   * @param {object} pass sizes of the model and tokens of the text, as the answer to `look` has them
   */
  show(state, pass) {
    if (!this.#options.length) this.#fillForm();
    this.#pass = pass;
    this.notice.hidden = !state.changes.length;
    if (this.#key !== this.#keyOf(state)) this.#clear();
  }

  #keyOf({ text }) {
    return JSON.stringify([this.models.name, text]);
  }

  #fillForm() {
    const kept = recall("steps") ?? {};
    this.#options = [...OWN, ...this.models.about.options].map((option) =>
      ({ option, input: numberInput(option, `steps-${option.name}`, kept[option.name]) }));
    const controls = this.#options.map(({ option, input }) =>
      labelled(option.label ?? words(option.name), input, helpOf(option)));
    this.form.append(...controls, element("button", { className: "main-button" }, "Write"), helpLine(this.form));
  }

  #player() {
    const button = (text, label, onclick) => element("button", { type: "button", "aria-label": label, onclick }, text);
    this.play = button("Play", "Play the steps", () => (this.#timer ? this.#pause() : this.#play()));
    this.slider = element("input", { type: "range", min: 0, "aria-label": "Step" });
    this.slider.addEventListener("input", () => this.#visit(this.slider.valueAsNumber));
    const player = element("div", { className: "player", role: "group", "aria-label": "Steps" },
      button("First", "First step", () => this.#visit(0)),
      button("Previous", "Previous step", () => this.#visit(this.#at - 1)),
      this.play,
      button("Next", "Next step", () => this.#visit(this.#at + 1)),
      button("Last", "Last step", () => this.#visit(Infinity)),
      this.slider);
    player.addEventListener("keydown", (event) => this.#onKey(event));
    return player;
  }

  #onKey(event) {
    if (!(event.key in MOVES) || !isPlain(event)) return;
    event.preventDefault();
    this.#visit(this.#at + MOVES[event.key]);
  }

  /** Stops, and forgets the steps: they are those of another text or model. */
  #clear() {
    this.#key = null;
    this.#job?.stop();
    this.#pause();
    this.#steps = [];
    this.#at = 0;
    this.result.hidden = true;
  }

  async #write(event) {
    event.preventDefault();
    this.#clear();
    const { text } = this.address.state;
    const values = Object.fromEntries(this.#options.map(({ option, input }) => [option.name, numberIn(input, option)]));
    remember("steps", Object.fromEntries(this.#options.map(({ option, input }) => [option.name, input.value])));
    const { max_new_tokens, seed, ...options } = values;
    this.#key = this.#keyOf({ text });
    this.view.begin(text, this.#pass);
    const request = { kind: "write", text, max_new_tokens, seed, options, model: this.#pass.model };
    const job = this.work.run("Writing step by step", (...given) => this.#read(request, ...given));
    this.#job = job;
    if (!prefersCalm.matches) this.#play();
    await job.done;
    if (this.#job !== job) return;
    this.#job = null;
    if (!this.#steps.length) this.#clear();
  }

  async #read(request, signal, report) {
    for await (const step of answer(request, signal)) {
      if (signal.aborted) return;
      this.#steps.push(step);
      report(this.#steps.length / step.n_steps);
      this.slider.max = this.#steps.length - 1;
      this.result.hidden = false;
      if (this.#steps.length === 1) this.#show(0);
    }
  }

  /** Goes to a step by hand. */
  #visit(step) {
    this.#pause();
    this.#show(step);
  }

  #show(step) {
    this.#at = Math.max(0, Math.min(this.#steps.length - 1, step));
    this.slider.value = this.#at;
    this.slider.setAttribute("aria-valuetext", `step ${this.#at + 1} of ${this.#steps[0].n_steps}`);
    this.view.show(this.#steps, this.#at);
  }

  #play() {
    if (this.#isAtEnd) this.#show(0);
    this.play.textContent = "Pause";
    this.play.setAttribute("aria-label", "Pause");
    this.view.isQuiet = true;
    this.#timer = setInterval(() => this.#tick(), PACE);
  }

  #pause() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.play.textContent = "Play";
    this.play.setAttribute("aria-label", "Play the steps");
    this.view.isQuiet = false;
  }

  #tick() {
    if (this.#at + 1 < this.#steps.length) this.#show(this.#at + 1);
    if (this.#isAtEnd || !this.root.checkVisibility()) this.#pause();
  }

  /** Whether the last step is shown, and no other comes. */
  get #isAtEnd() {
    return !this.#job && this.#at === this.#steps.length - 1;
  }
}
