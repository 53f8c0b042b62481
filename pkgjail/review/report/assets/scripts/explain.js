// --- reasons -----------------------------------------------------------------------------------------
// The shortest chain from a whitelist's line or "essential" to a package: the one that `pkgjail why` gives.
const chainOf = (index) => {
  const chain = [];
  while (nodes[index].last >= 0) { chain.push(edges[nodes[index].last]); index = chain.at(-1).source; }
  return chain.reverse();
};
// The lengths of these chains, found once.
const steps = (() => {
  const found = nodes.map((node) => (node.last < 0 ? 0 : -1));
  nodes.forEach((_, index) => {
    const way = [];
    for (let at = index; found[at] < 0; at = edges[nodes[at].last].source) way.push(at);
    while (way.length) { const at = way.pop(); found[at] = found[edges[nodes[at].last].source] + 1; }
  });
  return found;
})();
// A shortest path from each root that leads to a package; first the chain that `why` gives, then by length.
const pathsTo = (index) => {
  const onward = new Map([[index, null]]);
  let layer = [index];
  const found = [];
  while (layer.length) {
    const next = [];
    for (const one of layer) {
      if (one !== index && !requiredBy[one].length) {
        const path = [];
        for (let at = one; onward.get(at); at = onward.get(at).target) path.push(onward.get(at));
        found.push(path);
      }
      for (const edge of requiredBy[one]) {
        const { source } = edges[edge];
        if (!onward.has(source)) { onward.set(source, edges[edge]); next.push(source); }
      }
    }
    layer = next.sort((a, b) => a - b);
  }
  const first = chainOf(index);
  return first.length ? [first, ...found.filter((path) => path[0].source !== first[0].source)] : found;
};
const chainList = (chain) => {
  const list = make("ol", { className: "chain" });
  if (chain.length) list.append(make("li", { textContent: nodes[chain[0].source].name }));
  for (const edge of chain) {
    list.append(make("li", {}, make("span", { className: "soft", textContent: `${edge.kind} ${edge.text} → ` }), nodes[edge.target].name));
  }
  return list;
};
const MEANING = { package: "Listed by a package.", conffile: "A configuration file, which an administrator may have changed.", alternative: "A link of update-alternatives for", generated: "Generated on the host by", entry: "Made when the jail is entered, by", include: "Named by", parent: "A directory that another name needs.", dropped: "Dropped by", missing: "Not on the host:" };
// Explain a name: what it is, and the chain of its nearest owner.
const explanation = (row) => {
  const { kind, mode, owners, origin, detail, change } = classes[kinds[row]];
  const nearest = [...owners].sort((a, b) => steps[a] - steps[b] || (nodes[a].name < nodes[b].name ? -1 : 1))[0];
  const facts = [kind, mode, sizes[row] < 0 ? "" : size(sizes[row]), change ? `${change} since the older manifest` : ""].filter(Boolean).join(", ");
  const parts = [make("h3", { textContent: targets.has(row) ? `${paths[row]} → ${targets.get(row)}` : paths[row] })];
  if (facts) parts.push(make("p", { className: "soft facts", textContent: facts }));
  parts.push(make("p", { className: "meaning", textContent: `${MEANING[origin]} ${detail}`.trim() }));
  if (nearest !== undefined) {
    if (owners.length > 1) parts.push(make("p", { textContent: `Listed by ${counted(owners.length, "package")}; the nearest to a whitelist:` }));
    parts.push(chainList(chainOf(nearest)));
    parts.push(make("button", { type: "button", textContent: `Show ${nodes[nearest].name} in the graph`, onclick: () => { selectPackage(nearest); byId("graph").scrollIntoView(); } }));
  }
  return parts;
};
