"use strict";
// Rows over one axis of time: bands of layers, source lines and nodes, why the limiting resource works or waits, the
// engines with what each waits for below, the DRAM bus, and both memories. What is narrower than a pixel is drawn as
// the share of the pixel in which there is work.
const LEFT = 104,
  AXIS = 18,
  SPACE = 4;
const canvas = document.querySelector("#time canvas"),
  view = {from: 0, to: data.cycles};
const strip = new Map(data.strips.map(pieces => [pieces.name, {...pieces, ...times(pieces.lengths)}]));
const tracks = [
  ...data.bands
    .filter(
      ({name}) =>
        tables[name].length > 1 &&
        (name !== "line" || data.lines.length < data.nodes.length) &&
        (name !== "layer" || data.bands[0].name !== "module"),
    )
    .map((pieces, i) => ({
      kind: "band",
      of: pieces.name,
      title: pieces.name === "module" && i ? "" : pieces.name,
      height: 17,
      ...pieces,
      ...times(pieces.lengths),
    })),
  {
    kind: "why",
    title: `${data.resource}: why`,
    height: 13,
    resource: data.resource,
    whole: true,
    ...strip.get(data.resource),
  },
  ...data.tracks
    .filter(track => track.gaps.length)
    .map(track => ({kind: "work", title: track.name, height: 17, ...track, ...times(track.lengths, track.gaps)})),
  {kind: "rate", title: "DRAM GB/s", height: 34},
  ...data.memories
    .filter(memory => memory.buffers.length)
    .map(memory => ({
      kind: "memory",
      title: memory.name,
      height: memory.name === "SRAM" ? 130 : 64,
      ...memory,
      top: Math.max(...memory.buffers.map(b => b[1] + b[2])),
    })),
].flatMap(row => {
  // below an engine: what it waits for
  const resource = row.kind === "rate" ? "dram" : row.kind === "work" ? row.title : "";
  return strip.has(resource) ? [row, {kind: "why", title: "", height: 6, resource, ...strip.get(resource)}] : [row];
});
let tall = AXIS;
for (const row of tracks) {
  row.y = tall;
  tall += row.height + (row.kind === "why" && !row.whole ? 2 : SPACE);
  const next = tracks[tracks.indexOf(row) + 1];
  if (next && next.kind === "why" && !next.whole) tall -= SPACE - 1;
}
canvas.style.height = tall + "px";

const screen_ = {width: 0}; // pixels
const xOf = time => LEFT + ((time - view.from) / (view.to - view.from)) * (screen_.width - LEFT);
const timeOf = x => view.from + ((x - LEFT) / (screen_.width - LEFT)) * (view.to - view.from);
let asked = 0;
const draw = () => {
  asked ||= requestAnimationFrame(() => {
    asked = 0;
    paint();
  });
};
