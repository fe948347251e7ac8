/** Scrolling within a box. */

/** Scrolls a box, not the page, so that an element in it can be seen. */
export function reveal(box, { offsetTop, offsetHeight }) {
  const { scrollTop, clientHeight } = box;
  const isSeen = offsetTop >= scrollTop && offsetTop + offsetHeight <= scrollTop + clientHeight;
  if (!isSeen) box.scrollTop = offsetTop - (clientHeight - offsetHeight) / 2;
}
