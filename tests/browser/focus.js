// Where the focus is, whether it is seen, and whether it walks down the page.
() => {
  const e = document.activeElement;
  const style = getComputedStyle(e);
  const card = e.closest(".card-item");
  const ring = [style, card && getComputedStyle(card)].some((s) => s && s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2);
  const box = e.getBoundingClientRect();
  window.walked = window.walked || [];
  const follows = window.walked.length === 0 || Boolean(window.walked.at(-1).compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING);
  window.walked.push(e);
  return {tag: e.tagName, text: (e.getAttribute("aria-label") || e.textContent).trim().slice(0, 40), ring, follows, card: Boolean(card), seen: box.width > 0 && box.height > 0};
}
