// --- the graph: packages in clusters, by what they would leave with ----------------------------------
// A node stands below its dominator: the last one that all chains to it go through. So a whitelist's line has
// below it the packages that it alone brings. Packages that several lines need are a cluster of their own.
const graph = { svg: byId("drawing"), open: [], places: new Map(), selected: -1, hits: new Set() };
const below = nodes.map(() => []);
const highest = [];
nodes.forEach((node, index) => (node.above < 0 ? highest : below[node.above]).push(index));
const withAllBelow = (index) => {
  const all = [index];
  for (let at = 0; at < all.length; at++) all.push(...below[all[at]]);
  return all;
};
const FEW = 3;
const clusterOf = (title, members, opens) => ({ title, members, opens });
const MANY = 8;
// A whitelist's line with what it names; "essential" names much, and says it itself.
const lineTitle = (index) => (nodes[index].kind === "rule" ? [nodes[index].name, ...requires[index].map((edge) => shortName(edges[edge].target))].join(" ") : nodes[index].name);
// The clusters of the whole graph: lines that bring several packages, "essential", what several lines need (with
// what it brings, if that is much, otherwise by the steps from a line), all other lines.
const wholeClusters = () => {
  const clusters = [];
  const shared = new Map();
  const put = (away, index) => { if (!shared.has(away)) shared.set(away, []); shared.get(away).push(index); };
  const others = new Map();
  for (const index of highest) {
    const all = withAllBelow(index);
    if (nodes[index].kind === "package" && all.length <= MANY) for (const one of all) put(steps[one], one);
    else if (nodes[index].kind === "package") clusters.push(clusterOf(`${shortName(index)}, shared`, all, true));
    else if (all.length > FEW || nodes[index].kind === "essential") clusters.push(clusterOf(lineTitle(index), all, true));
    else {
      const file = nodes[index].name.replace(/:\d+$/, "");
      if (!others.has(file)) others.set(file, []);
      others.get(file).push(...all);
    }
  }
  for (const [away, members] of shared) clusters.push(clusterOf(away ? `shared, ${counted(away, "step")} away` : "no line leads to these", members.sort((a, b) => a - b), true));
  for (const [file, members] of others) clusters.push(clusterOf(`${file}, other lines`, members, true));
  return clusters;
};
// The clusters inside one: nodes with much below them, and the others.
const clustersIn = (cluster) => {
  const inside = new Set(cluster.members);
  const heads = cluster.members.filter((index) => !inside.has(nodes[index].above));
  const upper = heads.length === 1 ? below[heads[0]] : heads;
  const large = upper.filter((index) => withAllBelow(index).length > FEW);
  const clusters = large.map((index) => clusterOf(shortName(index), withAllBelow(index), true));
  const taken = new Set(clusters.flatMap((one) => one.members));
  const rest = cluster.members.filter((index) => !taken.has(index));
  if (!clusters.length) return [clusterOf(cluster.title, cluster.members, false)];
  return rest.length ? [...clusters, clusterOf("the others", rest, false)] : clusters;
};
const packagesIn = (members) => members.filter((index) => nodes[index].kind === "package").length;

