/** The numbers of a picture, as exactly as its 254 shades have them: half a shade off at most. */

import { decoded } from "./matrix.js";

export class Shades {
  #bytes;

  /** @param {object} picture as the server makes them */
  constructor(picture) {
    this.picture = picture;
    this.#bytes = decoded(picture.bytes);
  }

  /** The number in a row and a column of the array; of a thinned picture, that of its cell. */
  at(row, column) {
    const { columns, step, low, high } = this.picture;
    const byte = this.#bytes[Math.floor(row / step[0]) * columns + Math.floor(column / step[1])];
    return low + ((byte - 1) / 254) * (high - low);
  }
}

/** A picture of a few rows of numbers, with 0 in the middle of the scale, as the server makes them. */
export function signedPicture(rows) {
  const high = Math.max(...rows.flat().map(Math.abs)) || 1;
  const bytes = rows.flat().map((value) => 1 + Math.round(((value + high) / (2 * high)) * 254));
  return {
    rows: rows.length, columns: rows[0].length, bytes: btoa(String.fromCharCode(...bytes)),
    low: -high, high, step: [1, 1], is_signed: true,
  };
}
