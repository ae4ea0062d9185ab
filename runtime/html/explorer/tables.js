"use strict";
// Tables of layers, nodes, source lines, stalls and, of a decoder, lengths of its context: all rows, drawn as they are
// scrolled to (Tabulator), sorted by a click, searched. And the model's source with the cycles of each line.
const number = (title, field, show = count, more = {}) => ({
  title,
  field,
  sorter: "number",
  hozAlign: "right",
  headerHozAlign: "right",
  headerSortStartingDir: "desc",
  formatter: cell => (cell.getValue() ? show(cell.getValue()) : ""),
  ...more,
});
const text = (title, field, more = {}) => ({title, field, sorter: "string", formatter: "plaintext", ...more});
const WORK = [
  ...["mxu", "vec", "act"].map(name => number(name, name)),
  number("MACs", "macs"),
  number("DRAM", "dram", size),
  number("µJ", "uj", v => v.toFixed(1)),
  number("instructions", "instructions"),
];
const causeColumns = () =>
  data.causes.map((name, i) =>
    number(causeWords(i, data.resource).replace("waits for ", ""), name, count, {visible: false}),
  );
const work = ({row, place}, id) => ({
  id,
  cycles: row.cycles,
  share: row.cycles / data.cycles,
  mxu: row.busy.mxu || 0,
  vec: row.busy.vec || 0,
  act: row.busy.act || 0,
  macs: row.macs,
  dram: row.dram_bytes,
  uj: row.energy_joules * 1e6,
  instructions: row.instructions,
  ...Object.fromEntries(data.causes.map(name => [name, row.waterfall[name] || 0])),
  name: row.name || "(none)",
  about: row.op || row.code.replace(/\s+/g, " ").trim(),
  layer: row.layer,
  module: row.module,
  place,
});
// Modules inside a module, each with those inside it.
function moduleTree() {
  const rows = data.modules.map(({name}, m) => ({...work(tables.module[m], m), name})),
    top = [];
  data.modules.forEach(({parent}, m) => {
    if (parent < 0) top.push(rows[m]);
    else (rows[parent]._children ||= []).push(rows[m]);
  });
  return top;
}
const figures = () => [
  number("cycles", "cycles"),
  number("share", "share", v => (100 * v).toFixed(1) + " %"),
  ...WORK,
  ...causeColumns(),
];
const KINDS = {
  layers: {
    title: "Layers",
    kind: "layer",
    causes: true,
    rows: () => data.layers.map(work),
    columns: () => [text("layer", "name", {minWidth: 130}), ...figures()],
    sort: "cycles",
  },
  modules: {
    title: "Modules",
    kind: "module",
    causes: true,
    tree: true,
    rows: moduleTree,
    columns: () => [text("module", "name", {minWidth: 220}), ...figures()],
    sort: "cycles",
  },
  nodes: {
    title: "Nodes",
    kind: "node",
    causes: true,
    rows: () => data.nodes.map(work),
    sort: "cycles",
    columns: () => [
      text("node", "name", {minWidth: 150}),
      ...figures(),
      text("operator", "about", {minWidth: 120}),
      text("layer", "layer", {minWidth: 110}),
      text("module", "module", {minWidth: 150}),
      text("source line", "place", {minWidth: 130}),
    ],
  },
  lines: {
    title: "Lines",
    kind: "line",
    causes: true,
    sort: "cycles",
    rows: () => data.lines.map((row, id) => ({...work(row, id), name: short(row.place) || "(no line)"})),
    columns: () => [text("source line", "name", {minWidth: 140}), ...figures(), text("code", "about", {minWidth: 260})],
  },
  stalls: {
    title: "Stalls",
    kind: "stall",
    sort: "cycles",
    rows: () =>
      stalls.map((s, id) => ({
        id,
        resource: s.resource,
        low: s.low,
        cycles: s.high - s.low,
        share: (s.high - s.low) / data.cycles,
        until: `${nameOf(s.node)} ${s.word}`,
        mainly: mainly(s),
        through: through(s),
        links: s.chain.length + s.more,
      })),
    columns: () => [
      text("idle", "resource"),
      number("at", "low", v => count(v), {formatter: cell => count(cell.getValue())}),
      number("cycles", "cycles"),
      number("share", "share", v => (100 * v).toFixed(2) + " %"),
      text("until", "until", {minWidth: 140}),
      text("mainly", "mainly", {minWidth: 120}),
      text("through", "through", {minWidth: 160}),
      number("links", "links"),
    ],
  },
  context: {
    title: "Context",
    kind: "",
    sort: "",
    rows: () => data.context.map((p, id) => ({id, ...p})),
    columns: () => [
      number("tokens", "tokens"),
      number("cycles", "cycles"),
      number("tokens/s", "tokens_per_second", v => v.toFixed(1)),
      number("mJ/token", "joules_per_token", v => (v * 1e3).toFixed(4)),
      number("DRAM", "dram_bytes", size),
      number("limit", "limit_cycles"),
      number("of limit", "of_limit", v => v.toFixed(3)),
    ],
  },
  source: {title: "Source"},
};
function mainly(s) {
  const most = s.causes.indexOf(Math.max(...s.causes));
  return causeWords(most, s.resource);
}
function through(s) {
  const l = s.chain.reduce((a, b) => (b.high - b.low > a.high - a.low ? b : a), s.chain[0]);
  return l ? `${nameOf(l.node)} ${l.word}` : "";
}

