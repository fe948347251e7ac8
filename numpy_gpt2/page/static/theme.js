// Not a module: it runs before the page is painted, so that the page does not flash in the other theme.
try {
  const theme = localStorage.getItem("numpy-gpt2/theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Storage is not allowed: the system's theme is used.
}
