/** The names of arrays: `h3/attn/weights` is in block 3. */

const BLOCK = /^h\d+/;

/** Whether an array is in a block. */
export const isInBlock = (name) => BLOCK.test(name);

/** The name without the number of its block: `h/attn/weights`. */
export const general = (name) => name.replace(BLOCK, "h");

/** The name of the same array in another block; that of an array outside of the blocks stays as it is. */
export const inLayer = (name, layer) => name.replace(BLOCK, `h${layer}`);

/** The part of a block to which an array belongs: `h1/attn` for `h1/attn/q`; none for `h1/x` and outside of the blocks. */
export const partOf = (name) => /^h\d+\/(?!x$)\w+/.exec(name)?.[0] ?? "";

/** The block to which an array belongs: `h1`; none outside of the blocks. */
export const blockOf = (name) => BLOCK.exec(name)?.[0] ?? "";
