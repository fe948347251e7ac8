/** The part "attention" of the view "Look inside". */

import { element } from "./dom.js";

export class Attention {
  /**
   * @param {object} parts
   * @param {HTMLElement} parts.root where the part goes
   * @param {import("./address.js").Address} parts.address
   * @param {import("./work.js").Work} parts.work
   * @param {import("./models.js").Models} parts.models
   */
  constructor({ root, address, work, models }) {
    Object.assign(this, { address, work, models });
    root.append(element("p", { className: "faint" }, "Who looks at whom will be here."));
  }

  /**
   * Shows the state of the address.
   * @param {object} state with a token, a layer and a head that the pass has
   * @param {object} pass sizes of the model and tokens of the text, as the answer to `look` has them
   */
  show() {}
}
