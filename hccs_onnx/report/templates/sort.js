// Headings of sortable tables become buttons; without JavaScript they stay headings.
for (const table of document.querySelectorAll("table.sortable")) {
  const how = document.createElement("span");
  how.className = "how";
  how.textContent = " Choose a heading to sort by it.";
  document.getElementById(table.getAttribute("aria-labelledby")).append(how);
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const first = heading.dataset.first ?? "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => Number(row.cells[column].dataset.value);
      const rows = [...body.rows].sort((one, another) => sign * (value(one) - value(another)) || 0);
      body.append(...rows);
    });
  });
}
