"use strict";
// Rows over one axis of time: bands of layers, source lines and nodes, why the limiting resource works or waits, the
// engines with what each waits for below, the DRAM bus, and both memories. What is narrower than a pixel is drawn as
// the share of the pixel in which there is work.
const LEFT = 104, AXIS = 18, SPACE = 4;
const canvas = document.querySelector("#time canvas"), view = {from: 0, to: data.cycles};
const strip = new Map(data.strips.map(pieces => [pieces.name, {...pieces, ...times(pieces.lengths)}]));
const tracks = [
  ...data.bands.filter(({name}) => tables[name].length > 1 && (name !== "line" || data.lines.length < data.nodes.length) && (name !== "layer" || data.bands[0].name !== "module"))
    .map((pieces, i) => ({kind: "band", of: pieces.name, title: pieces.name === "module" && i ? "" : pieces.name, height: 17, ...pieces, ...times(pieces.lengths)})),
  {kind: "why", title: `${data.resource}: why`, height: 13, resource: data.resource, whole: true, ...strip.get(data.resource)},
  ...data.tracks.filter(track => track.gaps.length).map(track => ({kind: "work", title: track.name, height: 17, ...track, ...times(track.lengths, track.gaps)})),
  {kind: "rate", title: "DRAM GB/s", height: 34},
  ...data.memories.filter(memory => memory.buffers.length).map(memory => ({kind: "memory", title: memory.name, height: memory.name === "SRAM" ? 130 : 64, ...memory,
    top: Math.max(...memory.buffers.map(b => b[1] + b[2]))})),
].flatMap(row => {  // below an engine: what it waits for
  const resource = row.kind === "rate" ? "dram" : row.kind === "work" ? row.title : "";
  return strip.has(resource) ? [row, {kind: "why", title: "", height: 6, resource, ...strip.get(resource)}] : [row];
});
let tall = AXIS;
for (const row of tracks) { row.y = tall; tall += row.height + (row.kind === "why" && !row.whole ? 2 : SPACE); const next = tracks[tracks.indexOf(row) + 1]; if (next && next.kind === "why" && !next.whole) tall -= SPACE - 1; }
canvas.style.height = tall + "px";

const screen_ = {width: 0};  // pixels
const xOf = time => LEFT + (time - view.from) / (view.to - view.from) * (screen_.width - LEFT);
const timeOf = x => view.from + (x - LEFT) / (screen_.width - LEFT) * (view.to - view.from);
let asked = 0;
const draw = () => { asked ||= requestAnimationFrame(() => { asked = 0; paint(); }); };

function paint() {
  const g = canvas.getContext("2d"), scale = devicePixelRatio || 1;
  screen_.width = canvas.clientWidth;
  canvas.width = screen_.width * scale; canvas.height = tall * scale;
  g.scale(scale, scale); g.font = "11px system-ui, sans-serif"; g.textBaseline = "middle";
  const ink = colours.named("ink"), dim = colours.named("dim"), line = colours.named("line");
  axis(g, dim, line);
  for (const row of tracks) {
    g.fillStyle = dim; g.textAlign = "right";
    if (row.title) g.fillText(row.title, LEFT - 8, row.y + Math.min(row.height / 2, 12));
    g.textAlign = "left"; g.save(); g.beginPath(); g.rect(LEFT, row.y, screen_.width - LEFT, row.height); g.clip();
    if (row.kind !== "why" || row.whole) { g.globalAlpha = .45; g.fillStyle = line; g.fillRect(LEFT, row.y, screen_.width - LEFT, row.height); g.globalAlpha = 1; }
    DRAW[row.kind](g, row, ink);
    g.restore();
  }
  if (selection.kind === "stall") chain(g, stalls[selection.number]);
  if (selection.kind in tables) {  // from when to when it is at work
    const {low, high} = tables[selection.kind][selection.number];
    g.strokeStyle = colours.named("link"); g.lineWidth = 1.5; g.beginPath();
    for (const x of [xOf(low), xOf(high)]) if (x >= LEFT) { g.moveTo(x, AXIS - 6); g.lineTo(x, tall); }
    g.stroke();
  }
  byId("range").textContent = `cycles ${count(view.from)} to ${count(view.to)} of ${count(data.cycles)}: ${micros(view.to - view.from)}`;
  const window_ = document.querySelector("#overview span");
  window_.style.left = 100 * view.from / data.cycles + "%"; window_.style.width = 100 * (view.to - view.from) / data.cycles + "%";
  document.body.dataset.view = `${Math.round(view.from)} ${Math.round(view.to)}`;
}

