/**
 * The texts in this browser: one entry of localStorage each with the whole tree, and a short summary beside it.
 *
 * One tab writes a text at a time: it holds a lock on it. Where the browser has no locks (an address that is not
 * secure), the stamp in the summary shows that another tab has written in between, and the text goes on as a copy.
 */

import { Tree } from "./tree.js";
import { excerpt } from "./dom.js";

const TEXT = "numpy-gpt2/text/";
const SUMMARY = "numpy-gpt2/summary/";
const FORMAT = "numpy_gpt2 text";
const LOST = { title: "A text without a summary", time: new Date(0).toISOString() }; // where the summary is damaged

/** The browser does not keep the text, as a sentence to show. */
export class StoreError extends Error {}

/** A text with its versions. */
export class Text {
  constructor(tree = new Tree(), name = undefined, id = newId()) {
    this.tree = tree;
    this.name = name; // of the file that it was imported from, if that had one text and no versions
    this.id = id;
    this.stamp = null; // of the summary that this tab wrote or read last
    this.isKept = true; // false once the browser could not keep what is new in it
  }

  get title() {
    return this.name ?? (excerpt(this.tree.text().trim(), 48) || "Empty text");
  }

  toJSON() {
    return { format: FORMAT, version: 1, title: this.title, name: this.name, ...this.tree.toJSON() };
  }
}

/**
 * Reads an exported text.
 * @param {string} json
 * @throws {Error} it is something else, with a sentence that says what
 */
export function parseText(json) {
  let data;
  try {
    data = JSON.parse(json);
  } catch {
    throw new Error("it is not JSON");
  }
  if (data?.format !== FORMAT || data.version !== 1) throw new Error("it is not a text that this page exported");
  if (!["string", "undefined"].includes(typeof data.name)) throw new Error("its name is not text");
  return new Text(Tree.from(data), data.name);
}

/** What is kept: id, title, time and number of versions of each text, newest first. */
export function summaries() {
  return attempt(() => Object.keys(localStorage), [])
    .filter((key) => key.startsWith(TEXT))
    .map((key) => key.slice(TEXT.length))
    .map((id) => ({ id, ...LOST, ...summaryOf(id) }))
    .sort((a, b) => (a.time < b.time ? 1 : -1));
}

/** Reads a text that is kept, or null. */
export function load(id) {
  const json = attempt(() => localStorage.getItem(TEXT + id), null);
  if (json === null) return null;
  return Object.assign(parseText(json), { id, stamp: summaryOf(id)?.stamp ?? null });
}

/**
 * Keeps a text.
 * @returns {boolean} whether another tab had written it in between, so that it was kept as a copy with a new id
 * @throws {StoreError} the browser has no room for it, or does not allow it
 */
export function save(text) {
  try {
    const isCopy = text.stamp !== null && summaryOf(text.id)?.stamp !== text.stamp;
    const [id, stamp] = [isCopy ? newId() : text.id, newId()];
    const summary = { title: text.title, time: new Date().toISOString(), versions: text.tree.versions.size, stamp };
    localStorage.setItem(TEXT + id, JSON.stringify(text));
    localStorage.setItem(SUMMARY + id, JSON.stringify(summary));
    Object.assign(text, { id, stamp }); // only now: what is not kept must not look as if another tab had written it
    return isCopy;
  } catch (error) {
    const isFull = error?.name === "QuotaExceededError";
    const why = isFull ? "has no room left for" : "does not let the page keep";
    throw new StoreError(`This browser ${why} the text: export it before you close the page.`);
  }
}

/** Deletes a text with all its versions. */
export function remove(id) {
  localStorage.removeItem(TEXT + id);
  localStorage.removeItem(SUMMARY + id);
}

/**
 * Takes the lock on a text for this tab.
 * @param {number} patience how long to wait for another tab, in milliseconds
 * @param {AbortSignal} signal ends the wait
 * @returns {Promise<(() => void)|null>} gives the lock back; null if another tab keeps it
 */
export function hold(id, patience, signal) {
  if (!navigator.locks) return Promise.resolve(() => {});
  return new Promise((resolve) => {
    const held = () => new Promise((release) => resolve(release));
    const either = AbortSignal.any([signal, AbortSignal.timeout(patience)]);
    navigator.locks.request(TEXT + id, { signal: either }, held).catch(() => resolve(null));
  });
}

/** A small value, such as a setting; null where there is none or the browser does not allow it. */
export const recall = (name, storage = "localStorage") =>
  attempt(() => JSON.parse(window[storage].getItem(`numpy-gpt2/${name}`)), null);

/** Keeps a small value, where the browser allows it. */
export const remember = (name, value, storage = "localStorage") =>
  attempt(() => window[storage].setItem(`numpy-gpt2/${name}`, JSON.stringify(value)));

const summaryOf = (id) => attempt(() => JSON.parse(localStorage.getItem(SUMMARY + id)), null);

function attempt(action, otherwise) {
  try {
    return action();
  } catch {
    return otherwise;
  }
}

const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("");
