"use strict";
// Header: facts, engines, search.
const perEngine = D.engines.map((_, e) => D.code.filter(w => w[ENGINE] === e).length);
$("facts").textContent = `ISA version ${D.isa}, chip ${D.chip}, ${D.words} instructions, ${D.nodes.length} ${D.nodes.length && D.nodes.every(isLine) ? "lines" : "nodes"}, ${D.plan.length} buffers` + (T ? `, ${number(T.total)} cycles` : "");
D.engines.forEach((name, e) => {
  const button = document.createElement("button");
  button.textContent = `${name} ${perEngine[e]}`; button.style.setProperty("--c", color(e)); button.setAttribute("aria-pressed", "true"); button.title = `show or hide the instructions of ${name}`;
  button.onclick = () => { enginesOff.has(e) ? enginesOff.delete(e) : enginesOff.add(e); button.setAttribute("aria-pressed", String(!enginesOff.has(e))); panes.code.layout(); };
  $("engines").append(button);
});
if (D.nodes.length && D.nodes.every(isLine)) { document.body.classList.add("lines"); document.querySelector("#source h2").textContent = "Source"; }
document.body.classList.toggle("bare", !D.nodes.length);  // a program without a debug map has no source and no graph
$("quiet").onchange = () => panes.graph.layout();
const NAMES = {source: "source", graph: "graph", code: "assembly"};
let matches = [], current = -1;
function search(text) {
  const wanted = text.trim().toLowerCase();
  matches = []; current = -1;
  const found = [];
  for (const id in panes) {  // of the graph also what is not shown
    const rows = wanted ? panes[id].rows.flatMap((row, i) => row.text && (id === "graph" || panes[id].place.has(i)) && row.text.toLowerCase().includes(wanted) ? [i] : []) : [];
    panes[id].mark("match", rows); matches.push(...rows.map(row => [id, row]));
    if (rows.length) found.push(`${rows.length} in ${NAMES[id]}`);
  }
  $("found").textContent = wanted ? found.join(", ") || "nothing found" : "";
}
function next(step) {
  if (!matches.length) return;
  current = (current + step + matches.length) % matches.length;
  const [id, row] = matches[current], r = panes[id].rows[row];
  $("found").textContent = `${current + 1} of ${matches.length}`;
  panes[id].show(row); pin(r.nodes || [], id, r.word, true);
}
$("search").addEventListener("input", event => search(event.target.value));
$("search").addEventListener("keydown", event => { if (event.key === "Enter") next(event.shiftKey ? -1 : 1); });
addEventListener("keydown", event => {
  if (event.key === "Escape") { $("search").blur(); pin([]); }
  else if (event.key === "/" && event.target !== $("search")) { event.preventDefault(); $("search").focus(); }
});
addEventListener("resize", () => Map_.paint());