function axis(g, dim, line) {
  const span = view.to - view.from, rough = span / Math.max((screen_.width - LEFT) / 110, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(power * [1, 2, 5, 10].find(f => f * power >= rough), 1);
  g.fillStyle = dim; g.strokeStyle = line; g.textAlign = "center"; g.lineWidth = 1; g.beginPath();
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
    const x = Math.round(xOf(time)) + .5; g.moveTo(x, AXIS - 3); g.lineTo(x, tall);
    if (x > LEFT + 20 && x < screen_.width - 20) g.fillText(count(time), x, 8);
  }
  g.stroke();
}

function label(g, text, x0, x1, y, height, ink) {
  const left = Math.max(x0, LEFT) + 3, room = Math.min(x1, screen_.width) - left - 2;
  if (room < 22) return;
  const fits = Math.floor(room / 6.2);
  g.fillStyle = ink; g.fillText(text.length <= fits ? text : text.slice(0, fits - 1) + "…", left, y + height / 2 + .5);
}

const titleOf = (kind, n) => n < 0 ? "" : kind === "module" ? data.modules[n].name : kind === "line" && tables.line[n].place ? `${short(tables.line[n].place)}  ${tables.line[n].row.code.split("\n")[0].trim()}` : tables[kind][n].row.name || "(none)";
const isOn = (kind, n) => kind === selection.kind && kind !== "module" ? n === selection.number : kind === "node" ? selection.nodes.has(n) : n >= 0 && nodesOf[kind][n].some(node => selection.nodes.has(node));

// The pieces of a row that are in view: wide ones one by one, of narrow ones the cycles of each owner in each pixel.
function pieces(row, wide, narrow) {
  let pixel = -1, cycles = new Map();
  const flush = () => { if (cycles.size) narrow(pixel, cycles); cycles = new Map(); };
  for (let i = beyond(row.high, view.from); i < row.low.length && row.low[i] < view.to; i++) {
    const x0 = Math.max(xOf(row.low[i]), LEFT), x1 = xOf(row.high[i]), owner = row.owners[i];
    if (x1 - x0 >= 1.5) { flush(); wide(x0, x1, owner); pixel = -1; continue; }
    if (Math.floor(x0) !== pixel) { flush(); pixel = Math.floor(x0); }
    cycles.set(owner, (cycles.get(owner) || 0) + row.lengths[i]);
  }
  flush();
}

