"use strict";
// Makes the columns of every table sortable: by their numbers where they have any, else by their text.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const first = [...body.rows];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    if (first.some((row) => row.cells[column].dataset.value !== undefined)) head.classList.add("number");
    button.addEventListener("click", () => {
      const next = head.ariaSort === "ascending" ? "descending" : "ascending";
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      body.append(...[...body.rows].sort((one, other) => sign * compare(one.cells[column], other.cells[column])));
    });
  });
}
function compare(one, other) {
  const numbers = [one, other].map((cell) => cell.dataset.value);
  if (numbers.every((value) => value !== undefined)) return numbers[0] - numbers[1];
  if (numbers.some((value) => value !== undefined)) return numbers[0] === undefined ? 1 : -1;
  return one.textContent.localeCompare(other.textContent, undefined, { numeric: true });
}
