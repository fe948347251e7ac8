/** The colours of matrices: scales that every kind of colour vision can read, for the light theme and the dark one. */

const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

// From the smallest value to the largest. Blue and orange are told apart by every kind of colour vision; zero has the
// colour of the paper.
const SCALES = {
  light: {
    sequential: ["#fffefb", "#cfe1ea", "#5b9dbf", "#1f6184", "#0b2f44"],
    diverging: ["#123f73", "#7fabd4", "#fffefb", "#eda965", "#9c4206"],
  },
  dark: {
    sequential: ["#1b1c1f", "#1f4a60", "#3f8db5", "#9fd3ea", "#f2fbff"],
    diverging: ["#9ccbf7", "#35689b", "#1b1c1f", "#95541b", "#ffbd7d"],
  },
};

/** Whether the page is in the dark theme. */
export const isDark = () => (document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";

/** Calls `action` when the system changes between light and dark. */
export const onSystemTheme = (action) => prefersDark.addEventListener("change", action);

/**
 * The colour of each byte of a picture, in the theme of the page: 256 times red, green, blue and opacity. Byte 0, which
 * stands for minus infinity, is transparent.
 * @param {boolean} isSigned whether the scale has 0 in its middle
 * @returns {Uint8ClampedArray}
 */
export function palette(isSigned) {
  const stops = SCALES[isDark() ? "dark" : "light"][isSigned ? "diverging" : "sequential"].map(channels);
  const colours = new Uint8ClampedArray(4 * 256);
  for (let byte = 1; byte < 256; byte++) {
    const place = ((byte - 1) / 254) * (stops.length - 1);
    const i = Math.min(Math.floor(place), stops.length - 2);
    stops[i].forEach((low, k) => (colours[4 * byte + k] = low + (place - i) * (stops[i + 1][k] - low)));
    colours[4 * byte + 3] = 255;
  }
  return colours;
}

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
