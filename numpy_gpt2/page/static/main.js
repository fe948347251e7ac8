/** The frame of the page: the theme, the model chooser, and the view. */

import { byId } from "./dom.js";
import { Editor } from "./editor.js";
import { Models } from "./models.js";
import { remember } from "./store.js";
import { Work } from "./work.js";
import { Write } from "./write.js";

const root = document.documentElement;
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

const isDark = () => (root.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";

function showTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Change to the ${isDark() ? "light" : "dark"} theme`);
}

function changeTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  remember("theme", root.dataset.theme);
  showTheme();
}

byId("theme").addEventListener("click", changeTheme);
prefersDark.addEventListener("change", showTheme);
showTheme();

const work = new Work();
const editor = new Editor();
const models = new Models({ editor, work });
const write = new Write({ editor, work, models });
await Promise.all([write.start(), models.start()]);
