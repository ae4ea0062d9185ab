"use strict";
// Draws the report from the data of runtime/html/page.py. Rows have a fixed height, so a chunk of them can be left empty until it is scrolled to.
const D = JSON.parse(document.getElementById("data").textContent);
const ROW = 18, CHUNK = 200, $ = id => document.getElementById(id);
const esc = text => String(text).replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}[c]));
const hex = number => "0x" + number.toString(16).padStart(4, "0");
const size = bytes => bytes < 1024 ? bytes + " B" : bytes < 1048576 ? (bytes / 1024).toFixed(1) + " KiB" : (bytes / 1048576).toFixed(2) + " MiB";
const color = engine => engine < 0 ? "var(--fault)" : `var(--${D.engines[engine]})`;
const [RAW, DEPTH, TEXT, COMMENT, NODES, ENGINE, ENTRIES] = [0, 1, 2, 3, 4, 5, 6];  // of an instruction
const [NAME, SPACE, OFFSET, BYTES, FIRST, LAST, OWNER] = [0, 1, 2, 3, 4, 5, 6];  // of a buffer

// What belongs together: instructions of nodes (a node inside another has the other's), nodes of source lines.
const wordsOf = D.nodes.map(() => []), nodesAt = new Map(), buffersOf = D.nodes.map(() => []);
D.code.forEach((word, i) => word[NODES].forEach(n => wordsOf[n].push(i)));
D.nodes.forEach((node, n) => { if (node.file >= 0) { const key = node.file + ":" + node.line; nodesAt.has(key) ? nodesAt.get(key).push(n) : nodesAt.set(key, [n]); } });
D.plan.forEach((buffer, b) => { buffer.number = b; if (buffer[OWNER] >= 0) buffersOf[buffer[OWNER]].push(b); });
// In a loop over layers one instruction works for a node of each layer, and one buffer serves them all.
const twins = D.nodes.map((_, n) => [n]);
D.code.forEach(word => { if (word[NODES].length > 1) word[NODES].forEach(n => { if (twins[n].length < 2) twins[n] = word[NODES]; }); });
const computedBy = n => { for (let i = 0; i < 20 && !wordsOf[n].length && D.nodes[n].in >= 0; i++) n = D.nodes[n].in; return n; };
const wordsFor = nodes => [...new Set(nodes.flatMap(n => wordsOf[computedBy(n)]))].sort((a, b) => a - b);

// A pane of rows. `rows` are {html, cls, key}; row elements carry their number.
class Pane {
  constructor(id, rows) {
    this.element = document.querySelector(`#${id} .pane`); this.rows = rows; this.marks = {hot: new Set(), pin: new Set(), match: new Set(), here: new Set()};
    this.observer = new IntersectionObserver(seen => seen.forEach(s => s.isIntersecting && this.fill(s.target)), {root: this.element, rootMargin: "600px"});
    this.layout();
  }
  layout() {  // hidden rows take no room
    this.shown = this.rows.map((row, i) => i).filter(i => !this.rows[i].hidden || !this.rows[i].hidden());
    this.place = new Map(this.shown.map((row, at) => [row, at]));
    this.observer.disconnect(); this.element.replaceChildren(); this.chunks = [];
    for (let first = 0; first < this.shown.length; first += CHUNK) {
      const chunk = document.createElement("div"), count = Math.min(CHUNK, this.shown.length - first);
      chunk.style.height = count * ROW + "px"; chunk.dataset.first = first; this.element.append(chunk); this.chunks.push(chunk); this.observer.observe(chunk);
    }
    if (this.chunks[0]) this.fill(this.chunks[0]);
  }
  fill(chunk) {
    if (chunk.dataset.full) return;
    chunk.dataset.full = 1;
    const first = +chunk.dataset.first;
    chunk.innerHTML = this.shown.slice(first, first + CHUNK).map(i => {
      const row = this.rows[i], marks = Object.keys(this.marks).filter(m => this.marks[m].has(i)).join(" ");
      return `<div class="row ${row.cls} ${marks}" data-row="${i}"${row.style ? ` style="${row.style}"` : ""}>${row.html()}</div>`;
    }).join("");
  }
  at(row) {
    const place = this.place.get(row);
    if (place === undefined) return null;
    const chunk = this.chunks[Math.floor(place / CHUNK)];
    return chunk.dataset.full ? chunk.children[place % CHUNK] : null;
  }
  mark(name, rows) {
    this.marks[name].forEach(i => this.at(i)?.classList.remove(name));
    this.marks[name] = new Set(rows);
    this.marks[name].forEach(i => this.at(i)?.classList.add(name));
  }
  show(row) {  // scroll so that the row stands in the upper third, unless it is in view
    const place = this.place.get(row);
    if (place === undefined) return;
    const top = place * ROW, {scrollTop, clientHeight} = this.element;
    if (top < scrollTop + ROW * 2 || top > scrollTop + clientHeight - ROW * 2) this.element.scrollTop = Math.max(top - clientHeight / 3, 0);
    this.fill(this.chunks[Math.floor(place / CHUNK)]);
  }
}

