/** The keys that move. */

/** How far they lead along a list. */
export const ALONG = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity };

/** How far they lead in a grid: rows down, and columns to the right. */
export const ACROSS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** Whether a key was pressed alone, so that it is not the browser's or the system's. */
export const isPlain = (event) => !event.ctrlKey && !event.metaKey && !event.altKey;
