// --- the treemap: packages, their directories, their files -------------------------------------------
// A group has a label, rows (numbers of names, sorted by path), and how much of their paths leads to it; `row` is a
// file's. Its parts are found when they are first drawn.
const treemap = { svg: byId("treemap"), open: [], boxes: [] };
const groupOfRows = (label, rows, start, kind, node = -1) => ({ label, rows, start, kind, node, row: -1, parts: null, bytes: rows.reduce((sum, row) => sum + sizes[row], 0) });
const partsOf = (group) => {
  if (group.parts) return group.parts;
  const found = [];
  let at = 0;
  while (at < group.rows.length) {
    const first = paths[group.rows[at]];
    const slash = first.indexOf("/", group.start);
    if (slash < 0) {
      const row = group.rows[at++];
      found.push({ label: first.slice(group.start), rows: [row], start: first.length, kind: group.kind, node: -1, row, parts: [], bytes: sizes[row] });
      continue;
    }
    const beginning = first.slice(0, slash + 1);
    let end = at + 1;
    while (end < group.rows.length && paths[group.rows[end]].startsWith(beginning)) end++;
    found.push(groupOfRows(first.slice(group.start, slash), group.rows.slice(at, end), slash + 1, group.kind));
    at = end;
  }
  // Show what is in a directory in the place of the directory, if it is the only one.
  if (found.length === 1 && found[0].row < 0) {
    const [{ label }] = found;
    return (group.parts = partsOf(found[0]).map((part) => ({ ...part, label: `${label}/${part.label}` })));
  }
  return (group.parts = found.sort((a, b) => b.bytes - a.bytes));
};
const wholeTree = (grouping) => {
  const listed = [];
  for (let row = 0; row < paths.length; row++) if (sizes[row] > 0) listed.push(row);
  const whole = groupOfRows("All", listed, 1, "none");
  if (grouping === "directory") return whole;
  const byOwner = new Map();
  for (const row of listed) {
    const owner = classes[kinds[row]].owners[0] ?? -1;
    if (!byOwner.has(owner)) byOwner.set(owner, []);
    byOwner.get(owner).push(row);
  }
  whole.parts = [...byOwner].map(([owner, rows]) => (owner < 0
    ? groupOfRows("(no package)", rows, 1, "none", -2)
    : groupOfRows(`${SIGNS[nodes[owner].change] ?? ""}${shortName(owner)}`, rows, 1, groups[owner], owner)));
  whole.parts.sort((a, b) => b.bytes - a.bytes);
  return whole;
};

const MOST_BOXES = 3000;
const drawTreemap = () => {
  const { svg } = treemap;
  const [width, height] = [svg.clientWidth || 1000, svg.clientHeight || 420];
  const top = treemap.open.at(-1);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  treemap.boxes = [];
  // By levels, so that the largest groups have boxes if there are more than can be drawn.
  let level = [[top, 0, 0, width, height, null]];
  for (let depth = 0; level.length && depth < 4; depth++) {
    const next = [];
    for (const [group, x, y, wide, high, above] of level) {
      const parts = partsOf(group);
      squarify(parts.map((part) => part.bytes), x, y, wide, high).forEach(([left, up, across, down], position) => {
        if (across < 1.5 || down < 1.5 || treemap.boxes.length >= MOST_BOXES) return;
        const part = parts[position];
        const box = { part, left, up, across, down, depth, above, index: treemap.boxes.length };
        treemap.boxes.push(box);
        if (part.row < 0 && across > 36 && down > 36) next.push([part, left + 2, up + 17, across - 4, down - 19, box]);
      });
    }
    level = next;
  }
  const total = top.bytes || 1;
  svg.replaceChildren(...treemap.boxes.map((box, index) => {
    const { part, left, up, across, down, depth } = box;
    const what = part.row >= 0 ? "file" : part.node >= 0 ? "package" : "group";
    const share = `${((100 * part.bytes) / total).toFixed(1)} %`;
    const element = makeSvg("g", {
      role: "button", tabindex: index ? "-1" : "0", transform: `translate(${left} ${up})`, "data-box": index,
      class: `${part.kind} ${part.row < 0 ? "opens" : "file"} ${part.node !== -1 && depth === 0 ? "top" : ""}`,
      "aria-label": `${part.label}, ${what}, ${size(part.bytes)}, ${share}`,
    }, makeSvg("rect", { width: Math.max(0, across - 1), height: Math.max(0, down - 1) }));
    element.append(makeSvg("title"));
    element.lastChild.textContent = `${part.label}: ${size(part.bytes)}, ${share} of what is open`;
    const label = down > 14 ? fitted(`${part.label} ${size(part.bytes)}`.length * 6.7 < across - 8 ? `${part.label} ${size(part.bytes)}` : part.label, across - 8) : "";
    if (label) {
      element.append(makeSvg("text", { x: 4, y: 12 }));
      element.lastChild.textContent = label;
    }
    return element;
  }));
  showCrumbs(byId("treemap-path"), treemap.open.map((group) => group.label), (depth) => openGroup(treemap.open.slice(0, depth + 1)));
  showLargest(top);
};
const showLargest = (group) => {
  const parts = partsOf(group);
  byId("largest-title").textContent = `Largest of ${counted(parts.length, "part")}, ${size(group.bytes)}`;
  byId("largest").replaceChildren(...parts.slice(0, 12).map((part) => {
    const button = make("button", { type: "button", onclick: () => choosePart(part, [...treemap.open, part]) },
      make("span", { textContent: part.label }), make("span", { textContent: size(part.bytes) }));
    button.style.setProperty("--part", `${(100 * part.bytes) / (group.bytes || 1)}%`);
    return make("li", {}, button);
  }));
};
const openGroup = (groups) => { treemap.open = groups; byId("treemap-file").replaceChildren(); drawTreemap(); };
const choosePart = (part, way) => {
  if (part.row < 0) return openGroup(way);
  byId("treemap-file").replaceChildren(...explanation(part.row));
  if (isNarrow()) byId("treemap-file").scrollIntoView({ block: "nearest" });
  return undefined;
};
const chooseBox = (element) => {
  const box = treemap.boxes[element.dataset.box];
  const way = [];
  for (let one = box; one; one = one.above) way.unshift(one.part);
  const byKeyboard = document.activeElement === element;
  choosePart(box.part, [...treemap.open, ...way]);
  if (box.part.row < 0 && byKeyboard) focusOn(treemap.svg, treemap.svg.querySelector("g"));
};
treemap.svg.addEventListener("click", (event) => {
  const element = event.target.closest("g[data-box]");
  if (element) chooseBox(element);
});
treemap.svg.addEventListener("keydown", (event) => {
  const element = event.target.closest("g[data-box]");
  if (!element) return;
  const box = treemap.boxes[element.dataset.box];
  const beside = treemap.boxes.filter((other) => other.above === box.above);
  const goTo = (other) => { if (other) focusOn(treemap.svg, treemap.svg.children[other.index]); };
  const acts = {
    Enter: () => chooseBox(element),
    " ": () => chooseBox(element),
    Escape: () => { if (treemap.open.length > 1) { openGroup(treemap.open.slice(0, -1)); focusOn(treemap.svg, treemap.svg.querySelector("g")); } },
    ArrowRight: () => goTo(beside[beside.indexOf(box) + 1]),
    ArrowLeft: () => goTo(beside[beside.indexOf(box) - 1]),
    ArrowDown: () => goTo(treemap.boxes.find((other) => other.above === box)),
    ArrowUp: () => goTo(box.above),
  };
  if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
});
byId("grouping").addEventListener("input", (event) => openGroup([wholeTree(event.target.value)]));