// The three panes.
const sourceRows = [], lineRow = new Map();
D.files.forEach((file, f) => {
  sourceRows.push({cls: "file", html: () => esc(file.name)});
  file.lines.forEach(([number, text]) => {
    const nodes = nodesAt.get(f + ":" + number) || [];
    lineRow.set(f + ":" + number, sourceRows.length);
    sourceRows.push(number ? {cls: nodes.length ? "link" : "dark", nodes, key: f + ":" + number, text, html: () => `<span class="num">${number}</span>${esc(text)}`}
      : {cls: "gap", html: () => '<span class="num">⋯</span>'});
  });
});
const isLine = node => node.status === "line";  // of a hand-written program: its source says it all
const quiet = node => node.status === "view" || node.status === "constant";
const graphRows = D.nodes.map((node, n) => ({
  cls: "link" + (quiet(node) ? " dark" : ""), nodes: [n], text: node.name + " " + node.op, hidden: () => quiet(node) && !$("quiet").checked && !graphKept.has(n),
  html: () => `${node.status === "fused" ? "↳ " : ""}<b>${esc(node.name)}</b> <span class="kind">${esc(node.op.replace(/^llmchip\.|\.default$|\.Tensor$/g, ""))} ${esc(node.type)}${node.reason ? " · " + esc(node.reason) : ""}</span>`,
}));
const graphKept = new Set();  // nodes shown although they are views or constants
const codeRows = [], wordRow = [], enginesOff = new Set();
let shown = "";  // the label that the lines stand under
D.code.forEach((word, i) => {
  const indent = "  ".repeat(word[DEPTH]), before = i ? D.code[i - 1][NODES][0] : undefined;
  word[ENTRIES].split(" ").filter(Boolean).forEach(name => codeRows.push({cls: "head", html: () => `${hex(i * D.wordBytes)} &lt;${esc(name)}&gt;:`}));
  if (word[NODES].length && word[NODES][0] !== before) {
    const node = D.nodes[word[NODES][0]], more = word[NODES].length - 1, label = isLine(node) ? node.origins.join("") : "";
    if (isLine(node)) { if (label !== shown && !word[ENTRIES].split(" ").includes(label)) codeRows.push({cls: "head", html: () => `${indent}; ${esc(label)}`}); shown = label; }
    else codeRows.push({cls: "head link", nodes: word[NODES], hidden: () => enginesOff.size > 0 && enginesOff.size === D.engines.length,
      html: () => `${indent}; ${esc(node.name)} <span class="kind">${esc(node.op)}${more ? ` and ${more} more in this loop` : ""}</span>`});
  }
  wordRow.push(codeRows.length);
  codeRows.push({cls: "word link", style: `--c: ${color(word[ENGINE])}`, nodes: word[NODES], word: i, text: word[TEXT] + " " + word[COMMENT], hidden: () => word[ENGINE] >= 0 && enginesOff.has(word[ENGINE]),
    html: () => {
      const [mnemonic] = word[TEXT].split(" ", 1), rest = word[TEXT].slice(mnemonic.length);
      const comment = word[COMMENT] ? `<span class="com">  ; ${esc(word[COMMENT]).replace(/&lt;[^&]*&gt;/g, m => `<span class="sym">${m}</span>`)}</span>` : "";
      return `<span class="pc" title="${word[RAW]}">${hex(i * D.wordBytes)}</span>  ${indent}<span class="${word[ENGINE] < 0 ? "fault" : "mn"}">${esc(mnemonic)}</span>${esc(rest)}${comment}`;
    }});
});
const panes = {source: new Pane("source", sourceRows), graph: new Pane("graph", graphRows), code: new Pane("code", codeRows)};

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
    say("word", `${hex(word * D.wordBytes)} ${w[RAW].match(/.{8}/g).join(" ")}`); say("instruction", esc(w[TEXT]));
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
$("details").addEventListener("click", event => { const a = event.target.closest("a[data-node]"); if (a) pin([+a.dataset.node]); });

