// Start of the page.

/** Draws everything that depends on the selected runs. */
function update() {
  markSelected();
  drawLegends();
  drawCurves();
  drawTradeoffs();
  drawConfiguration();
  drawFigures();
}

setUpTables();
if (DATA.groups.length) {
  find("#panels").hidden = false;
  showGroup(0);
}
for (const id of ["curve-x", "curve-log", "curve-steps"]) find(`#${id}`).addEventListener("change", drawCurves);
for (const id of ["diff-a", "diff-b", "diff-all"]) find(`#${id}`).addEventListener("change", drawConfiguration);
find("#diff-filter").addEventListener("input", drawConfiguration);
find("#viewer").addEventListener("click", (event) => event.target === find("#viewer") && find("#viewer").close());
find("[data-zoom]").addEventListener("click", endZoom);
let drawnWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === drawnWidth) return;
  drawnWidth = innerWidth;
  drawTradeoffs();
});
