/** The frame of the page: the theme, the model chooser, and the two views. */

import { Address } from "./address.js";
import { byId } from "./dom.js";
import { Editor } from "./editor.js";
import { Look } from "./look.js";
import { repaint } from "./matrix.js";
import { Models } from "./models.js";
import { isDark, onSystemTheme } from "./palette.js";
import { remember } from "./store.js";
import { Work } from "./work.js";
import { Write } from "./write.js";

const VIEWS = { write: "Write", look: "Look inside" };

function showTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Change to the ${isDark() ? "light" : "dark"} theme`);
  repaint();
}

function changeTheme() {
  const { dataset } = document.documentElement;
  dataset.theme = isDark() ? "light" : "dark";
  remember("theme", dataset.theme);
  showTheme();
}

byId("theme").addEventListener("click", changeTheme);
onSystemTheme(showTheme);
showTheme();

const address = new Address();

let shown = "";

function showView() {
  const { view } = address.state;
  if (view === shown) return;
  shown = view;
  for (const name of Object.keys(VIEWS)) {
    byId(name).hidden = name !== view;
    if (name === view) byId(`to-${name}`).setAttribute("aria-current", "page");
    else byId(`to-${name}`).removeAttribute("aria-current");
  }
  for (const id of ["suggest", "count"]) byId(id).hidden = view !== "write";
  document.title = `${VIEWS[view]} · numpy_gpt2`;
}

showView();

const work = new Work();
const editor = new Editor();
const models = new Models({ editor, work });
address.addEventListener("change", () => address.state.view === shown || work.say("")); // what it says is of the other view
address.addEventListener("change", showView);
const write = new Write({ address, editor, work, models });

// The link to the view "Look inside" is made when somebody is about to follow it: it leads to the text as it is then or,
// from the view itself, to where one is.
function linkToLook() {
  const { text } = editor;
  const toText = { view: "look", text, model: models.name, token: null, cell: null, changes: [] };
  byId("to-look").href = address.link(address.state.view === "look" ? {} : toText);
}

for (const event of ["pointerenter", "pointerdown", "focus"]) byId("to-look").addEventListener(event, linkToLook);

const opened = write.start();
new Look({ address, editor, work, models, opened });
await Promise.all([opened, models.start()]);
