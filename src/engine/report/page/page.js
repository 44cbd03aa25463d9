// Click or press Enter on a column head to sort by it; again to reverse.
"use strict";
const said = document.getElementById("sorted");
const keyOf = (cell) => {
  const value = cell.dataset.value;
  return value === undefined ? cell.textContent.trim() : Number(value);
};
const order = (a, b) => {
  const numbers = typeof a === "number" && typeof b === "number";
  if (numbers) return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a.localeCompare(b, "en", { numeric: true });
};
for (const head of document.querySelectorAll("thead tr:last-child th")) {
  head.querySelector("button").addEventListener("click", () => {
    const column = head.cellIndex;
    const body = head.closest("table").tBodies[0];
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    for (const sibling of head.parentElement.children) sibling.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => [keyOf(row.cells[column]), row]);
    rows.sort(([a], [b]) => {
      // Cells without a number stay at the end in both directions.
      if (typeof a !== typeof b) return order(a, b);
      return sign * order(a, b);
    });
    body.append(...rows.map(([, row]) => row));
    said.textContent = `Sorted by ${head.textContent.trim()}, ${direction}`;
  });
}
