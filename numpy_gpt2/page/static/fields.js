/** Labelled controls of forms. */

import { element } from "./dom.js";

/**
 * An input for a number.
 * @param {{low: number, high: number|null, whole: boolean, default: number}} option what it may be
 * @param {string} id
 * @param {string} [value] in place of the default
 */
export function numberInput(option, id, value) {
  const input = element("input", { type: "number", id, step: option.whole ? 1 : 0.05 });
  if (Number.isInteger(option.low)) input.min = option.low;
  if (option.high !== null) input.max = option.high;
  input.value = value || option.default;
  return input;
}

/** The number in the input of an option; its default, where there is none. */
export const numberIn = ({ valueAsNumber }, option) => (Number.isNaN(valueAsNumber) ? option.default : valueAsNumber);

/**
 * A control with its label, and a place below for what is wrong with it, `wrong-` and its id. Screen readers read out its
 * help; others see it as a tooltip, and in the `helpLine` of the form.
 */
export function labelled(label, input, help) {
  input.title = help;
  input.setAttribute("aria-describedby", `wrong-${input.id} help-${input.id}`);
  return element("div", { className: "setting" },
    element("label", { htmlFor: input.id }, label), input,
    element("p", { id: `wrong-${input.id}`, className: "wrong" }),
    element("p", { id: `help-${input.id}`, hidden: true }, help));
}

/** A line of a form with the help of the control that one is in, so that the controls do not move. */
export function helpLine(form) {
  const line = element("p", { className: "faint help", "aria-hidden": "true" });
  form.addEventListener("focusin", ({ target }) => (line.textContent = target.title));
  return line;
}

/** What an option does, with its default. */
export const helpOf = (option) => `${option.help} (default ${option.default})`;

/** The name of an option in words: `Top k`. */
export const words = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");
