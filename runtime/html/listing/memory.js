"use strict";
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

