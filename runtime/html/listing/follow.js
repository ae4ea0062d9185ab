"use strict";
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