// The memories over time: one rectangle per buffer.
const Map_ = {
  from: 0, to: Math.max(D.words, 1), now: {nodes: [], word: undefined, touched: new Set()},
  spaces: ["SRAM", "ACC"].map(name => ({name, canvas: $(name), buffers: D.plan.filter(b => b[SPACE] === name)})),
  draw(nodes = [], word) {  // buffers that the instruction itself touches are outlined
    const touched = word === undefined ? [] : [...D.code[word][COMMENT].matchAll(/<([^>+]+)/g)].map(m => m[1]);
    this.now = {nodes: nodes.map(computedBy).concat(nodes).flatMap(n => twins[n]), word, touched: new Set(touched)}; this.paint();
  },
  paint() { this.request ||= requestAnimationFrame(() => { this.request = 0; this.spaces.forEach(s => this.one(s)); }); },
  one(space) {
    const {canvas, buffers} = space, scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * scale; canvas.height = height * scale;
    const g = canvas.getContext("2d"), style = getComputedStyle(document.body), ink = style.getPropertyValue("--dim");
    g.scale(scale, scale); g.clearRect(0, 0, width, height); g.font = "11px system-ui, sans-serif";
    space.top = Math.max(...buffers.map(b => b[OFFSET] + b[BYTES]), 1);
    const left = 70, bottom = 16, x = pc => left + (pc - this.from) / (this.to - this.from) * (width - left - 6), y = address => 20 + (1 - address / space.top) * (height - bottom - 20);
    Object.assign(space, {x, y, left, width, height});
    const dark = matchMedia("(prefers-color-scheme: dark)").matches, some = this.now.nodes.length > 0, set = new Set(this.now.nodes);
    g.save(); g.beginPath(); g.rect(left, 0, width - left, height); g.clip();
    for (const b of buffers) {
      if (b[LAST] < this.from || b[FIRST] > this.to) continue;
      const x0 = x(b[FIRST]), x1 = Math.max(x(b[LAST] + 1), x0 + 1), y1 = y(b[OFFSET]), y0 = Math.min(y(b[OFFSET] + b[BYTES]), y1 - 1), on = set.has(b[OWNER]);
      const hue = ((b[OWNER] < 0 ? b.number : b[OWNER]) + 1) * 137.5 % 360, touched = this.now.touched.has(b[NAME]) && b[FIRST] <= this.now.word && this.now.word <= b[LAST];
      g.fillStyle = on ? (dark ? "#ffd54a" : "#f5a800") : `hsl(${hue} ${some ? 12 : 55}% ${dark ? 42 : 68}% / ${some ? .55 : .9})`;
      g.fillRect(x0, y0, x1 - x0, y1 - y0);
      if (x1 - x0 > 3 && y1 - y0 > 3) { g.strokeStyle = dark ? "#15181b" : "#ffffff"; g.lineWidth = .5; g.strokeRect(x0, y0, x1 - x0, y1 - y0); }
      if (touched) { g.strokeStyle = "#d00"; g.lineWidth = 2; g.strokeRect(x0, y0, Math.max(x1 - x0, 2), Math.max(y1 - y0, 2)); }
      if (x1 - x0 > 60 && y1 - y0 > 12) { g.save(); g.beginPath(); g.rect(x0, y0, x1 - x0, y1 - y0); g.clip(); g.fillStyle = dark ? "#fff" : "#1d2125"; g.fillText(b[NAME], Math.max(x0, left) + 3, y0 + 11); g.restore(); }
    }
    for (const [first, last, text] of D.loops) {  // a bracket over the instructions that repeat
      if (last < this.from || first > this.to) continue;
      g.strokeStyle = g.fillStyle = ink; g.lineWidth = 1; g.beginPath();
      g.moveTo(x(first) + .5, 18); g.lineTo(x(first) + .5, 13.5); g.lineTo(x(last + 1) - .5, 13.5); g.lineTo(x(last + 1) - .5, 18); g.stroke();
      if (x(last + 1) - x(first) > g.measureText(text).width + 8) g.fillText(text, Math.max(x(first), left) + 4, 10);
    }
    if (this.now.word !== undefined) { g.fillStyle = "#d00"; g.fillRect(x(this.now.word), 0, 1, height - bottom); }
    g.restore();
    g.fillStyle = ink;
    g.fillText(space.name, 6, 12); g.fillText(size(space.top), 6, 28); g.fillText("of " + size(D.memories[space.name]), 6, 42); g.fillText("0x0", 6, height - bottom);
    for (let i = 0; i <= 6; i++) { const pc = Math.round(this.from + (this.to - this.from) * i / 6), text = hex(pc * D.wordBytes); g.fillText(text, Math.min(x(pc), width - g.measureText(text).width - 4), height - 4); }
  },
  at(space, event) {
    const box = space.canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const hits = space.buffers.filter(b => px >= space.x(b[FIRST]) - 1 && px <= Math.max(space.x(b[LAST] + 1), space.x(b[FIRST]) + 1) + 1 && py <= space.y(b[OFFSET]) + 1 && py >= space.y(b[OFFSET] + b[BYTES]) - 1);
    return hits.sort((a, b) => a[BYTES] - b[BYTES])[0];
  },
  move(from, to) {
    const span = Math.min(Math.max(to - from, 4), D.words || 4);
    this.from = Math.min(Math.max(from, 0), Math.max(D.words - span, 0)); this.to = this.from + span; this.paint();
  },
};
Map_.spaces.forEach(space => {
  const canvas = space.canvas; let drag = null;
  canvas.addEventListener("mousemove", event => {
    if (drag) { const step = (drag.x - event.clientX) / (space.width - space.left) * (drag.to - drag.from); Map_.move(drag.from + step, drag.to + step); drag.moved ||= Math.abs(drag.x - event.clientX) > 3; return; }
    const b = Map_.at(space, event), tip = $("tip");
    tip.hidden = !b;
    if (!b) { hover([]); if (pinned) Map_.draw(pinned.nodes, pinned.word); return; }
    const owner = D.nodes[b[OWNER]];
    tip.textContent = `${b[NAME]}\n${space.name} ${hex(b[OFFSET])} to ${hex(b[OFFSET] + b[BYTES])}, ${size(b[BYTES])}\nlive from pc ${hex(b[FIRST] * D.wordBytes)} to ${hex(b[LAST] * D.wordBytes)}${owner ? "\nnode " + owner.name + (owner.place ? "\n" + owner.place + ": " + owner.code : "") : ""}`;
    tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4) + "px"; tip.style.top = Math.max(event.clientY - tip.offsetHeight - 10, 4) + "px";
    if (owner) hover([b[OWNER]]);
  });
  canvas.addEventListener("mouseleave", () => { $("tip").hidden = true; drag = null; hover([]); if (pinned) Map_.draw(pinned.nodes, pinned.word); });
  canvas.addEventListener("mousedown", event => { drag = {x: event.clientX, from: Map_.from, to: Map_.to}; });
  canvas.addEventListener("mouseup", event => { const moved = drag && drag.moved, b = Map_.at(space, event); drag = null; if (!moved && b && b[OWNER] >= 0) pin([b[OWNER]], "", b[FIRST]); });
  canvas.addEventListener("dblclick", () => Map_.move(0, D.words));
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect(), part = Math.min(Math.max((event.clientX - box.left - space.left) / (space.width - space.left), 0), 1);
    const span = (Map_.to - Map_.from) * (event.deltaY > 0 ? 1.25 : .8), middle = Map_.from + part * (Map_.to - Map_.from);
    Map_.move(middle - part * span, middle + (1 - part) * span);
  }, {passive: false});
});

