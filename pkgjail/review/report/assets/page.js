"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, fields = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), fields);
    element.append(...children);
    return element;
  };
  const size = (bytes) => {
    if (bytes < 1000) return `${bytes} bytes`;
    for (const unit of ["kB", "MB"]) {
      bytes /= 1000;
      if (bytes < 1000) return `${bytes.toFixed(1)} ${unit}`;
    }
    return `${(bytes / 1000).toFixed(1)} GB`;
  };
  const number = new Intl.NumberFormat("en").format;

  // --- the data, as encoded by columns.py ---------------------------------------------------------
  const data = JSON.parse(byId("data").textContent);
  const nodes = data.nodes.map(([name, kind, version, bytes, cost, last]) => ({ name, kind, version, bytes, cost, last }));
  const edges = data.edges.map(([source, target, kind, text]) => ({ source, target, kind, text }));
  const requires = nodes.map(() => []);
  const requiredBy = nodes.map(() => []);
  edges.forEach((edge, index) => { requires[edge.source].push(index); requiredBy[edge.target].push(index); });
  const group = (index) => {
    const sources = requiredBy[index].map((edge) => nodes[edges[edge].source].kind);
    return ["rule", "essential"].find((kind) => sources.includes(kind)) ?? "package";
  };
  const chainOf = (index) => {
    const chain = [];
    while (nodes[index].last >= 0) { chain.unshift(edges[nodes[index].last]); index = chain[0].source; }
    return chain;
  };

  const chainList = (index) => {
    const chain = chainOf(index);
    const list = make("ol", { className: "chain" });
    if (chain.length) list.append(make("li", { textContent: nodes[chain[0].source].name }));
    for (const edge of chain) {
      list.append(make("li", {}, make("span", { className: "soft", textContent: `${edge.kind} ${edge.text} → ` }), nodes[edge.target].name));
    }
    return list;
  };

  // --- the treemap ------------------------------------------------------------------------------
  const drawTreemap = () => {
    const svg = byId("treemap");
    const [width, height] = [svg.clientWidth || 1100, svg.clientHeight || 416];
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const leaves = nodes.map((node, index) => ({ index, value: node.bytes })).filter((one) => one.value > 0);
    const root = d3.hierarchy({ children: leaves }).sum((one) => one.value || 0).sort((a, b) => b.value - a.value || a.data.index - b.data.index);
    d3.treemap().size([width, height]).paddingInner(1)(root);
    const space = "http://www.w3.org/2000/svg";
    svg.replaceChildren();
    const boxes = root.children ?? [];
    boxes.forEach((leaf, position) => {
      const node = nodes[leaf.data.index];
      const [wide, high] = [leaf.x1 - leaf.x0, leaf.y1 - leaf.y0];
      const box = svg.appendChild(document.createElementNS(space, "g"));
      box.setAttribute("transform", `translate(${leaf.x0} ${leaf.y0})`);
      box.setAttribute("tabindex", position ? "-1" : "0");
      box.setAttribute("role", "button");
      box.setAttribute("aria-label", `${node.name}, ${size(node.bytes)}`);
      box.dataset.node = leaf.data.index;
      const rect = box.appendChild(document.createElementNS(space, "rect"));
      rect.setAttribute("width", wide);
      rect.setAttribute("height", high);
      rect.setAttribute("class", group(leaf.data.index));
      rect.appendChild(document.createElementNS(space, "title")).textContent = `${node.name} ${node.version}: ${size(node.bytes)}, ${size(node.cost)} would leave the jail with it`;
      const characters = [...node.name.split(":")[0]];  // not UTF-16 code units, which may be halves
      const room = Math.floor((wide - 8) / 6.8);
      const label = characters.length <= room ? characters.join("") : `${characters.slice(0, room - 1).join("")}…`;
      if (high > 16 && room > 3) {
        const text = box.appendChild(document.createElementNS(space, "text"));
        text.setAttribute("x", 4);
        text.setAttribute("y", 13);
        text.textContent = label;
        if (high > 30 && wide > 60) {
          const second = box.appendChild(document.createElementNS(space, "text"));
          second.setAttribute("x", 4);
          second.setAttribute("y", 26);
          second.textContent = size(node.bytes);
        }
      }
    });
  };
  const pickBox = (event) => {
    const box = event.target.closest("g[data-node]");
    if (box) { select(Number(box.dataset.node)); byId("graph").scrollIntoView(); }
  };
  byId("treemap").addEventListener("click", pickBox);
  byId("treemap").addEventListener("keydown", (event) => {
    const box = event.target.closest("g[data-node]");
    const step = { ArrowRight: "nextElementSibling", ArrowDown: "nextElementSibling", ArrowLeft: "previousElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (event.key === "Enter" || event.key === " ") { pickBox(event); event.preventDefault(); }
    if (!box || !step || !box[step]) return;
    box.setAttribute("tabindex", "-1");
    box[step].setAttribute("tabindex", "0");
    box[step].focus();
    event.preventDefault();
  });

  // --- the graph --------------------------------------------------------------------------------
  let selected = -1;
  let drawing = null;
  const around = (start, depth) => {
    if (depth === 0) return new Set(nodes.keys());
    const found = new Set([start]);
    for (const [list, end] of [[requiredBy, "source"], [requires, "target"]]) {
      if (depth < 0 && list === requires) continue;
      let layer = new Set([start]);
      const seen = new Set(layer);
      for (let step = 0; layer.size && (depth < 0 || step < depth); step++) {
        const next = new Set();
        for (const one of layer) for (const edge of list[one]) if (!seen.has(edges[edge][end])) { next.add(edges[edge][end]); seen.add(edges[edge][end]); }
        layer = next;
      }
      seen.forEach((one) => found.add(one));
    }
    for (const edge of chainOf(start)) { found.add(edge.source); found.add(edge.target); }
    return found;
  };
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(`--${name}`).trim();
    return [
      { selector: "node", style: { shape: "round-rectangle", label: "data(label)", "font-size": 11, "text-valign": "center", width: "data(width)", height: 22, color: value("on"), "background-color": value("package") } },
      ...["rule", "essential"].map((kind) => ({ selector: `node.${kind}`, style: { "background-color": value(kind) } })),
      { selector: "edge", style: { width: 1, "curve-style": "bezier", "target-arrow-shape": "triangle", "arrow-scale": 0.8, "line-color": value("soft"), "target-arrow-color": value("soft"), opacity: 0.6 } },
      { selector: ".chain", style: { "line-color": value("link"), "target-arrow-color": value("link"), width: 3, opacity: 1 } },
      { selector: "node.chain", style: { "border-color": value("ink"), "border-width": 2, width: "data(width)" } },
      { selector: ":selected", style: { "border-color": value("ink"), "border-width": 3 } },
    ];
  };
  const draw = () => {
    if (selected < 0) return;
    performance.mark("graph-start");
    const shown = around(selected, Number(byId("depth").value));
    const chain = new Set(chainOf(selected));
    const onChain = new Set([...chain].flatMap((edge) => [edge.source, edge.target]));
    const elements = [...shown].sort((a, b) => a - b).map((index) => {
      const label = nodes[index].kind === "package" ? nodes[index].name.split(":")[0] : nodes[index].name;
      return { data: { id: `n${index}`, label, width: 7 * label.length + 14 }, classes: [nodes[index].kind === "package" ? group(index) : nodes[index].kind, onChain.has(index) ? "chain" : ""].join(" "), selected: index === selected };
    });
    for (const [index, edge] of edges.entries()) {
      if (shown.has(edge.source) && shown.has(edge.target)) elements.push({ data: { id: `e${index}`, source: `n${edge.source}`, target: `n${edge.target}` }, classes: chain.has(edge) ? "chain" : "" });
    }
    drawing?.destroy();
    drawing = cytoscape({ container: byId("drawing"), elements, style: colours(), minZoom: 0.05, maxZoom: 3, layout: { name: "dagre", rankDir: "LR", nodeSep: 8, rankSep: 60, animate: false, fit: true, padding: 12 } });
    drawing.on("tap", "node", (event) => select(Number(event.target.id().slice(1))));
    byId("drawing").dataset.shown = shown.size;
    byId("drawing").nodePlace = (name) => Object.values(drawing.$id(`n${nodes.findIndex((node) => node.name === name)}`).renderedPosition());
    performance.measure("graph", "graph-start");
  };
  const buttons = (title, indices) => {
    const list = make("p", {}, make("b", { textContent: `${title} (${indices.length}) ` }));
    for (const index of indices) list.append(make("button", { type: "button", textContent: nodes[index].name, onclick: () => select(index) }));
    return list;
  };
  const select = (index) => {
    selected = index;
    const node = nodes[index];
    const about = byId("about");
    about.replaceChildren(
      make("h3", { textContent: `${node.name} ${node.version}` }),
      make("p", { textContent: node.kind === "package" ? `Its files have ${size(node.bytes)}; ${size(node.cost)} would leave the jail with it.` : `${size(node.cost)} would leave the jail with it.` }),
      make("b", { textContent: "Why it is here" }), chainList(index),
      buttons("Required by", requiredBy[index].map((edge) => edges[edge].source)),
      buttons("Requires", requires[index].map((edge) => edges[edge].target)),
    );
    if (node.kind === "package") about.append(make("button", { type: "button", textContent: "Its files", onclick: () => { byId("owner").value = String(index); filter(); byId("files").scrollIntoView(); byId("filter").focus(); } }));
    byId("focus").value = node.name;
    draw();
  };
  byId("focus").addEventListener("change", (event) => {
    const word = event.target.value.trim();
    const index = nodes.findIndex((node) => node.name === word || node.name.split(":")[0] === word);
    const part = index >= 0 ? index : nodes.findIndex((node) => word && node.name.includes(word));
    if (part >= 0) select(part);
  });
  byId("depth").addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawing?.style(colours()));

  // --- the table of names -----------------------------------------------------------------------
  const HEIGHT = 24;
  let paths, kinds, sizes, targets, haystack, starts, found, total = 0, active = -1, bySize;
  const readNames = () => {
    let previous = "";
    paths = data.paths === "" ? [] : data.paths.split("\n").map((line) => {
      const space = line.indexOf(" ");
      previous = previous.slice(0, parseInt(line.slice(0, space), 36)) + line.slice(space + 1);
      return previous;
    });
    kinds = Uint32Array.from(data.kinds.split(","), (text) => parseInt(text, 36) || 0);
    sizes = Float64Array.from(data.sizes.split(","), (text) => (text === "" ? -1 : parseInt(text, 36)));
    targets = new Map();
    let link = 0;
    for (let row = 0; row < paths.length; row++) if (data.classes[kinds[row]][0] === "symlink") targets.set(row, data.targets[link++]);
    const lowered = paths.map((path) => path.toLowerCase());
    starts = new Uint32Array(paths.length + 1);
    for (let row = 0, at = 0; row < paths.length; row++) { at += lowered[row].length + 1; starts[row + 1] = at; }
    haystack = lowered.join("\n") + "\n";
    found = new Uint32Array(paths.length);
    bySize = Uint32Array.from(paths.keys()).sort((a, b) => sizes[b] - sizes[a] || a - b);
    data.paths = data.kinds = data.sizes = "";
  };
  // Find the rows whose path has each word, in order: one search through all paths joined, from hit to hit.
  const matching = (words, allowed) => {
    const [longest = "", ...others] = [...words].sort((a, b) => b.length - a.length);
    let count = 0;
    let row = 0;
    const take = (one) => {
      if (allowed && !allowed[kinds[one]]) return;
      if (others.length) {
        const path = haystack.slice(starts[one], starts[one + 1]);
        if (!others.every((word) => path.includes(word))) return;
      }
      found[count++] = one;
    };
    if (!longest) {
      for (; row < paths.length; row++) take(row);
      return count;
    }
    for (let at = haystack.indexOf(longest); at >= 0; at = haystack.indexOf(longest, starts[row + 1])) {
      let [low, high] = [row, paths.length - 1];
      let step = 1;
      while (low + step <= high && starts[low + step] <= at) { low += step; step *= 2; }
      high = Math.min(high, low + step);
      while (low < high) { const middle = (low + high + 1) >> 1; if (starts[middle] <= at) low = middle; else high = middle - 1; }
      row = low;
      take(row);
    }
    return count;
  };
  const filter = () => {
    performance.mark("filter-start");
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [owner, origin] = [byId("owner").value, byId("origin").value];
    const allowed = owner === "" && origin === "" ? null : data.classes.map((one) => (owner === "" || one[2].includes(Number(owner))) && (origin === "" || one[3] === origin));
    total = matching(words, allowed);
    if (byId("order").value === "size") {
      const hit = new Uint8Array(paths.length);
      for (let index = 0; index < total; index++) hit[found[index]] = 1;
      let count = 0;
      for (const row of bySize) if (hit[row]) found[count++] = row;
    }
    active = -1;
    byId("sizer").style.height = `${total * HEIGHT}px`;
    byId("rows").scrollTop = 0;
    byId("count").textContent = `${number(total)} of ${number(paths.length)} names`;
    showRows();
    performance.measure("filter", "filter-start");
  };
  const showRows = () => {
    const view = byId("rows");
    const first = Math.max(0, Math.floor(view.scrollTop / HEIGHT) - 5);
    const last = Math.min(total, Math.ceil((view.scrollTop + view.clientHeight) / HEIGHT) + 5);
    const shown = [];
    for (let index = first; index < last; index++) {
      const row = found[index];
      const [kind, mode, owners, origin] = data.classes[kinds[row]];
      const line = make("div", { className: "row", id: `row${index}` });
      line.setAttribute("role", "option");
      line.setAttribute("aria-selected", String(index === active));
      line.style.top = `${index * HEIGHT}px`;
      line.dataset.index = index;
      const owner = owners.length ? nodes[owners[0]].name + (owners.length > 1 ? ` +${owners.length - 1}` : "") : "";
      const path = targets.has(row) ? `${paths[row]} → ${targets.get(row)}` : paths[row];
      for (const text of [path, kind, mode, sizes[row] < 0 ? "" : number(sizes[row]), origin, owner]) line.append(make("span", { textContent: text, title: text }));
      shown.push(line);
    }
    byId("sizer").replaceChildren(...shown);
  };
  const MEANING = { package: "Listed by a package.", conffile: "A configuration file, which an administrator may have changed.", alternative: "A link of update-alternatives for", generated: "Generated on the host by", entry: "Made when the jail is entered, by", include: "Named by", parent: "A directory that another name needs.", dropped: "Dropped by", missing: "Not on the host:" };
  const explain = (index) => {
    active = index;
    const row = found[index];
    const [, , owners, origin, detail] = data.classes[kinds[row]];
    const nearest = [...owners].sort((a, b) => chainOf(a).length - chainOf(b).length || a - b)[0];
    const panel = byId("name");
    panel.replaceChildren(make("h3", { textContent: paths[row] }), make("p", { textContent: `${MEANING[origin]} ${detail}`.trim() }));
    if (nearest !== undefined) panel.append(chainList(nearest), make("button", { type: "button", textContent: `Show ${nodes[nearest].name} in the graph`, onclick: () => { select(nearest); byId("graph").scrollIntoView(); } }));
    byId("rows").setAttribute("aria-activedescendant", `row${index}`);
    showRows();
  };
  byId("rows").addEventListener("scroll", showRows, { passive: true });
  byId("rows").addEventListener("click", (event) => {
    const line = event.target.closest(".row");
    if (line) explain(Number(line.dataset.index));
  });
  byId("rows").addEventListener("keydown", (event) => {
    const page = Math.floor(byId("rows").clientHeight / HEIGHT) - 1;
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !total) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(total - 1, active + step));
    const view = byId("rows");
    if (next * HEIGHT < view.scrollTop) view.scrollTop = next * HEIGHT;
    if ((next + 1) * HEIGHT > view.scrollTop + view.clientHeight) view.scrollTop = (next + 1) * HEIGHT - view.clientHeight;
    explain(next);
  });
  for (const id of ["filter", "owner", "origin", "order"]) byId(id).addEventListener("input", filter);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    byId("filter").focus();
  });

  // --- the start: draw what is visible first ------------------------------------------------
  const start = () => {
    performance.mark("names-start");
    for (const [index, node] of nodes.entries()) {
      byId("names").append(make("option", { value: node.name }));
      if (node.kind === "package") byId("owner").append(make("option", { value: String(index), textContent: node.name }));
    }
    for (const origin of [...new Set(data.classes.map((one) => one[3]))].sort()) byId("origin").append(make("option", { value: origin, textContent: origin }));
    drawTreemap();
    readNames();
    matching(["/"], null); // so that this code is compiled before the first letter is typed
    filter();
    performance.measure("names", "names-start");
    // Select the package with the highest cost among those that a whitelist names, or otherwise among all.
    const packages = [...nodes.keys()].filter((index) => nodes[index].kind === "package");
    const named = packages.filter((index) => group(index) === "rule");
    const best = (named.length ? named : packages).sort((a, b) => nodes[b].cost - nodes[a].cost || a - b)[0];
    if (best !== undefined) select(best);
    document.documentElement.dataset.ready = "yes";
  };
  requestAnimationFrame(() => setTimeout(start));
})();
