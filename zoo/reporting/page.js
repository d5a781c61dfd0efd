// Sorting by a click, the other theme, values on a touch, and folded parts that open for a link and for print.
// Without it the page shows the same, in the order of the ranking.
"use strict";

const powers = "⁰¹²³⁴⁵⁶⁷⁸⁹";

function valueOf(cell) {
  const text = (cell.querySelector("b, p") ?? cell.firstChild ?? cell).textContent.trim().replace(/[−⁻]/g, "-");
  const plain = text.replace(/[,\u00a0]/g, "").replace(/∞/, "Infinity").replace(/[⁰¹²³⁴-⁹]/g, (c) => powers.indexOf(c));
  const [, digits, exponent] = plain.match(/^([+-]?(?:[\d.]+|Infinity))(?: × 10(-?\d+))?/) ?? [];
  return digits === undefined ? text : Number(digits) * 10 ** Number(exponent ?? 0);
}

function before(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1; // what is no number comes last
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[column]), row]);
      const missing = ([value]) => value === "–";
      rows.sort((a, b) => missing(a) - missing(b) || (up ? 1 : -1) * before(a[0], b[0]));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target?.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  target?.scrollIntoView();
}
addEventListener("hashchange", unfold);
document.addEventListener("click", (event) => event.target.closest('a[href^="#"]') && setTimeout(unfold));
unfold();

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const part of folded) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of folded) part.open = false;
});

const theme = document.createElement("button");
theme.type = "button";
theme.className = "theme";
theme.textContent = "light or dark";
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const now = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});
document.querySelector(".kicker").append(theme);

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
document.addEventListener("click", (event) => {
  const title = event.target.closest("svg g:has(> title)")?.querySelector(":scope > title");
  tip.hidden = !title;
  if (!title) return;
  tip.textContent = title.textContent;
  tip.style.top = `${event.pageY + 14}px`;
  tip.style.left = `${Math.max(8, Math.min(event.pageX, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
});
