/**
 * The versions of a text, as a tree. Pure data: it knows nothing of the page.
 *
 * A version's text is the beginning of its parent's, and what was added to that. Nothing that was written is lost: what
 * is typed in one go grows one version, and whatever would take something away begins a new one.
 *
 * @typedef {object} Version
 * @property {number} id larger than its parent's
 * @property {number|null} parent null for the first, which is empty
 * @property {number} kept how much of the parent's text is kept, in UTF-16 code units
 * @property {string} added
 * @property {"typed"|"taken"|"alternative"|"loaded"} how
 * @property {string} time when it was made or last grew, in ISO 8601
 * @property {number[]} [ids] the tokens, if the model made it; then also `model`, `seed`, `settings` and so on
 */

const HOW = ["typed", "taken", "alternative", "loaded"];
const LONGEST_HALF = 20; // characters of a half word
const MOST_ID = 2 ** 52; // above, adding 1 would stop making a difference
const HIGH_SURROGATE = /[\ud800-\udbff]/; // the first half of a character of two code units
const LOW_SURROGATE = /[\udc00-\udfff]/; // the second half
const SMALL = 3; // what took no more characters than these is listed only on request

export class Tree {
  #typing = null; // the place in the current version where typing goes on; null when that was left

  /**
   * @param {Version[]} versions each after its parent
   * @param {number} current the id of the version that is being written
   */
  constructor(versions = [first()], current = 0) {
    this.versions = new Map(versions.map((version) => [version.id, version]));
    this.current = current;
  }

  /**
   * A tree from what `toJSON` made.
   * @throws {Error} it is something else, with a sentence that says what
   */
  static from({ versions, current }) {
    checkVersions(versions, current);
    return new Tree(versions, current);
  }

  toJSON() {
    return { current: this.current, versions: [...this.versions.values()] };
  }

  /** The text of a version, by default of the current one. */
  text(id = this.current) {
    return this.path(id).reduce((text, version) => text.slice(0, version.kept) + version.added, "");
  }

  /** The versions from the first to this one. */
  path(id = this.current) {
    const path = [];
    for (let version = this.versions.get(id); version; version = this.versions.get(version.parent)) path.push(version);
    return path.reverse();
  }

  /**
   * Takes note of a text that is now in the editor, and makes it the current version. What was typed, or undone, and is
   * the beginning of a version goes on from there.
   * @param {string} text
   * @param {object} made how it was made (`how`), and for what the model made, with what
   * @param {number} [start] where what was added begins; by default where the text departs from the current version
   */
  record(text, made = { how: "typed" }, start = commonStart(this.text(), text)) {
    const old = this.text();
    if (text === old) return;
    const left = this.current;
    const same = this.find(text);
    const place = made.how === "typed" ? this.#growingPlace(old, text) : undefined;
    if (same !== null) this.current = same;
    else if (place !== undefined) this.#grow(text);
    else this.#add(text, made, made.how === "typed" ? this.#findBeginning(text, start) : start);
    const began = place ?? start;
    this.#typing = same === null ? began + Math.max(0, text.length - old.length) : null;
    this.#dropIfEmpty(left);
  }

  /** The id of the version with this text, or null. */
  find(text) {
    for (const version of this.versions.values()) {
      if (length(version) === text.length && this.text(version.id) === text) return version.id;
    }
    return null;
  }

  /**
   * Makes a version, or the beginning of one, current.
   * @param {number} id
   * @param {number} end how much of its text, in UTF-16 code units
   */
  goTo(id, end = length(this.versions.get(id))) {
    const left = this.current;
    const text = this.text(id).slice(0, end);
    const same = end === length(this.versions.get(id)) ? id : this.find(text);
    if (same !== null) this.current = same;
    else {
      this.current = id;
      this.#add(text, { how: "typed" }, end);
    }
    this.#typing = null;
    this.#dropIfEmpty(left);
  }

  /**
   * The tree as rows to show. The path to the current version runs straight down; what departs from it is indented.
   * @returns {{id: number, end: number, depth: number, half: string, text: string, how: string, isCurrent: boolean,
   *     isSmall: boolean}[]} `goTo(id, end)` leads to the end of a row; `half` is what stands before it without a gap
   */
  outline() {
    const children = this.#children();
    const straight = this.#straight(children);
    const rows = [];
    const visit = (top, above, depth) => {
      for (let version = top, before = above; version; version = straight.get(version.id)) {
        const text = before.slice(0, version.kept) + version.added;
        const next = straight.get(version.id);
        const cut = next ? next.kept : text.length;
        const below = version.parent === null ? depth : depth + 1;
        this.#addRow(rows, version, text, version.kept, cut, depth, !children.has(version.id) && depth > 0);
        this.#addRow(rows, version, text, cut, text.length, below, !next?.added.endsWith(text.slice(cut)));
        for (const child of children.get(version.id) ?? []) if (child !== next) visit(child, text, below);
        before = text;
      }
    };
    visit(this.path()[0], "", 0);
    return rows;
  }

