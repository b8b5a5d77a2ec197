// Tables that a click on a column sorts.

/** Turns the heads of the columns into buttons that sort. `compareRows`: an order that comes first; missing values stay at the end. */
function makeSortable(table, compareRows = () => 0) {
  findAll("thead th:not(.pick)", table).forEach((head) => {
    const button = make("button", { type: "button", onclick: () => sortTable(table, head, compareRows) });
    button.append(...head.childNodes);
    head.append(button);
  });
}

function sortTable(table, head, compareRows) {
  const column = [...head.parentNode.children].indexOf(head);
  const number = head.classList.contains("number");
  const first = number && !head.classList.contains("rank") ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  findAll("th", table).forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const value = (row) => row.children[column].dataset.sort;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (number ? x - y : x.localeCompare(y, "en", { numeric: true }));
  };
  find("tbody", table).append(...findAll("tbody tr", table).sort((a, b) => compareRows(a, b) || compare(a, b)));
}
