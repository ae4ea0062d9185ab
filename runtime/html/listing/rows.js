"use strict";
// The three panes.
const sourceRows = [], lineRow = new Map();
D.files.forEach((file, f) => {
  sourceRows.push({cls: "file", text: file.name, html: () => esc(file.name)});
  file.lines.forEach(([number, text]) => {
    const nodes = nodesAt.get(f + ":" + number) || [];
    lineRow.set(f + ":" + number, sourceRows.length);
    sourceRows.push(number ? {cls: nodes.length ? "link" : "dark", nodes, key: f + ":" + number, text, html: () => `<span class="num">${number}</span>${source(text, file.name)}`}
      : {cls: "gap", html: () => '<span class="num">⋯</span>'});
  });
});
const isLine = node => node.status === "line";  // of a hand-written program: its source says it all
const quiet = node => node.status === "view" || node.status === "constant";
const graphRows = D.nodes.map((node, n) => ({
  cls: "link" + (quiet(node) ? " dark" : ""), nodes: [n], text: [node.name, node.op, ...node.origins].join(" "), hidden: () => quiet(node) && !$("quiet").checked && !graphKept.has(n),
  html: () => `${node.status === "fused" ? "↳ " : ""}<b>${esc(node.name)}</b> <span class="kind">${esc(node.op.replace(/^llmchip\.|\.default$|\.Tensor$/g, ""))} ${esc(node.type)}${node.reason ? " · " + esc(node.reason) : ""}</span>`,
}));
const graphKept = new Set();  // nodes shown although they are views or constants
const codeRows = [], wordRow = [], enginesOff = new Set();
let shown = "";  // the label that the lines stand under
D.code.forEach((word, i) => {
  const indent = "  ".repeat(word[DEPTH]), before = i ? D.code[i - 1][NODES][0] : undefined;
  word[ENTRIES].split(" ").filter(Boolean).forEach(name => codeRows.push({cls: "head", text: name, html: () => `${hex(i * D.wordBytes)} &lt;${esc(name)}&gt;:`}));
  if (word[NODES].length && word[NODES][0] !== before) {
    const node = D.nodes[word[NODES][0]], more = word[NODES].length - 1, label = isLine(node) ? node.origins.join("") : "";
    if (isLine(node)) { if (label !== shown && !word[ENTRIES].split(" ").includes(label)) codeRows.push({cls: "head", text: label, html: () => `${indent}; ${esc(label)}`}); shown = label; }
    else codeRows.push({cls: "head link", text: `${node.name} ${node.op}`, nodes: word[NODES], hidden: () => enginesOff.size > 0 && enginesOff.size === D.engines.length,
      html: () => `${indent}; ${esc(node.name)} <span class="kind">${esc(node.op)}${more ? ` and ${more} more in this loop` : ""}</span>`});
  }
  wordRow.push(codeRows.length);
  codeRows.push({cls: "word link", style: `--c: ${color(word[ENGINE])}`, nodes: word[NODES], word: i, text: `${hex(i * D.wordBytes)} ${word[TEXT]} ${word[COMMENT]}`, hidden: () => word[ENGINE] >= 0 && enginesOff.has(word[ENGINE]),
    html: () => {
      const comment = word[COMMENT] ? `<span class="com">  ; ${esc(word[COMMENT]).replace(/&lt;[^&]*&gt;/g, m => `<span class="sym">${m}</span>`)}</span>` : "";
      return `<span class="pc" title="${word[RAW]}">${hex(i * D.wordBytes)}</span>  ${counts(i)}${indent}${instruction(word[TEXT], word[ENGINE] < 0 ? "fault" : "mn")}${comment}`;
    }});
});
const panes = {source: new Pane("source", sourceRows), graph: new Pane("graph", graphRows), code: new Pane("code", codeRows)};

