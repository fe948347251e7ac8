/** The changes of an experiment, as the state of the address has them. */

/** A change in words: `h3/attn/a, head 1: zero`. */
export function described({ name, how, factor, text, head, position }) {
  const places = [name, ...(head === undefined ? [] : [`head ${head}`]),
    ...(position === undefined ? [] : [`position ${position}`])];
  const what = { zero: "zero", scale: `times ${factor}`, put: `the value from “${text}”` }[how];
  return `${places.join(", ")}: ${what}`;
}

/** Whether two changes are made at the same place: the later one then stands for both. */
const isSamePlace = (a, b) => a.name === b.name && a.head === b.head && a.position === b.position;

const isSame = (a, b) => isSamePlace(a, b) && a.how === b.how && a.factor === b.factor && a.text === b.text;

/** Whether all of `wanted` are among the changes. */
export const includesAll = (changes, wanted) => wanted.every((each) => changes.some((change) => isSame(change, each)));

/** The changes with others, which replace those at the same places. */
export const withThese = (changes, others) => [...withoutPlaces(changes, others), ...others];

/** The changes without those at the places of others. */
export const withoutPlaces = (changes, others) =>
  changes.filter((change) => !others.some((other) => isSamePlace(change, other)));

/**
 * What is to be zero so that a part of the model adds nothing.
 * @param {number} layer
 * @param {"attention"|"mlp"|"block"|number} part a number is that of a head
 */
export function off(layer, part) {
  const zero = (name, place = {}) => ({ name: `h${layer}/${name}`, how: "zero", ...place });
  if (part === "attention") return [zero("attn")];
  if (part === "mlp") return [zero("mlp")];
  if (part === "block") return [zero("attn"), zero("mlp")];
  return [zero("attn/a", { head: part })];
}