const DRAW = {
  band(g, row, ink) {
    const some = selection.nodes.size > 0, marked = some && new Set(tables[row.of].map((_, n) => n).filter(n => isOn(row.of, n)));
    const fill = (x0, x1, owner) => { if (owner < 0 && row.of === "module") return; g.globalAlpha = some && !marked.has(owner) ? .22 : 1; g.fillStyle = colours.row(row.of, owner); g.fillRect(x0, row.y, x1 - x0, row.height); };
    pieces(row, (x0, x1, owner) => { fill(x0, Math.max(x1 - (x1 - x0 > 4 ? 1 : 0), x0 + 1), owner); label(g, titleOf(row.of, owner), x0, x1, row.y, row.height, ink); },
      (pixel, cycles) => fill(pixel, pixel + 1, [...cycles].reduce((a, b) => b[1] > a[1] ? b : a)[0]));
    g.globalAlpha = 1;
  },
  why(g, row) {
    const fill = (x, y, width, height, owner) => {
      const cause = data.causes[owner];
      if (cause === "compute" && !row.whole) return;
      g.globalAlpha = cause === "compute" ? .3 : 1; g.fillStyle = colours.named(cause); g.fillRect(x, y, width, height);
    };
    pieces(row, (x0, x1, owner) => {
      fill(x0, row.y, Math.max(x1 - x0, 1), row.height, owner);
      if (row.whole && data.causes[owner] !== "compute") label(g, causeWords(owner, row.resource), x0, x1, row.y, row.height, colours.named("page"));
    }, (pixel, cycles) => {  // a pixel with several is stacked
      const all = [...cycles.values()].reduce((a, b) => a + b);
      let y = row.y;
      for (const [owner, some] of [...cycles].sort((a, b) => a[0] - b[0])) { const height = row.height * some / all; fill(pixel, y, 1, height, owner); y += height; }
    });
    g.globalAlpha = 1;
  },
  work(g, row, ink) {
    const some = selection.nodes.size > 0, width = Math.ceil(screen_.width), cover = [new Float32Array(width + 1), new Float32Array(width + 1)];
    const perPixel = (view.to - view.from) / (screen_.width - LEFT), colour = colours.named(row.title);
    for (let i = beyond(row.high, view.from); i < row.low.length && row.low[i] < view.to; i++) {
      const x0 = xOf(row.low[i]), x1 = xOf(row.high[i]), off = some && !selection.nodes.has(row.nodes[i]) ? 1 : 0;
      if (x1 - x0 < 2) { const pixel = Math.floor(x0); if (pixel >= LEFT && pixel < width) cover[off][pixel] += row.works[i] / perPixel; continue; }
      g.globalAlpha = (.25 + .75 * row.works[i] / row.lengths[i]) * (off ? .2 : 1);
      g.fillStyle = colour; g.fillRect(Math.max(x0, LEFT - 1), row.y, Math.min(x1, width + 1) - Math.max(x0, LEFT - 1) - (x1 - x0 > 5 ? .6 : 0), row.height);
      if (x1 - x0 > 40) { g.globalAlpha = 1; label(g, `${nameOf(row.nodes[i])} ${data.words[row.words[i]]}`, x0, x1, row.y, row.height, off ? ink : colours.named("page")); }
    }
    g.fillStyle = colour;
    for (const off of [1, 0]) cover[off].forEach((part, pixel) => { if (part) { g.globalAlpha = (.25 + .75 * Math.min(part, 1)) * (off ? .2 : 1); g.fillRect(pixel, row.y, 1, row.height); } });
    g.globalAlpha = 1;
  },
  rate(g, row) {
    const [at, rate] = data.rates, most = Math.max(...rate, 1e-9);
    g.fillStyle = colours.named("dram");
    for (let i = Math.max(beyond(Float64Array.from(at), view.from) - 1, 0); i < at.length && at[i] < view.to; i++) {
      const x0 = Math.max(xOf(at[i]), LEFT), x1 = xOf(i + 1 < at.length ? at[i + 1] : data.cycles), h = rate[i] / most * row.height;
      g.fillRect(x0, row.y + row.height - h, Math.max(x1 - x0 + .4, .5), h);
    }
  },
  memory(g, row, ink) {
    const some = selection.nodes.size > 0, y = address => row.y + row.height * (1 - address / row.top), edge = colours.named("card");
    for (const b of row.buffers) {
      const [name, offset, bytes, low, high, node] = b;
      if (high < view.from || low > view.to) continue;
      const x0 = Math.max(xOf(low), LEFT), x1 = Math.max(xOf(high), x0 + .6), y1 = y(offset), y0 = Math.min(y(offset + bytes), y1 - .6);
      g.globalAlpha = some && !selection.nodes.has(node) ? .15 : .95;
      g.fillStyle = colours.node(node); g.fillRect(x0, y0, x1 - x0, y1 - y0);
      if (x1 - x0 > 3 && y1 - y0 > 3) { g.strokeStyle = edge; g.lineWidth = .6; g.strokeRect(x0, y0, x1 - x0, y1 - y0); }
      if (y1 - y0 > 11) label(g, row.names[name], x0, x1, y0, y1 - y0, ink);
    }
    g.globalAlpha = 1;
  },
};

