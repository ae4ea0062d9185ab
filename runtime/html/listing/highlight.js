"use strict";
// Highlighting: everything that belongs to some nodes.
function rowsFor(nodes, word) {
  const keys = new Set(nodes.filter(n => D.nodes[n].file >= 0).map(n => D.nodes[n].file + ":" + D.nodes[n].line));
  const words = wordsFor(nodes);
  return {source: [...keys].map(k => lineRow.get(k)), graph: nodes, code: words.map(i => wordRow[i]), word: word ?? words[0]};
}
let pinned = null;
function highlight(name, nodes, word) {
  const rows = rowsFor(nodes, word);
  for (const id in panes) panes[id].mark(name, rows[id]);
  return rows;
}
function hover(nodes, word) { highlight("hot", nodes, word); Map_.draw(nodes, word); }
function pin(nodes, from, word, keep) {
  nodes = [...nodes.filter(n => !quiet(D.nodes[n])), ...nodes.filter(n => quiet(D.nodes[n]))];  // what computes comes first
  pinned = nodes.length || word !== undefined ? {nodes, word} : null;
  const kept = nodes.every(n => quiet(D.nodes[n])) ? nodes.filter(n => !graphKept.has(n)) : [];
  if (kept.length && !$("quiet").checked) { kept.forEach(n => graphKept.add(n)); panes.graph.layout(); }
  const rows = highlight("pin", nodes, word);
  for (const id in panes) if (id !== from && rows[id].length) panes[id].show(id === "code" && word !== undefined ? wordRow[word] : id === "graph" ? nodes[0] : Math.min(...rows[id]));
  panes.code.mark("here", word === undefined ? [] : [wordRow[word]]);
  details(nodes, word); Map_.draw(nodes, word);
  if (!keep) history.replaceState(null, "", nodes.length === 1 ? "#node=" + encodeURIComponent(D.nodes[nodes[0]].name) : " ");
}
for (const id in panes) {
  const row = event => { const e = event.target.closest(".row"); return e && panes[id].rows[+e.dataset.row]; };
  panes[id].element.addEventListener("mouseover", event => { const r = row(event); if (r && r.nodes) hover(r.nodes, r.word); });
  panes[id].element.addEventListener("mouseleave", () => { hover([]); if (pinned) Map_.draw(pinned.nodes, pinned.word); });
  panes[id].element.addEventListener("click", event => { const r = row(event); if (r && r.nodes && !String(getSelection())) pin(r.nodes, id, r.word); });
}

function details(nodes, word) {
  const box = document.querySelector("#details .pane"), list = [];
  const say = (name, value) => value !== "" && value !== undefined && list.push(`<dt>${name}</dt><dd>${value}</dd>`);
  const link = n => `<a data-node="${n}">${esc(D.nodes[n].name)}</a>`, named = name => { const n = D.nodes.findIndex(x => x.name === name); return n < 0 ? esc(name) : link(n); };
  if (word !== undefined) {
    const w = D.code[word];
    say("word", `${hex(word * D.wordBytes)} ${w[RAW].match(/.{8}/g).join(" ")}`); say("instruction", instruction(w[TEXT]));
    timing(word).forEach(([name, value]) => say(name, value));
    w[COMMENT].split(/, (?=\w+=)|; /).filter(Boolean).forEach((part, i) => say(i ? "" : "operands", esc(part)));
  }
  nodes.slice(0, 12).forEach(n => {
    const node = D.nodes[n], words = wordsOf[computedBy(n)], buffers = twins[n].flatMap(twin => buffersOf[twin]);
    say("node", `<b>${link(n)}</b> = ${esc(node.op)} ${esc(node.type)}`); say("status", isLine(node) ? "" : esc(node.status + (node.reason ? ": " + node.reason : "")));
    say("source", node.place ? esc(node.place + ": " + node.code) : ""); say(isLine(node) ? "label" : "captured as", node.origins.map(esc).join(", ")); say("made by", node.passes.map(esc).join(", "));
    say("fused from", node.fused.length ? [...node.fused, node.name].map(named).join(", ") : "");
    say("instructions", words.length ? `${words.length}, first at ${hex(words[0] * D.wordBytes)}, last at ${hex(words[words.length - 1] * D.wordBytes)}` : "none");
    say("buffers", buffers.slice(0, 8).map(b => { const p = D.plan[b]; return `${p[SPACE]} ${hex(p[OFFSET])}, ${size(p[BYTES])}: ${esc(p[NAME])}`; }).join("<br>") + (buffers.length > 8 ? `<br>and ${buffers.length - 8} more` : ""));
  });
  if (nodes.length > 12) say("", `and ${nodes.length - 12} more nodes`);
  box.innerHTML = list.length ? `<dl>${list.join("")}</dl>` : '<p class="dark">Point at a source line, a node, an instruction or a buffer to see what belongs to it; click to hold it. Esc lets go, / searches.</p>';
}
$("details").addEventListener("click", event => { const a = event.target.closest("a[data-node]"), w = event.target.closest("a[data-word]");
  if (a) pin([+a.dataset.node]);
  if (w) { panes.code.show(wordRow[+w.dataset.word]); pin(D.code[+w.dataset.word][NODES], "code", +w.dataset.word); }
});

