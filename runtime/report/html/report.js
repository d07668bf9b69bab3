"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
for (const [name, figure] of Object.entries(figures)) {
  Plotly.newPlot(name, figure.data, figure.layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: "hover",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  });
}
// Charts in a closed part have no width until it is opened.
for (const part of document.querySelectorAll("details")) {
  part.addEventListener("toggle", () => {
    for (const chart of part.querySelectorAll(".chart")) Plotly.Plots.resize(chart);
  });
}
document.body.dataset.drawn = Object.keys(figures).length;
