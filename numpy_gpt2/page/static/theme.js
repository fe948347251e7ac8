// Not a module: it runs before the page is painted, so that the page does not flash in the other theme.
try {
  const theme = JSON.parse(localStorage.getItem("numpy-gpt2/theme")); // as store.js keeps it
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Storage is not allowed, or holds something else: the system's theme is used.
}
