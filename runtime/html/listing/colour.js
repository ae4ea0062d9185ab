"use strict";
// Assembly and Python with colours, as HTML. What a word is shows in its place; the only list of words, Python's, comes with the data.
const span = (cls, text) => `<span class="${cls}">${esc(text)}</span>`;
const KEYWORDS = new Set(D.keywords);
const PIECES = [  // class, pattern; the first that fits a place
  ["str", /"(?:[^"\\]|\\.)*"?/y], ["opd", /[A-Za-z_]\w*(?=[ \t]*<?=)/y], ["reg", /[vs]\d+\b/y],
  ["lit", /-?(?:0x[0-9a-f]+|\d[\d.]*(?:e[-+]?\d+)?)\b/yi], ["", /[A-Za-z_][\w.]*/y],
];
const PYTHON = [
  ["com", /#.*/y], ["str", /[rbfu]{0,2}(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)/yi], ["lit", /(?:0x[0-9a-f]+|\d[\d.]*(?:e[-+]?\d+)?)\b/yi], ["", /[A-Za-z_]\w*/y],
];
function coloured(text, pieces, word = () => "") {
  let html = "", at = 0;
  while (at < text.length) {
    let cls = "", length = 1;
    for (const [name, pattern] of pieces) {
      pattern.lastIndex = at;
      const found = pattern.exec(text);
      if (found) { cls = name || word(found[0]); length = found[0].length; break; }
    }
    const piece = text.slice(at, at + length);
    html += cls ? span(cls, piece) : esc(piece);
    at += length;
  }
  return html;
}
function instruction(text, cls = "mn") {  // as the disassembler writes it
  const [mnemonic] = text.split(" ", 1), at = text.indexOf(" @ "), rest = at < 0 ? text.length : at;
  return span(cls, mnemonic) + coloured(text.slice(mnemonic.length, rest), PIECES) + (at < 0 ? "" : span("marks", text.slice(at)));
}
function assembly(text) {  // a line that somebody has written
  const [code] = text.match(/^(?:"(?:[^"\\]|\\.)*"?|[^";])*/), [label] = code.match(/^(?:\s*[A-Za-z_][\w.]*:)*/), [gap, word] = code.slice(label.length).match(/^\s*(\.?\w*)/);
  const start = label.length + gap.length;
  return (label ? span("sym", label) : "") + esc(gap.slice(0, gap.length - word.length)) + (word ? span("kw", word) : "") + coloured(code.slice(start), PIECES) + (code.length < text.length ? span("com", text.slice(code.length)) : "");
}
const python = text => coloured(text, PYTHON, word => KEYWORDS.has(word) ? "kw" : "");
const source = (text, file) => file.endsWith(".py") ? python(text) : /\.(s|inc|asm)$/.test(file) ? assembly(text) : esc(text);