// A stall: the time that it takes through all rows, and the links of its chain on the tracks that they pass through.
function chain(g, stall) {
  const x0 = Math.max(xOf(stall.low), LEFT), x1 = Math.max(xOf(stall.high), x0 + 2);
  g.fillStyle = colours.named("waiting_mxu"); g.globalAlpha = .13; g.fillRect(x0, AXIS, x1 - x0, tall - AXIS); g.globalAlpha = 1;
  g.strokeStyle = colours.named("ink"); g.lineWidth = 1.5;
  let before = null;
  for (const part of stall.chain) {
    const row = tracks.find(r => r.kind === "work" && r.title === part.track);
    if (!row || part.high < view.from || part.low > view.to) { before = null; continue; }
    const a = Math.max(xOf(part.low), LEFT), b = Math.max(xOf(part.high), a + 2), middle = row.y + row.height / 2;
    g.strokeRect(a, row.y - 1, b - a, row.height + 2);
    if (before && before.y !== middle) { g.beginPath(); g.moveTo(before.x, before.y); g.lineTo(a, middle); g.stroke(); }
    before = {x: b, y: middle};
  }
}

// Moving.
const timeline = {
  show(from, to) {
    const span = Math.min(Math.max(to - from, 16), data.cycles), first = Math.min(Math.max(from, 0), data.cycles - span);
    view.from = first; view.to = first + span; draw();
  },
  near(low, high) { const margin = Math.max((high - low) * .15, 8); this.show(low - margin, high + margin); },
  all() { this.show(0, data.cycles); },
  pan(part) { const step = (view.to - view.from) * part; this.show(view.from + step, view.to + step); },
  zoom(factor, middle = (view.from + view.to) / 2) { this.show(middle - (middle - view.from) * factor, middle + (view.to - middle) * factor); },
};

// What is at a place of the canvas.
function at(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top, time = timeOf(x);
  const row = x < LEFT ? undefined : tracks.find(r => y >= r.y - 1 && y < r.y + r.height + 1);
  if (!row) return {time};
  if (row.kind === "memory") {
    const address = row.top * (1 - (y - row.y) / row.height);
    return {time, row, buffer: row.buffers.find(([, offset, bytes, low, high]) => low <= time && time < high && offset <= address && address < offset + bytes)};
  }
  if (row.kind === "rate") return {time, row};
  const near = (view.to - view.from) / (screen_.width - LEFT) * 2;
  let i = Math.min(beyond(row.high, time), row.low.length - 1);
  if (row.low[i] - near > time) i = i > 0 && time - row.high[i - 1] < near ? i - 1 : -1;
  return {time, row, i: i >= 0 && row.high[i] + near > time ? i : -1};
}
const stallAt = (resource, time) => stalls.findIndex(s => s.resource === resource && s.low <= time && time < s.high);

function tipOf({time, row, i, buffer}) {
  if (!row) return "";
  if (row.kind === "rate") { const n = beyond(Float64Array.from(data.rates[0]), time) - 1; return n < 0 ? "" : `${data.rates[1][n]} GB/s\nat cycle ${count(time)}`; }
  if (row.kind === "memory") {
    if (!buffer) return `${row.title}: ${size(row.top)} of ${size(row.capacity)} are used${row.left_out ? `; ${count(row.left_out)} small buffers are not drawn` : ""}`;
    const [name, offset, bytes, low, high, node] = buffer;
    return `${row.names[name]}\n${row.title} ${hex(offset)} to ${hex(offset + bytes)}: ${size(bytes)}\ncycles ${count(low)} to ${count(high)}\nnode ${nameOf(node)}`;
  }
  if (i < 0) return "";
  const span = `\ncycles ${count(row.low[i])} to ${count(row.high[i])}: ${count(row.high[i] - row.low[i])}`;
  if (row.kind === "band") return (row.of === "module" && row.owners[i] >= 0 ? tables.module[row.owners[i]].row.name : titleOf(row.of, row.owners[i])) + span;
  if (row.kind === "why") return causeWords(row.owners[i], row.resource) + span + (stallAt(row.resource, time) >= 0 ? "\nclick for the chain" : "");
  const more = row.counts[i] > 1 ? ` and ${count(row.counts[i] - 1)} more, ${count(row.works[i])} cycles of work` : "";
  return `${nameOf(row.nodes[i])} ${data.words[row.words[i]]} at ${hex(row.pcs[i])}${more}${span}`;
}