const LABEL = 72; // the least width in pixels at which a label says more than a dot
// Place nodes in a grid, with labels beside them if there is room for these, otherwise as dots.
const gridOf = (count, wide, high) => {
  const rows = Math.max(1, Math.floor(high / 14));
  const across = Math.ceil(count / rows);
  if (wide / across >= LABEL) {
    const columns = Math.max(across, Math.min(count, Math.floor(wide / 190)) || 1);
    return { columns, cell: wide / columns, row: Math.min(20, high / Math.ceil(count / columns)), labels: true };
  }
  const columns = Math.max(1, Math.ceil(Math.sqrt((count * wide) / Math.max(1, high))));
  return { columns, cell: wide / columns, row: high / Math.ceil(count / columns), labels: false };
};
const drawGraph = () => {
  performance.mark("graph-start");
  const { svg, open } = graph;
  const clusters = open.length > 1 ? clustersIn(open.at(-1)) : wholeClusters();
  clusters.sort((a, b) => b.members.length - a.members.length || (a.title < b.title ? -1 : 1));
  const total = clusters.reduce((sum, one) => sum + one.members.length, 0);
  const width = svg.clientWidth || 1000;
  // High enough for a label of each node, within two screens; beyond that there are dots, and labels in what is opened.
  const most = Math.max(900, innerHeight * 2);
  const height = Math.round(Math.min(Math.max(360, ((total + 6 * clusters.length) * 1900) / width), most));
  svg.style.height = `${height}px`;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  graph.places = new Map();
  const lines = makeSvg("g", { class: "lines" });
  const flags = makeSvg("g", { class: "flags", "aria-hidden": "true" });
  const drawn = [];
  const weights = clusters.map((one) => one.members.length + 6);
  squarify(weights, 0, 0, width, height).forEach(([x, y, wide, high], position) => {
    const cluster = clusters[position];
    const title = `${cluster.title} (${number(packagesIn(cluster.members))})`;
    const box = makeSvg("g", { class: "cluster", transform: `translate(${x} ${y})`, "data-cluster": position },
      makeSvg("rect", { x: 2, y: 2, width: Math.max(0, wide - 4), height: Math.max(0, high - 4), rx: 4 }), makeSvg("title"));
    box.querySelector("title").textContent = title;
    if (cluster.opens) { box.setAttribute("role", "button"); box.setAttribute("tabindex", "-1"); box.setAttribute("aria-label", `Open ${cluster.title}, ${counted(packagesIn(cluster.members), "package")}`); }
    const label = fitted(title, wide - 14);
    if (label) { box.append(makeSvg("text", { x: 8, y: 15 })); box.lastChild.textContent = label; }
    drawn.push(box);
    const [left, up] = [x + 6, y + (label ? 21 : 6)];
    const grid = gridOf(cluster.members.length, wide - 12, Math.max(1, y + high - 6 - up));
    cluster.members.forEach((index, at) => {
      const [cx, cy] = [left + (at % grid.columns) * grid.cell, up + Math.floor(at / grid.columns) * grid.row];
      const dot = grid.labels ? 4 : Math.max(1.2, Math.min(5, grid.cell / 2.6, grid.row / 2.6));
      const [mx, my] = grid.labels ? [cx + 6, cy + grid.row / 2] : [cx + grid.cell / 2, cy + grid.row / 2];
      graph.places.set(index, { x: mx, y: my, labelled: grid.labels && [...shortName(index)].length * 6.7 <= grid.cell - 14, element: null });
      const node = makeSvg("g", { role: "button", tabindex: "-1", "data-node": index, class: `node ${groups[index]}`, "aria-label": `${nodes[index].name} ${nodes[index].version}`.trim() },
        makeSvg("rect", { x: cx, y: cy, width: Math.max(2, grid.cell - 1), height: Math.max(2, grid.row - 1), rx: 2 }),
        nodes[index].kind === "package" ? makeSvg("circle", { cx: mx, cy: my, r: dot }) : makeSvg("path", { d: `M${mx - dot - 1} ${my}l${dot + 1} ${-dot - 1}l${dot + 1} ${dot + 1}l${-dot - 1} ${dot + 1}z` }),
        makeSvg("title"));
      node.querySelector("title").textContent = `${nodes[index].name} ${nodes[index].version}`;
      const text = grid.labels ? fitted(`${SIGNS[nodes[index].change] ?? ""}${shortName(index)}`, grid.cell - 14) : "";
      if (text) { node.append(makeSvg("text", { x: mx + 7, y: my + 4 })); node.lastChild.textContent = text; }
      graph.places.get(index).element = node;
      drawn.push(node);
    });
  });
  graph.clusters = clusters;
  svg.replaceChildren(...drawn, lines, flags);
  graph.lines = lines;
  graph.flags = flags;
  (graph.places.get(graph.selected)?.element ?? svg.querySelector('[role="button"]'))?.setAttribute("tabindex", "0");
  showCrumbs(byId("graph-path"), open.map((one) => one.title), (depth) => openCluster(open.slice(0, depth + 1)));
  markGraph();
  svg.dataset.shown = graph.places.size;
  performance.measure("graph", "graph-start");
};
const openCluster = (open) => { graph.open = open; drawGraph(); };
// A label on top of all, for a node whose place has no room for its name.
const flag = (index) => {
  const place = graph.places.get(index);
  const name = shortName(index);
  const wide = [...name].length * 6.8 + 8;
  const left = Math.max(1, Math.min(place.x + 7, graph.svg.viewBox.baseVal.width - wide - 1));
  const highest = graph.svg.viewBox.baseVal.height - 17;
  const clear = (top) => !graph.flagged.some((other) => Math.abs(other.top - top) < 16 && left < other.right && other.left < left + wide);
  const top = [-8, 10, -26, 28, -44].map((step) => Math.max(1, Math.min(place.y + step, highest))).find(clear);
  if (top === undefined) return;
  graph.flagged.push({ top, left, right: left + wide });
  const text = makeSvg("text", { x: left + 4, y: top + 12 });
  text.textContent = name;
  graph.flags.append(makeSvg("rect", { x: left, y: top, width: wide, height: 16, rx: 3 }), text);
};
const line = (edge, kind) => {
  const [from, to] = [graph.places.get(edge.source), graph.places.get(edge.target)];
  if (!from || !to) return;
  const bend = Math.min(40, Math.hypot(to.x - from.x, to.y - from.y) / 5);
  graph.lines.append(makeSvg("path", { class: kind, d: `M${from.x} ${from.y}Q${(from.x + to.x) / 2} ${(from.y + to.y) / 2 - bend} ${to.x} ${to.y}` }));
};
const MOST_PATHS = 6;
const MOST_LINES = 60; // more would hide all else; the nodes stay bright
const MOST_FLAGS = 40;
const markGraph = () => {
  const { svg, selected, hits, places } = graph;
  graph.lines.replaceChildren();
  graph.flags.replaceChildren();
  graph.flagged = [];
  const chain = new Set();
  const near = new Set();
  if (selected >= 0) {
    chain.add(selected);
    for (const beside of [requires[selected], requiredBy[selected]]) {
      for (const edge of beside) {
        near.add(edges[edge].source).add(edges[edge].target);
        if (beside.length <= MOST_LINES) line(edges[edge], "near");
      }
    }
    pathsTo(selected).slice(0, MOST_PATHS).forEach((path, position) => {
      for (const edge of path) {
        line(edge, position ? "chain" : "chain first");
        chain.add(edge.source).add(edge.target);
      }
    });
  }
  svg.classList.toggle("dims", selected >= 0 || hits.size > 0);
  for (const [index, { element }] of places) {
    element.classList.toggle("chosen", index === selected);
    element.classList.toggle("chain", chain.has(index));
    element.classList.toggle("near", near.has(index));
    element.classList.toggle("hit", hits.has(index));
  }
  for (const index of [...new Set([...chain, ...hits])].slice(0, MOST_FLAGS)) if (places.has(index) && !places.get(index).labelled) flag(index);
};
const packageButtons = (title, indices) => {
  const list = make("ul", { className: "chips" });
  for (const index of indices) list.append(make("li", {}, make("button", { type: "button", textContent: nodes[index].name, onclick: () => selectPackage(index) })));
  return [make("h4", { textContent: `${title} (${indices.length})` }), list];
};
const selectPackage = (index) => {
  graph.selected = index;
  if (!graph.places.has(index)) openCluster(graph.open.slice(0, 1));
  const node = nodes[index];
  const found = pathsTo(index);
  const about = byId("about");
  about.replaceChildren(
    make("h3", { textContent: `${node.name} ${node.version}`.trim() }),
    make("p", { textContent: node.kind === "package" ? `Its files have ${size(node.bytes)}; ${size(node.cost)} would leave the jail with it.` : `${size(node.cost)} would leave the jail with it.` }),
  );
  if (found.length) {
    about.append(make("h4", { textContent: "Why it is here" }), chainList(found[0]));
    if (found.length > 1) about.append(make("h4", { textContent: `Paths from other roots (${found.length - 1})` }), ...found.slice(1, MOST_PATHS).map(chainList));
    if (found.length > MOST_PATHS) about.append(make("p", { className: "soft", textContent: `and ${number(found.length - MOST_PATHS)} more` }));
  }
  about.append(...packageButtons("Required by", requiredBy[index].map((edge) => edges[edge].source)), ...packageButtons("Requires", requires[index].map((edge) => edges[edge].target)));
  if (isNarrow()) about.scrollIntoView({ block: "nearest" });
  if (node.kind === "package") about.append(make("button", { type: "button", textContent: "Show its files", onclick: () => { byId("owner").value = String(index); filterNames(); byId("files").scrollIntoView(); byId("filter").focus(); } }));
  markGraph();
};
// Until something is selected: the lines that cost most, as a list.
const showCosts = () => {
  const lines = [...nodes.keys()].filter((index) => nodes[index].kind !== "package").sort((a, b) => nodes[b].cost - nodes[a].cost || a - b);
  const most = lines.length ? nodes[lines[0]].cost || 1 : 1;
  const bars = make("ol", { className: "bars" });
  for (const index of lines.slice(0, 14)) {
    const button = make("button", { type: "button", onclick: () => selectPackage(index) }, make("span", { textContent: [...lineTitle(index)].slice(0, 40).join("") }), make("span", { textContent: size(nodes[index].cost) }));
    button.style.setProperty("--part", `${(100 * nodes[index].cost) / most}%`);
    bars.append(make("li", {}, button));
  }
  byId("about").replaceChildren(make("h3", { textContent: "What would leave with each line" }), bars);
};
const findPackages = () => {
  const word = byId("find").value.trim().toLowerCase();
  const found = word ? [...nodes.keys()].filter((index) => nodes[index].name.toLowerCase().includes(word)) : [];
  const rank = (index) => (shortName(index).toLowerCase() === word ? 0 : shortName(index).toLowerCase().startsWith(word) ? 1 : 2);
  found.sort((a, b) => rank(a) - rank(b) || a - b);
  graph.hits = new Set(found);
  byId("hits").textContent = word ? `${number(found.length)} found` : "";
  byId("hit-list").replaceChildren(...found.slice(0, 8).map((index) => make("li", {}, make("button", { type: "button", textContent: nodes[index].name, onclick: () => selectPackage(index) }))));
  markGraph();
  return found;
};
const chooseInGraph = (element) => {
  if (element.dataset.node !== undefined) return selectPackage(Number(element.dataset.node));
  const cluster = graph.clusters[element.dataset.cluster];
  if (!cluster.opens) return undefined;
  const byKeyboard = document.activeElement === element;
  openCluster([...graph.open, cluster]);
  if (byKeyboard) focusOn(graph.svg, graph.svg.querySelector('[role="button"]'));
  return undefined;
};
byId("find").addEventListener("input", findPackages);
byId("find").addEventListener("keydown", (event) => {
  if (event.key === "Enter") { const [first] = findPackages(); if (first !== undefined) selectPackage(first); }
  if (event.key === "Escape") { event.target.value = ""; findPackages(); }
});
graph.svg.addEventListener("click", (event) => {
  const element = event.target.closest("g[data-node], g[data-cluster]");
  if (element) chooseInGraph(element);
});
graph.svg.addEventListener("keydown", (event) => {
  const element = event.target.closest('g[role="button"]');
  if (!element) return;
  const all = [...graph.svg.querySelectorAll('g[role="button"]')];
  const at = all.indexOf(element);
  const clusterFrom = (from, step) => { for (let one = from + step; all[one]; one += step) if (all[one].dataset.cluster !== undefined) return all[one]; return undefined; };
  const acts = {
    Enter: () => chooseInGraph(element),
    " ": () => chooseInGraph(element),
    Escape: () => { if (graph.open.length > 1) { openCluster(graph.open.slice(0, -1)); focusOn(graph.svg, graph.svg.querySelector('[role="button"]')); } },
    ArrowRight: () => focusOn(graph.svg, all[at + 1]),
    ArrowLeft: () => focusOn(graph.svg, all[at - 1]),
    ArrowDown: () => focusOn(graph.svg, clusterFrom(at, 1)),
    ArrowUp: () => focusOn(graph.svg, clusterFrom(at, -1)),
    Home: () => focusOn(graph.svg, all[0]),
    End: () => focusOn(graph.svg, all.at(-1)),
  };
  if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
});
