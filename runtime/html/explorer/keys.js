"use strict";
// The keyboard. `?` shows this list.
const nextStall = by => {
  const mine = stalls.map((s, n) => n).filter(n => stalls[n].resource === data.resource);
  if (!mine.length) return;
  const place = selection.kind === "stall" ? mine.indexOf(selection.number) : -1;
  selection.set("stall", mine[Math.min(Math.max(place + by, 0), mine.length - 1)], {show: true});
};
const KEYS = [
  // keys, what they do, the action
  [["ArrowLeft", "h"], "earlier", () => timeline.pan(-0.25)],
  [["ArrowRight", "l"], "later", () => timeline.pan(0.25)],
  [["+", "="], "zoom in (also Ctrl and the wheel)", () => timeline.zoom(0.5)],
  [["-"], "zoom out", () => timeline.zoom(2)],
  [["0"], "the whole run", () => timeline.all()],
  [["j"], "the next row of the table", () => step(1)],
  [["k"], "the row before", () => step(-1)],
  [["]"], "the next shorter stall of the limiting resource", () => nextStall(1)],
  [["["], "the longer one before", () => nextStall(-1)],
  [
    ["/"],
    "search the table",
    () => {
      if (current === "source") open(names[0]);
      byId("find").focus();
    },
  ],
  [["c"], "causes or work in the table", () => byId("causes").click()],
  [["t"], "light or dark", () => theme.toggle()],
  [
    ["Escape"],
    "let go of what is selected",
    () => {
      byId("find").blur();
      selection.set("", -1);
    },
  ],
  [["?"], "these keys", () => byId("keys").showModal()],
  ...names.map((name, i) => [
    [String(i + 1)],
    name === "source" ? "the model's source" : `table of ${KINDS[name].title.toLowerCase()}`,
    () => open(name),
  ]),
];
const SIGNS = {ArrowLeft: "←", ArrowRight: "→", Escape: "Esc"};
for (const [keys, does] of KEYS) {
  const row = make("tr"),
    cell = make("td");
  keys.forEach((key, i) => cell.append(i ? " " : "", make("kbd", SIGNS[key] || key)));
  row.append(cell, make("td", does));
  document.querySelector("#keys table").append(row);
}
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.key !== "Escape") return;
  const found = KEYS.find(([keys]) => keys.includes(event.key));
  if (found) {
    event.preventDefault();
    found[2]();
  }
});
byId("help").onclick = () => byId("keys").showModal();
document.body.dataset.ready = "yes";
document.body.dataset.ms = Math.round(performance.now());
