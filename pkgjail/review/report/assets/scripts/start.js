// --- the start: after the first paint, which needs no script ------------------------------------------
// A link to a section opens what is folded in it.
const openTarget = () => {
  const section = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
  if (section) for (const part of section.querySelectorAll(":scope > details:only-of-type")) part.open = true;
};
const start = () => {
  performance.mark("start-begins");
  for (const [index, node] of nodes.entries()) {
    if (node.kind === "package") byId("owner").append(make("option", { value: String(index), textContent: node.name }));
  }
  for (const origin of [...new Set(classes.map((one) => one.origin))].sort()) byId("origin").append(make("option", { value: origin, textContent: origin }));
  byId("change-label").hidden = !classes.some((one) => one.change);
  graph.open = [clusterOf("All packages", [...nodes.keys()], true)];
  drawGraph();
  openGroup([wholeTree("package")]);
  matching(["/"], null); // so that this code is compiled before the first letter is typed
  filterNames();
  showCosts();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's bars change the height alone
    width = innerWidth;
    drawTreemap();
    drawGraph();
    showRows();
  });
  addEventListener("hashchange", openTarget);
  openTarget();
  performance.measure("start", "start-begins");
  document.documentElement.dataset.ready = "yes";
};
document.documentElement.classList.add("scripted");
requestAnimationFrame(() => setTimeout(start));
