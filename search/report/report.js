"use strict";

// Figures take the colours of text and grid from the page, so they follow it from light to dark.
function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  const axis = {
    gridcolor: of("--rule"), linecolor: of("--quiet"), zeroline: false, ticks: "outside",
    tickcolor: of("--rule"), title: { standoff: 8 },
  };
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: of("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: {
      align: "left", bgcolor: of("--raised"), bordercolor: of("--rule"),
      font: { color: of("--ink"), size: 12 }, namelength: 0,
    },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: of("--rule"), activecolor: of("--accent") },
    xaxis: axis,
    yaxis: axis,
  };
}

function draw(figure) {
  const spec = JSON.parse(document.getElementById(figure.dataset.figure).textContent);
  spec.layout.template = { layout: theme() };
  const config = {
    displaylogo: false, responsive: !spec.layout.width,
    modeBarButtons: spec.layout.xaxis
      ? [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]]
      : [["toImage"]],
    toImageButtonOptions: { format: "svg", filename: figure.dataset.figure },
  };
  return Plotly.react(figure, spec.data, spec.layout, config);
}

// One after another with pauses, so that the page can be read before all of them are drawn.
async function drawAll() {
  for (const figure of document.querySelectorAll("[data-figure]")) {
    await draw(figure);
    await new Promise((resolve) => { setTimeout(resolve); });
  }
}

// Numbers are sorted by value and texts alphabetically; missing values come last in both orders.
function sortBy(head) {
  const body = head.closest("table").tBodies[0];
  const descending = head.getAttribute("aria-sort") !== "descending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = (row) => row.cells[head.cellIndex].dataset.value;
  const rows = [...body.rows].filter((row) => value(row) !== "");
  const missing = [...body.rows].filter((row) => value(row) === "");
  const areNumbers = rows.every((row) => !Number.isNaN(Number(value(row))));
  const ascending = areNumbers
    ? (a, b) => Number(value(a)) - Number(value(b))
    : (a, b) => value(a).localeCompare(value(b));
  rows.sort(descending ? (a, b) => ascending(b, a) : ascending);
  body.append(...rows, ...missing);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll().then(() => { document.documentElement.dataset.drawn = "yes"; });
