/** The terms of which a logit is the sum: what embeddings, heads, biases and MLPs add to it. */

import { number } from "./dom.js";

/**
 * The terms as a list, each with the change of the address that leads to the array that it comes from.
 * @param {object} found the answer to `attribution`
 * @returns {{text: string, value: number, place: object, isHead: boolean}[]}
 */
export function termsOf({ terms, position }) {
  const { token_embedding, position_embedding, heads, biases, mlps, last_bias } = terms;
  const term = (text, value, name, more = {}) => ({
    text, value, isHead: "head" in more, place: { part: "lines", name, token: position, cell: null, ...more },
  });
  return [
    term("embedding of the token", token_embedding, "x"),
    term("embedding of the position", position_embedding, "x"),
    ...heads.flatMap((row, layer) => row.map((value, head) =>
      term(`layer ${layer}, head ${head}`, value, `h${layer}/attn/a`, { layer, head }))),
    ...biases.map((value, layer) => term(`layer ${layer}, bias of the attention`, value, `h${layer}/attn/c_proj`, { layer })),
    ...mlps.map((value, layer) => term(`layer ${layer}, MLP`, value, `h${layer}/mlp/c_proj`, { layer })),
    term("bias of the last layer norm", last_bias, "ln_f"),
  ];
}

/** What has to be known about these terms. */
export const DERIVED = "Derived: holding the divisor of the last layer norm fixed, each part of the model adds its own term to "
  + "the logit. This is the direct effect, without what later parts make of it.";

/** A number with its sign: `+1.235`, `−0.5`. */
export const signed = (value, digits = 4) => `${value > 0 ? "+" : ""}${number(value, digits)}`;

export const sum = (values) => values.reduce((total, value) => total + value, 0);
