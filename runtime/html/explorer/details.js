"use strict";
// The panel beside the tables: all that is known of what is selected, and where it leads.
const panel = byId("details");
const goNode = n =>
  n < 0 ? make("span", nameOf(n)) : link(nameOf(n), () => selection.set("node", n, {show: true, from: "details"}));

function table(lines, name) {
  // of cells: text or elements; numbers are {n: text}
  const t = make("table", undefined, name);
  for (const line of lines) {
    const row = make("tr");
    for (const cell of line) {
      const td = make("td", undefined, cell?.n !== undefined ? "n" : "");
      td.append(cell?.n ?? cell ?? "");
      row.append(td);
    }
    t.append(row);
  }
  return t;
}
function bar(part, colour) {
  const b = make("span", undefined, "part");
  b.style.width = `${Math.round(90 * part)}px`;
  b.style.background = colour;
  return b;
}
function causesTable(counts, total, resource) {
  return table(
    Object.entries(counts)
      .filter(([, cycles]) => cycles)
      .sort((a, b) => b[1] - a[1])
      .map(([name, cycles]) => [
        causeWords(data.causes.indexOf(name), resource),
        {n: count(cycles)},
        {n: ((100 * cycles) / total).toFixed(1) + " %"},
        bar(cycles / total, colours.named(name)),
      ]),
  );
}
const listing = (text, fragment) => {
  const a = make("a", text);
  a.href = `${data.listing}#${fragment}`;
  a.target = "_blank";
  return a;
};
function jumps(low, high, more = []) {
  const p = make("p");
  p.append(link("show in time", () => timeline.near(low, high)));
  for (const one of more) p.append(" · ", one);
  return p;
}

const SHOW = {
  node: n => [make("h3", data.nodes[n].row.name, "mono"), ...rowOf("node", n)],
  layer: n => [
    make("h3", data.layers[n].row.name || "(no layer)", "mono"),
    ...rowOf("layer", n),
    ...largest("layer", n),
  ],
  module: n => [
    make("h3", data.modules[n].name, "mono"),
    make("code", tables.module[n].row.name),
    ...rowOf("module", n),
    ...largest("module", n),
  ],
  line: n => [
    make("h3", short(data.lines[n].place) || "(no line)", "mono"),
    make("code", data.lines[n].row.code.trim()),
    ...rowOf("line", n),
    ...largest("line", n),
  ],
  stall(n) {
    const s = stalls[n],
      counts = Object.fromEntries(s.causes.map((c, i) => [data.causes[i], c]));
    const until = make("p");
    until.append("until ", goNode(s.node), ` ${s.word} at ${hex(s.pc)} begins`);
    const steps = s.chain.map(l => [
      {n: count(l.low)},
      {n: count(l.high - l.low)},
      swatched(l.cause, s.resource),
      who(l),
    ]);
    return [
      make("h3", `${s.resource} stands idle for ${count(s.high - s.low)} cycles`),
      make(
        "p",
        `from ${count(s.low)} to ${count(s.high)}, ${share(s.high - s.low)} of the run, ${micros(s.high - s.low)}`,
      ),
      until,
      jumps(s.low, s.high),
      make("h4", "what it waits for"),
      causesTable(counts, s.high - s.low, s.resource),
      make("h4", "the chain that leads there: at, cycles, cause, who"),
      table(steps),
      ...(s.more ? [make("p", `and ${count(s.more)} shorter links`, "dim")] : []),
    ];
  },
  buffer() {
    const b = selection.buffer,
      owner = make("p");
    owner.append("node ", goNode(b.node));
    return [
      make("h3", b.name, "mono"),
      make("p", `${b.memory.title} ${hex(b.offset)} to ${hex(b.offset + b.bytes)}: ${size(b.bytes)}`),
      make("p", `alive from cycle ${count(b.low)} to ${count(b.high)}, ${count(b.high - b.low)} cycles`),
      owner,
      jumps(b.low, b.high),
    ];
  },
};
function who(l) {
  const e = make("span");
  e.append(goNode(l.node), ` ${l.word} (${l.track})${l.times > 1 ? ` ${l.times} times, from` : ""} `);
  e.append(data.listing ? listing(hex(l.pc), `pc=${hex(l.pc)}`) : hex(l.pc));
  return e;
}
function swatched(cause, resource) {
  const e = make("span"),
    s = make("span", undefined, "swatch");
  s.style.background = colours.named(data.causes[cause]);
  e.append(s, causeWords(cause, resource));
  return e;
}