// Header: facts, engines, search.
const counts = D.engines.map((_, e) => D.code.filter(w => w[ENGINE] === e).length);
$("facts").textContent = `ISA version ${D.isa}, chip ${D.chip}, ${D.words} instructions, ${D.nodes.length} ${D.nodes.length && D.nodes.every(isLine) ? "lines" : "nodes"}, ${D.plan.length} buffers`;
D.engines.forEach((name, e) => {
  const button = document.createElement("button");
  button.textContent = `${name} ${counts[e]}`; button.style.setProperty("--c", color(e)); button.setAttribute("aria-pressed", "true"); button.title = `show or hide the instructions of ${name}`;
  button.onclick = () => { enginesOff.has(e) ? enginesOff.delete(e) : enginesOff.add(e); button.setAttribute("aria-pressed", String(!enginesOff.has(e))); panes.code.layout(); };
  $("engines").append(button);
});
if (D.nodes.length && D.nodes.every(isLine)) { document.body.classList.add("lines"); document.querySelector("#source h2").textContent = "Source"; }
document.body.classList.toggle("bare", !D.nodes.length);  // a program without a debug map has no source and no graph
$("quiet").onchange = () => panes.graph.layout();
let matches = [], current = -1;
function search(text) {
  const wanted = text.trim().toLowerCase();
  matches = []; current = -1;
  for (const id in panes) {
    const rows = wanted ? panes[id].rows.flatMap((row, i) => row.text && panes[id].place.has(i) && row.text.toLowerCase().includes(wanted) ? [i] : []) : [];
    panes[id].mark("match", rows); matches.push(...rows.map(row => [id, row]));
  }
  $("found").textContent = wanted ? `${matches.length} found` : "";
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

// The address may name what to hold: #node=NAME or #pc=0x40.
function follow() {
  const [, kind, value] = location.hash.match(/^#(node|pc)=(.*)$/) || [];
  const name = decodeURIComponent(value || ""), word = kind === "pc" ? Number(name) / D.wordBytes : undefined;
  const node = kind === "node" ? D.nodes.findIndex(x => x.name === name) : -1;
  if (node >= 0) pin([node], "", undefined, true);
  else if (D.code[word]) pin(D.code[word][NODES], "", word, true);
  else pin([], "", undefined, true);
}
addEventListener("hashchange", follow);
follow();
document.body.dataset.ready = "1";