const made = {}; // by name: {grid, ready, pane, picked}
let current = "";
const whole = name => (name === "modules" ? tables.module : data[name]);
const lengthOf = name =>
  name === "source" ? data.sources.length : name === "stalls" ? stalls.length : (data[name] || []).length;
function open(name) {
  current = name;
  document.body.dataset.tab = name;
  for (const button of byId("tabs").children)
    button.setAttribute("aria-selected", String(button.dataset.name === name));
  if (!made[name]) {
    const pane = make("div", undefined, "pane");
    pane.id = `pane-${name}`;
    byId("panes").append(pane);
    made[name] = name === "source" ? source(pane) : grid(pane, name);
  }
  for (const other in made) made[other].pane.hidden = other !== name;
  byId("causes").hidden = !KINDS[name].causes;
  byId("find").hidden = name === "source" || Boolean(KINDS[name].tree);
  if (name !== "source")
    made[name].ready.then(() => {
      if (current !== name) return;
      made[name].grid.redraw();
      search();
      showCauses();
      pick();
    });
  else {
    byId("found").textContent = "";
    pickLine();
  }
}
function grid(pane, name) {
  const {kind, rows, columns, sort} = KINDS[name],
    entry = {pane, picked: -1};
  entry.grid = new Tabulator(pane, {
    data: rows(),
    columns: columns(),
    index: "id",
    height: 450,
    layout: "fitDataFill",
    dataTree: Boolean(KINDS[name].tree),
    dataTreeStartExpanded: [true, false],
    placeholder: "nothing found",
    columnDefaults: {headerTooltip: true, resizable: "header"},
    initialSort: sort ? [{column: sort, dir: "desc"}] : [],
    rowFormatter: row => row.getElement().classList.toggle("picked", row.getData().id === entry.picked),
  });
  entry.grid.on("rowClick", (_, row) => {
    if (kind) selection.set(kind, row.getData().id, {show: true, from: name});
  });
  entry.ready = Promise.all(
    ["tableBuilt", "dataProcessed"].map(event => new Promise(resolve => entry.grid.on(event, resolve))),
  ).then(() => {
    entry.built = true;
  });
  return entry;
}
function search() {
  const wanted = byId("find").value.trim().toLowerCase(),
    entry = made[current];
  if (!entry?.built) return;
  if (KINDS[current].tree) {
    byId("found").textContent = count(lengthOf(current));
    return;
  }
  const seen = row =>
    ["name", "about", "layer", "module", "place", "until", "mainly", "through", "resource"].some(field =>
      String(row[field] ?? "")
        .toLowerCase()
        .includes(wanted),
    );
  if (wanted) entry.grid.setFilter(seen);
  else entry.grid.clearFilter();
  const all = lengthOf(current),
    found = entry.grid.getDataCount("active"),
    more = current === "stalls" ? data.stalls.reduce((n, s) => n + s.more, 0) : 0;
  byId("found").textContent =
    `${wanted ? `${count(found)} of ` : ""}${count(all)}${more ? `, ${count(more)} shorter ones left out` : ""}`;
  document.body.dataset.found = found;
}
let withCauses = false;
function showCauses() {
  const entry = made[current];
  if (!entry.built || !KINDS[current].causes || entry.causes === withCauses) return;
  entry.causes = withCauses;
  entry.grid.blockRedraw();
  for (const column of WORK) entry.grid[withCauses ? "hideColumn" : "showColumn"](column.field);
  for (const name of data.causes)
    entry.grid[withCauses && whole(current).some(r => r.row.waterfall[name]) ? "showColumn" : "hideColumn"](name);
  entry.grid.restoreRedraw();
}
function pick() {
  // the selected row is marked and in view
  const entry = made[current],
    {kind} = KINDS[current],
    now = kind && selection.kind === kind ? selection.number : -1;
  if (!entry?.built || entry.picked === now) return;
  const before = entry.picked;
  entry.picked = now;
  if (KINDS[current].tree) {
    entry.grid.redraw(true);
    return;
  }
  for (const id of [before, now]) if (id >= 0) entry.grid.getRow(id)?.reformat?.();
  const row = now >= 0 && entry.grid.getRow(now);
  if (row && row.getPosition()) entry.grid.scrollToRow(row, "center", false);
}
function step(by) {
  // the row below or above
  const entry = made[current];
  if (!entry?.built || !KINDS[current].kind || KINDS[current].tree) return;
  const rows = entry.grid.getRows("active"),
    place = rows.findIndex(row => row.getData().id === entry.picked);
  const next = rows[place < 0 ? 0 : Math.min(Math.max(place + by, 0), rows.length - 1)];
  if (next) selection.set(KINDS[current].kind, next.getData().id, {show: true, from: current});
}