function choose({time, row, i, buffer}) {
  if (!row || row.kind === "rate") return selection.set("", -1);
  if (row.kind === "memory") return buffer ? selection.set("buffer", row.buffers.indexOf(buffer), {buffer: {memory: row, name: row.names[buffer[0]], offset: buffer[1], bytes: buffer[2], low: buffer[3], high: buffer[4], node: buffer[5]}}) : selection.set("", -1);
  if (row.kind === "why") { const n = stallAt(row.resource, time); return n >= 0 ? selection.set("stall", n) : selection.set("", -1); }
  if (i < 0) return selection.set("", -1);
  if (row.kind === "band") return row.owners[i] >= 0 ? selection.set(row.of, row.owners[i]) : selection.set("", -1);
  return row.nodes[i] >= 0 ? selection.set("node", row.nodes[i], {work: {pc: row.pcs[i], word: data.words[row.words[i]], low: row.low[i], high: row.high[i], count: row.counts[i]}}) : selection.set("", -1);
}

let drag = null;
const cross = byId("cross"), dragged = byId("drag"), tip = byId("tip");
const inside = event => event.clientX - canvas.getBoundingClientRect().left;
canvas.addEventListener("pointermove", event => {
  const x = inside(event);
  cross.hidden = x < LEFT; cross.style.left = x + "px";
  if (drag) { dragged.hidden = Math.abs(x - drag.x) < 4; dragged.style.left = Math.min(x, drag.x) + "px"; dragged.style.width = Math.abs(x - drag.x) + "px"; tip.hidden = true; return; }
  tip.textContent = tipOf(at(event)); tip.hidden = !tip.textContent;
  tip.style.left = Math.max(Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6), 4) + "px";
  tip.style.top = (event.clientY + tip.offsetHeight + 20 > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 16) + "px";
});
canvas.addEventListener("pointerleave", () => { cross.hidden = tip.hidden = true; });
canvas.addEventListener("pointerdown", event => { if (event.button === 0) { drag = {x: inside(event), time: timeOf(inside(event))}; try { canvas.setPointerCapture(event.pointerId); } catch { /* of a script's event */ } } });
canvas.addEventListener("pointerup", event => {
  if (!drag) return;
  const {x, time} = drag, now = inside(event); drag = null; dragged.hidden = true;
  if (Math.abs(now - x) < 4) choose(at(event));
  else { const [a, b] = [time, timeOf(now)].sort((p, q) => p - q); timeline.show(Math.max(a, 0), b); }
});
canvas.addEventListener("dblclick", () => timeline.all());
canvas.addEventListener("wheel", event => {  // with a key held it zooms; without, the page scrolls
  if (event.ctrlKey || event.metaKey || event.altKey) { event.preventDefault(); timeline.zoom(event.deltaY > 0 ? 1.25 : .8, timeOf(inside(event))); }
  else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) { event.preventDefault(); timeline.pan(event.deltaX / 800); }
}, {passive: false});
byId("overview").addEventListener("click", event => {
  const box = event.currentTarget.getBoundingClientRect(), middle = (event.clientX - box.left) / box.width * data.cycles, half = (view.to - view.from) / 2;
  timeline.show(middle - half, middle + half);
});

function legend() {
  byId("legend").replaceChildren(...data.causes.map((name, i) => {
    const item = make("span"), swatch = make("span", undefined, "swatch");
    swatch.style.background = colours.named(name); if (name === "compute") swatch.style.opacity = .3;
    item.append(swatch, causeWords(i, data.resource)); return item;
  }));
}
legend();
theme.listeners.push(legend, draw);
selection.listeners.push(given => {
  if (given.show && selection.kind in tables) { const {low, high} = tables[selection.kind][selection.number]; timeline.near(low, high); }
  if (given.show && selection.kind === "stall") { const {low, high} = stalls[selection.number]; timeline.near(low, high); }
  draw();
});
addEventListener("resize", draw);
paint();