function rowOf(kind, n) {
  const {row, low, high, pc, layer, line, place, module} = tables[kind][n],
    facts = [];
  const say = (name, value) => value !== "" && value !== undefined && facts.push([name, value]);
  if (kind === "node") {
    say("operator", row.op);
    say("shape", row.shape.length ? `[${row.shape.join(", ")}]` : "");
    if (layer >= 0 && data.layers[layer].row.name)
      say(
        "layer",
        link(data.layers[layer].row.name, () => selection.set("layer", layer, {show: true})),
      );
    if (module >= 0)
      say(
        "module",
        link(tables.module[module].row.name, () => selection.set("module", module, {show: true})),
      );
    if (place) {
      const e = make("span");
      e.append(
        link(place, () => showSource(line)),
        make("br"),
        make("code", row.code.trim()),
      );
      say("source", e);
    }
  }
  say("cycles", `${count(row.cycles)}, ${share(row.cycles)} of the run`);
  say("time", `${count(low)} to ${count(high)}`);
  say(
    "work",
    Object.entries(row.busy)
      .map(([name, cycles]) => `${name} ${count(cycles)}`)
      .join(", "),
  );
  say("MACs", count(row.macs));
  say("DRAM", size(row.dram_bytes));
  say("energy", `${(row.energy_joules * 1e6).toLocaleString("en", {maximumFractionDigits: 2})} µJ`);
  say("instructions", count(row.instructions));
  if (kind === "node" && selection.work) {
    const w = selection.work;
    const more = w.count > 1 ? ` and ${count(w.count - 1)} more` : "";
    say("here", `${w.word} at ${hex(w.pc)}${more}, cycles ${count(w.low)} to ${count(w.high)}`);
  }
  const more = [];
  if (kind !== "node" && line >= 0 && kind === "line") more.push(link("source", () => showSource(n)));
  if (data.listing && row.name !== "(control)")
    more.push(listing("assembly", kind === "node" ? `node=${encodeURIComponent(row.name)}` : `pc=${hex(pc)}`));
  const waits = stallsOf(nodesOf[kind][n]);
  return [
    table(facts, "facts"),
    jumps(low, high, more),
    ...(row.cycles ? [make("h4", "its cycles"), causesTable(row.waterfall, row.cycles, data.resource)] : []),
    ...waits,
  ];
}
function stallsOf(nodes) {
  const mine = new Set(nodes),
    found = stalls
      .map((s, n) => [s, n])
      .filter(([s]) => s.resource === data.resource && mine.has(s.node))
      .slice(0, 5);
  return found.length
    ? [
        make("h4", `${data.resource} waits for it`),
        table(
          found.map(([s, n]) => [
            {n: link(`at ${count(s.low)}`, () => selection.set("stall", n, {show: true}))},
            {n: count(s.high - s.low)},
            s.word,
          ]),
        ),
      ]
    : [];
}
function largest(kind, n) {
  const nodes = [...nodesOf[kind][n]].sort((a, b) => data.nodes[b].row.cycles - data.nodes[a].row.cycles),
    total = tables[kind][n].row.cycles || 1;
  return [
    make("h4", `its ${nodes.length} nodes`),
    table(
      nodes
        .slice(0, 12)
        .map(m => [
          goNode(m),
          {n: count(data.nodes[m].row.cycles)},
          bar(data.nodes[m].row.cycles / total, colours.node(m)),
        ]),
    ),
    ...(nodes.length > 12 ? [make("p", `and ${nodes.length - 12} more`, "dim")] : []),
  ];
}
function details() {
  panel.replaceChildren(
    ...(SHOW[selection.kind]?.(selection.number) ?? [
      make("h2", "Details"),
      make(
        "p",
        "Click a row, a band, an instruction, a stall or a buffer to see all that is known of it, and where it leads.",
        "dim",
      ),
    ]),
  );
  panel.scrollTop = 0;
}
selection.listeners.push(details);
theme.listeners.push(details);
details();
