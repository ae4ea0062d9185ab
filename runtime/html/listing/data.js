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

