"use strict";
// What the page shows (runtime/html/profile_data.py), what all scripts share, and what is selected.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const count = number => Math.round(number).toLocaleString("en");
const share = cycles => ((100 * cycles) / data.cycles).toFixed(1) + " %";
const micros = cycles => ((cycles / data.clock) * 1e6).toLocaleString("en", {maximumFractionDigits: 2}) + " µs";
const hex = number => "0x" + number.toString(16).padStart(4, "0");
const size = bytes =>
  bytes < 1024
    ? bytes + " B"
    : bytes < 1048576
      ? (bytes / 1024).toFixed(1) + " KiB"
      : (bytes / 1048576).toFixed(2) + " MiB";
const short = name => name.slice(name.lastIndexOf("/") + 1) || "(none)";
const make = (tag, text, name) => {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (name) e.className = name;
  return e;
};
const link = (text, go) => {
  const e = make("span", text, "link");
  e.onclick = go;
  return e;
};

// Colours: those of the style sheet by name, those of nodes by their number, as on the page of the assembly.
const colours = {
  known: new Map(),
  named(name) {
    if (!this.known.has(name)) {
      const probe = make("i");
      probe.style.color = `var(--${name.replaceAll(/[_ ]/g, "-")})`;
      document.body.append(probe);
      this.known.set(name, getComputedStyle(probe).color);
      probe.remove();
    }
    return this.known.get(name);
  },
  hue: (number, light, dark) => `hsl(${(((number + 1) * 137.5) % 360).toFixed(1)} 55% ${theme.dark ? dark : light}%)`,
  node(row) {
    return row < 0 ? this.named("dim") : this.hue(data.nodes[row].number, 68, 42);
  },
  row(kind, row) {
    return kind === "node" ? this.node(row) : row < 0 ? this.named("dim") : this.hue(row, 76, 33);
  },
};
theme.listeners.push(() => colours.known.clear());

// Columns of gaps and lengths as times.
function times(lengths, gaps) {
  const low = new Float64Array(lengths.length),
    high = new Float64Array(lengths.length);
  for (let i = 0, now = 0; i < lengths.length; i++) {
    low[i] = now + (gaps ? gaps[i] : 0);
    now = high[i] = low[i] + lengths[i];
  }
  return {low, high};
}
// The first of `high` that is beyond a time.
function beyond(high, time) {
  let a = 0,
    b = high.length;
  while (a < b) {
    const m = (a + b) >> 1;
    if (high[m] > time) b = m;
    else a = m + 1;
  }
  return a;
}

const tables = {
  layer: data.layers,
  node: data.nodes,
  line: data.lines,
  module: data.modules.map(() => ({
    low: Infinity,
    high: 0,
    place: "",
    layer: -1,
    line: -1,
    row: {
      name: "",
      cycles: 0,
      waterfall: {},
      busy: {},
      macs: 0,
      dram_bytes: 0,
      instructions: 0,
      energy_joules: 0,
      op: "",
      code: "",
      layer: "",
      module: "",
      shape: [],
    },
  })),
};
const nodesOf = {
  layer: data.layers.map(() => []),
  line: data.lines.map(() => []),
  module: data.modules.map(() => []),
  node: data.nodes.map((_, n) => [n]),
};
data.nodes.forEach((node, n) => {
  for (const kind of ["layer", "line"]) if (node[kind] >= 0) nodesOf[kind][node[kind]].push(n);
});
// A module has what its nodes and the modules in it have.
const sum = (to, from) => {
  for (const name in from) to[name] = (to[name] || 0) + from[name];
};
const figures_ = ["cycles", "macs", "dram_bytes", "instructions", "energy_joules"];
data.nodes.forEach((node, n) => {
  for (let m = node.module; m >= 0; m = data.modules[m].parent) {
    const all = tables.module[m];
    for (const name of figures_) all.row[name] += node.row[name];
    sum(all.row.waterfall, node.row.waterfall);
    sum(all.row.busy, node.row.busy);
    all.pc ??= node.pc;
    nodesOf.module[m].push(n);
  }
});
tables.module.forEach((all, m) => {
  // weights are fetched long before: transfers count where there is no other work
  const nodes = nodesOf.module[m].map(n => data.nodes[n]),
    works = nodes.filter(({row}) => row.busy.mxu || row.busy.vec || row.busy.act);
  for (const node of works.length ? works : nodes) {
    all.low = Math.min(all.low, node.low);
    all.high = Math.max(all.high, node.high);
  }
});
tables.module.forEach(({row}, m) => {
  const {name, parent} = data.modules[m];
  row.name = parent < 0 ? name : `${tables.module[parent].row.name}.${name}`;
});

// What a stall is made of (profile_data.Idle and ChainLink are arrays).
const [LOW, HIGH, NODE, WORD, PC, CAUSES, CHAIN, MORE] = [0, 1, 2, 3, 4, 5, 6, 7];
const asLink = ([low, high, cause, node, word, pc, track, times]) => ({low, high, cause, node, word, pc, track, times});
const stalls = data.stalls.flatMap(of =>
  of.idle.map(s => ({
    resource: of.resource,
    low: s[LOW],
    high: s[HIGH],
    node: s[NODE],
    word: s[WORD],
    pc: s[PC],
    causes: s[CAUSES],
    chain: s[CHAIN].map(asLink),
    more: s[MORE],
  })),
);
const nameOf = node => (node < 0 ? "(control)" : data.nodes[node].row.name);
const causeWords = (number, resource) =>
  data.causes[number] === "compute" ? `${resource} works` : data.cause_words[number];

// The selection: a row of a table, a stall, or a buffer. Whoever shows it listens.
const selection = {
  kind: "",
  number: -1,
  nodes: new Set(),
  listeners: [],
  set(kind, number, given = {}) {
    Object.assign(this, {kind, number, buffer: given.buffer, work: given.work});
    this.nodes = new Set(
      kind === "buffer" ? [given.buffer.node].filter(n => n >= 0) : kind in nodesOf ? nodesOf[kind][number] : [],
    );
    document.body.dataset.selected = kind ? `${kind} ${number}` : "";
    this.listeners.forEach(listener => listener(given));
  },
};
