// --- the list of names: filtered while typing; only the rows in view are in the document ----------------
const list = { view: byId("rows"), found: new Uint32Array(paths.length), total: 0, active: -1 };
const lowered = paths.map((path) => path.toLowerCase());
const starts = new Uint32Array(paths.length + 1);
for (let row = 0, at = 0; row < paths.length; row++) { at += lowered[row].length + 1; starts[row + 1] = at; }
const haystack = `${lowered.join("\n")}\n`;
const bySize = Uint32Array.from(paths.keys()).sort((a, b) => sizes[b] - sizes[a] || a - b);
const rowHeight = () => (matchMedia("(max-width: 46rem)").matches ? 48 : 24);

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
    list.found[count++] = one;
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
const filterNames = () => {
  performance.mark("filter-start");
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [owner, origin, change] = ["owner", "origin", "change"].map((id) => byId(id).value);
  const allowed = owner || origin || change ? classes.map((one) => (owner === "" || one.owners.includes(Number(owner))) && (origin === "" || one.origin === origin) && (change === "" || one.change === change)) : null;
  list.total = matching(words, allowed);
  if (byId("order").value === "size") {
    const hit = new Uint8Array(paths.length);
    for (let index = 0; index < list.total; index++) hit[list.found[index]] = 1;
    let count = 0;
    for (const row of bySize) if (hit[row]) list.found[count++] = row;
  }
  list.active = -1;
  list.view.removeAttribute("aria-activedescendant");
  list.view.scrollTop = 0;
  byId("count").textContent = `${number(list.total)} of ${counted(paths.length, "name")}`;
  showRows();
  performance.measure("filter", "filter-start");
};
const showRows = () => {
  const { view } = list;
  const height = rowHeight();
  byId("sizer").style.height = `${list.total * height}px`;
  const first = Math.max(0, Math.floor(view.scrollTop / height) - 5);
  const last = Math.min(list.total, Math.ceil((view.scrollTop + view.clientHeight) / height) + 5);
  const shown = [];
  for (let index = first; index < last; index++) {
    const row = list.found[index];
    const { kind, mode, owners, origin, change } = classes[kinds[row]];
    const one = make("div", { className: "row", id: `row${index}` });
    for (const [name, value] of [["role", "option"], ["aria-selected", index === list.active], ["aria-setsize", list.total], ["aria-posinset", index + 1]]) one.setAttribute(name, String(value));
    one.style.top = `${index * height}px`;
    one.dataset.index = index;
    const owner = owners.length ? shortName(owners[0]) + (owners.length > 1 ? ` +${owners.length - 1}` : "") : "";
    const path = targets.has(row) ? `${paths[row]} → ${targets.get(row)}` : paths[row];
    for (const text of [(SIGNS[change] ?? "") + path, kind, mode, sizes[row] < 0 ? "" : size(sizes[row]), origin, owner]) one.append(make("span", { textContent: text, title: text }));
    if (change) one.firstChild.className = change;
    shown.push(one);
  }
  byId("sizer").replaceChildren(...shown);
};
const explainRow = (index) => {
  list.active = index;
  byId("name").replaceChildren(...explanation(list.found[index]));
  list.view.setAttribute("aria-activedescendant", `row${index}`);
  showRows();
};
list.view.addEventListener("scroll", showRows, { passive: true });
list.view.addEventListener("click", (event) => {
  const one = event.target.closest(".row");
  if (!one) return;
  explainRow(Number(one.dataset.index));
  if (isNarrow()) byId("name").scrollIntoView({ block: "nearest" });
});
list.view.addEventListener("keydown", (event) => {
  const { view } = list;
  const height = rowHeight();
  const page = Math.floor(view.clientHeight / height) - 1;
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined || !list.total) return;
  event.preventDefault();
  const next = Math.max(0, Math.min(list.total - 1, list.active + step));
  if (next * height < view.scrollTop) view.scrollTop = next * height;
  if ((next + 1) * height > view.scrollTop + view.clientHeight) view.scrollTop = (next + 1) * height - view.clientHeight;
  explainRow(next);
});
for (const id of ["filter", "owner", "origin", "change", "order"]) byId(id).addEventListener("input", filterNames);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
  event.preventDefault();
  byId("filter").focus();
});
