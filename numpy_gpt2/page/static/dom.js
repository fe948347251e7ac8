/** Small helpers for elements and for words. */

/** The element with an id. */
export const byId = (id) => document.getElementById(id);

/**
 * Makes an element: `element("button", { type: "button", onclick: stop }, "Stop")`. Text stays text, never HTML.
 * @param {string} tag
 * @param {object} properties properties of the element, or else attributes
 * @param {...(Node|string)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const MARKS = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍" };

/** The text of a token as nodes, in which white space can be seen. */
export function shown(text) {
  return text.split(/([ \n\t\r])/).filter(Boolean).map((part) =>
    part in MARKS ? element("span", { className: "mark" }, MARKS[part]) : part);
}

/** A token in a sentence. */
export const named = (text) => element("span", { className: "token-text" }, ...shown(text));

/** A probability in words: `12 %`, `0.41 %`. */
export function percent(probability) {
  if (probability === 0) return "0 %";
  if (probability < 0.0001) return "< 0.01 %";
  if (probability < 0.0995) return `${(100 * probability).toPrecision(2)} %`;
  if (probability < 0.995 || probability === 1) return `${Math.round(100 * probability)} %`;
  return `${Math.min(99.99, Math.round(1e4 * probability) / 100)} %`;
}

const NOT_FINITE = { null: "−∞", inf: "∞", nan: "NaN" }; // as answers have them

/** A number of a pass with so many significant digits: `−0.1235`, or `−∞`. Or a truth value. */
export function number(value, digits = 4) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value in NOT_FINITE) return NOT_FINITE[value];
  return String(Number(value.toPrecision(digits))).replaceAll("-", "−");
}

/** A whole number with its noun: `1 token`, `1,024 tokens`; `2 guesses`, where the plural is given. */
export const counted = (number, noun, plural = `${noun}s`) => `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;

/** A place in an order: `3rd`. */
export function ordinal(n) {
  const rule = new Intl.PluralRules("en", { type: "ordinal" }).select(n);
  return `${n.toLocaleString("en")}${{ one: "st", two: "nd", few: "rd", other: "th" }[rule]}`;
}

/** A bar for a number, of which the largest one fills its cell; only for the eye: the number stands beside it. */
export function bar(value, most = 1) {
  const made = element("span", { className: `strip${value < 0 ? " is-negative" : ""}`, "aria-hidden": "true" });
  made.style.setProperty("--share", most ? Math.abs(value) / most : 0);
  return made;
}

/** How many tokens the model does not see, as a clause; empty if it sees all. */
export const without = (n_unseen) =>
  n_unseen ? `, without the first ${counted(n_unseen, "token")}, for which the model has no room` : "";

/** The beginning of a text on one line, in whole words. */
export function excerpt(text, length) {
  const line = text.replace(/\s+/g, " ");
  if (line.length <= length) return line;
  const words = line.slice(0, length + 1).replace(/(?<=\S) \S*$/, "");
  return `${words.slice(0, length)}…`;
}

/**
 * A function that runs `action` once nobody has called it for `wait` milliseconds. Its `now` runs what waits, at once;
 * its `cancel` forgets it.
 */
export function debounced(action, wait) {
  let timer = null;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(later.now, wait);
  };
  later.cancel = () => {
    clearTimeout(timer);
    timer = null;
  };
  later.now = () => {
    if (timer === null) return;
    later.cancel();
    action();
  };
  return later;
}