  #addRow(rows, version, whole, begin, end, depth, isLeaf) {
    const isCurrent = version.id === this.current && end === whole.length;
    if (begin === end && (!isCurrent || rows.at(-1)?.isCurrent)) return;
    const text = whole.slice(begin, end);
    const before = whole.slice(Math.max(0, begin - LONGEST_HALF), begin);
    const half = /^\S/.test(text) ? before.match(/\S*$/)[0] : "";
    const isSmall = isLeaf && !isCurrent && version.how === "typed" && text.length <= SMALL;
    rows.push({ id: version.id, end, depth, half, text, how: version.how, isCurrent, isSmall });
  }

  /** For each version the child that goes on straight: towards the current version, else where it was last written. */
  #straight(children) {
    const path = new Set(this.path());
    const newest = new Map(); // the newest version below each
    for (const { id, parent } of [...this.versions.values()].reverse()) {
      const own = Math.max(id, newest.get(id) ?? id);
      newest.set(id, own);
      newest.set(parent, Math.max(own, newest.get(parent) ?? own));
    }
    const rank = (child) => (path.has(child) ? Infinity : newest.get(child.id));
    const best = (a, b) => (rank(b) > rank(a) ? b : a);
    return new Map([...children].map(([id, below]) => [id, below.reduce(best)]));
  }

  #children() {
    const children = new Map();
    for (const version of this.versions.values()) {
      if (version.parent === null) continue;
      if (!children.has(version.parent)) children.set(version.parent, []);
      children.get(version.parent).push(version);
    }
    return children;
  }

  /** Makes a version that begins with a text current, if there is one; how much of the current one the text keeps. */
  #findBeginning(text, start) {
    if (start === text.length) return start;
    const found = [...this.versions.values()].find(({ id }) => this.text(id).startsWith(text));
    if (!found) return start;
    this.current = found.id;
    return text.length;
  }

  /** Where the current version grows into this text: at its end, or where typing goes on. Undefined if it cannot. */
  #growingPlace(old, text) {
    const version = this.versions.get(this.current);
    if (version.parent === null || version.how !== "typed" || this.#hasChildren(version.id)) return undefined;
    return [old.length, this.#typing].find((place) => isInsertion(old, text, place) && place >= version.kept);
  }

  #grow(text) {
    const version = this.versions.get(this.current);
    version.added = text.slice(version.kept);
    version.time = new Date().toISOString();
  }

  #add(text, made, start) {
    const parent = this.#place(start);
    const id = Math.max(...this.versions.keys()) + 1;
    const version = { id, parent, kept: start, added: text.slice(start), time: new Date().toISOString(), ...made };
    this.versions.set(id, version);
    this.current = id;
  }

  /** The version in whose own part the current text's place `start` lies. */
  #place(start) {
    let version = this.versions.get(this.current);
    while (version.parent !== null && start <= version.kept) version = this.versions.get(version.parent);
    return version.id;
  }

  /** A version that adds nothing and that nothing follows is only the beginning of another. */
  #dropIfEmpty(id) {
    const { parent, added } = this.versions.get(id);
    if (parent !== null && !added && id !== this.current && !this.#hasChildren(id)) this.versions.delete(id);
  }

  #hasChildren(id) {
    return [...this.versions.values()].some((version) => version.parent === id);
  }
}

/** How many code units two texts have in common at the beginning; a surrogate pair counts only whole. */
export function commonStart(a, b) {
  const most = Math.min(a.length, b.length);
  let n = 0;
  while (n < most && a[n] === b[n]) n++;
  return HIGH_SURROGATE.test(a[n - 1]) ? n - 1 : n;
}

/** The same at the end, of what comes after a common beginning. */
export function commonEnd(a, b, begin) {
  const most = Math.min(a.length, b.length) - begin;
  let n = 0;
  while (n < most && a.at(-1 - n) === b.at(-1 - n)) n++;
  return LOW_SURROGATE.test(a[a.length - n]) ? n - 1 : n;
}

/** Whether `text` is `old` with something put in at a place. */
function isInsertion(old, text, place) {
  if (place === null || text.length < old.length) return false;
  return text.startsWith(old.slice(0, place)) && text.endsWith(old.slice(place));
}

const length = (version) => version.kept + version.added.length;

const first = () => ({ id: 0, parent: null, kept: 0, added: "", how: "typed", time: new Date().toISOString() });

function checkVersions(versions, current) {
  if (!Array.isArray(versions) || !versions.length) throw new Error("the list of versions is missing");
  const lengths = new Map();
  for (const version of versions) {
    if (!isVersion(version)) throw new Error(`version ${version?.id} lacks a field, or has one of the wrong type`);
    if (version.added.includes("\r")) throw new Error(`version ${version.id} has a carriage return, unlike a text field`);
    if (lengths.has(version.id)) throw new Error(`there are two versions ${version.id}`);
    const isFirst = version === versions[0] && version.parent === null;
    if (!isFirst && !(lengths.has(version.parent) && version.id > version.parent)) {
      throw new Error(`version ${version.id} does not come after its parent`);
    }
    const most = isFirst ? 0 : lengths.get(version.parent);
    if (version.kept > most) throw new Error(`version ${version.id} keeps more than its parent has`);
    lengths.set(version.id, length(version));
  }
  if (!lengths.has(current)) throw new Error(`the current version, ${current}, is missing`);
}

function isVersion(version) {
  const isNumber = [version?.id, version?.kept].every((n) => Number.isInteger(n) && n >= 0 && n < MOST_ID);
  return isNumber && typeof version.added === "string" && HOW.includes(version.how);
}
