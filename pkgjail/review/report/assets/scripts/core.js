// --- elements and numbers -------------------------------------------------------------------------
// Texts reach the page only as textContent and attributes: names in a manifest are not to be trusted.
const byId = (id) => document.getElementById(id);
const make = (tag, fields = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
};
const makeSvg = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const number = new Intl.NumberFormat("en").format;
const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
const size = (bytes) => {
  if (bytes < 1000) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  for (const unit of ["kB", "MB"]) {
    bytes /= 1000;
    if (bytes < 1000) return `${bytes.toFixed(1)} ${unit}`;
  }
  return `${(bytes / 1000).toFixed(1)} GB`;
};
const SIGNS = { added: "+ ", changed: "± ", upgraded: "↑ ", downgraded: "↓ " };
// Cut a text to a width in pixels, by characters and not UTF-16 code units, which may be halves; "" if too narrow.
const fitted = (text, width) => {
  const room = Math.floor(width / 6.7);
  if (room < 3) return "";
  const characters = [...text];
  return characters.length <= room ? text : `${characters.slice(0, room - 1).join("")}…`;
};
// Explanations stand below what they explain, perhaps out of view.
const isNarrow = () => matchMedia("(max-width: 75rem)").matches;
// Let one element of a group be reached by Tab, and move there.
const focusOn = (group, element) => {
  if (!element) return;
  for (const other of group.querySelectorAll('[tabindex="0"]')) other.setAttribute("tabindex", "-1");
  element.setAttribute("tabindex", "0");
  element.focus({ preventScroll: false });
};
// Show where one is among nested groups: a button for each, the last one current.
const showCrumbs = (nav, labels, open) => {
  nav.replaceChildren(...labels.map((label, depth) => {
    const button = make("button", { type: "button", textContent: label, onclick: () => open(depth) });
    if (depth === labels.length - 1) button.setAttribute("aria-current", "true");
    return button;
  }));
};

// --- the data, as encoded by columns.py -------------------------------------------------------------
const data = JSON.parse(byId("data").textContent);
const nodes = data.nodes.map(([name, kind, version, bytes, cost, last, above, change]) => ({ name, kind, version, bytes, cost, last, above, change }));
const edges = data.edges.map(([source, target, kind, text]) => ({ source, target, kind, text }));
const requires = nodes.map(() => []);
const requiredBy = nodes.map(() => []);
edges.forEach((edge, index) => { requires[edge.source].push(index); requiredBy[edge.target].push(index); });
const shortName = (index) => (nodes[index].kind === "package" ? nodes[index].name.split(":")[0] : nodes[index].name);
// What a package is coloured by: whether a whitelist or "essential" names it, or only other packages do.
const groupOf = (index) => {
  if (nodes[index].kind !== "package") return nodes[index].kind;
  const sources = requiredBy[index].map((edge) => nodes[edges[edge].source].kind);
  return ["rule", "essential"].find((kind) => sources.includes(kind)) ?? "package";
};
const groups = nodes.map((_, index) => groupOf(index));

// The names: row by row their path, class, size (-1 without one) and, of links, target.
const paths = [];
if (data.paths !== "") {
  let previous = "";
  for (const line of data.paths.split("\n")) {
    const space = line.indexOf(" ");
    previous = previous.slice(0, parseInt(line.slice(0, space), 36)) + line.slice(space + 1);
    paths.push(previous);
  }
}
const classes = data.classes.map(([kind, mode, owners, origin, detail, change]) => ({ kind, mode, owners, origin, detail, change }));
const kinds = Uint32Array.from(data.kinds.split(","), (text) => parseInt(text, 36) || 0);
const sizes = Float64Array.from(data.sizes.split(","), (text) => (text === "" ? -1 : parseInt(text, 36)));
const targets = new Map();
let links = 0;
for (let row = 0; row < paths.length; row++) if (classes[kinds[row]].kind === "symlink") targets.set(row, data.targets[links++]);