// The model's source: lines that nodes come from, with their cycles.
function source(pane) {
  pane.classList.add("text");
  data.sources.forEach((file, f) => {
    pane.append(make("div", file.name, "file"));
    file.lines.forEach(([no, code], i) => {
      const n = file.rows[i],
        row = n >= 0 ? data.lines[n].row : null,
        line = make("div", undefined, `code${row ? " has" : ""}`);
      line.dataset.line = n;
      const share_ = make("span");
      if (row) share_.append(bar(row.cycles / data.cycles, colours.named(data.resource)));
      line.append(
        make("span", row ? count(row.cycles) : ""),
        make("span", row ? share(row.cycles).replace(" ", "") : ""),
        share_,
        make("span", no ? String(no) : "⋯", "n"),
        make("span", code),
      );
      if (row) line.onclick = () => selection.set("line", n, {show: true, from: "source"});
      pane.append(line);
    });
  });
  return {pane};
}
function pickLine() {
  const pane = byId("pane-source"),
    line =
      selection.kind === "line" ? selection.number : selection.kind === "node" ? data.nodes[selection.number].line : -1;
  if (!pane) return;
  for (const e of pane.querySelectorAll(".picked")) e.classList.remove("picked");
  const found = line >= 0 && pane.querySelector(`.code[data-line="${line}"]`);
  if (found) {
    found.classList.add("picked");
    pane.scrollTop = found.offsetTop - pane.offsetTop - pane.clientHeight / 3;
  }
}
function showSource(line) {
  open("source");
  const pane = byId("pane-source"),
    found = pane.querySelector(`.code[data-line="${line}"]`);
  if (found) {
    pane.querySelectorAll(".picked").forEach(e => e.classList.remove("picked"));
    found.classList.add("picked");
    pane.scrollTop = found.offsetTop - pane.offsetTop - pane.clientHeight / 3;
  }
}

const names = Object.keys(KINDS).filter(name => lengthOf(name) > (name === "layers" ? 1 : 0));
for (const name of names) {
  const tab = make("button", KINDS[name].title);
  tab.setAttribute("role", "tab");
  tab.dataset.name = name;
  tab.onclick = () => open(name);
  byId("tabs").append(tab);
}
byId("find").addEventListener("input", search);
byId("causes").onclick = event => {
  withCauses = !withCauses;
  event.currentTarget.setAttribute("aria-pressed", String(withCauses));
  showCauses();
};
selection.listeners.push(given => {
  const tab = names.find(name => KINDS[name].kind === selection.kind);
  if (current === "source") return pickLine();
  if (tab && tab !== current && given.from !== current) open(tab);
  else made[current]?.ready?.then(pick);
});
open(names[0]);
