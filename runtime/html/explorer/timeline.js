"use strict";
// The timeline under pointer and keys: what moves it, what is at a place of it, and what a click selects.
const timeline = {
  show(from, to) {
    const span = Math.min(Math.max(to - from, 16), data.cycles),
      first = Math.min(Math.max(from, 0), data.cycles - span);
    view.from = first;
    view.to = first + span;
    draw();
  },
  near(low, high) {
    const margin = Math.max((high - low) * 0.15, 8);
    this.show(low - margin, high + margin);
  },
  all() {
    this.show(0, data.cycles);
  },
  pan(part) {
    const step = (view.to - view.from) * part;
    this.show(view.from + step, view.to + step);
  },
  zoom(factor, middle = (view.from + view.to) / 2) {
    this.show(middle - (middle - view.from) * factor, middle + (view.to - middle) * factor);
  },
};

// What is at a place of the canvas.
function at(event) {
  const box = canvas.getBoundingClientRect(),
    x = event.clientX - box.left,
    y = event.clientY - box.top,
    time = timeOf(x);
  const row = x < LEFT ? undefined : tracks.find(r => y >= r.y - 1 && y < r.y + r.height + 1);
  if (!row) return {time};
  if (row.kind === "memory") {
    const address = row.top * (1 - (y - row.y) / row.height);
    return {
      time,
      row,
      buffer: row.buffers.find(
        ([, offset, bytes, low, high]) => low <= time && time < high && offset <= address && address < offset + bytes,
      ),
    };
  }
  if (row.kind === "rate") return {time, row};
  const near = ((view.to - view.from) / (screen_.width - LEFT)) * 2;
  let i = Math.min(beyond(row.high, time), row.low.length - 1);
  if (row.low[i] - near > time) i = i > 0 && time - row.high[i - 1] < near ? i - 1 : -1;
  return {time, row, i: i >= 0 && row.high[i] + near > time ? i : -1};
}
const stallAt = (resource, time) => stalls.findIndex(s => s.resource === resource && s.low <= time && time < s.high);

function tipOf({time, row, i, buffer}) {
  if (!row) return "";
  if (row.kind === "rate") {
    const n = beyond(Float64Array.from(data.rates[0]), time) - 1;
    return n < 0 ? "" : `${data.rates[1][n]} GB/s\nat cycle ${count(time)}`;
  }
  if (row.kind === "memory") {
    if (!buffer) {
      const more = row.left_out ? `; ${count(row.left_out)} small buffers are not drawn` : "";
      return `${row.title}: ${size(row.top)} of ${size(row.capacity)} are used${more}`;
    }
    const [name, offset, bytes, low, high, node] = buffer;
    const place = `${row.title} ${hex(offset)} to ${hex(offset + bytes)}: ${size(bytes)}`;
    return [row.names[name], place, `cycles ${count(low)} to ${count(high)}`, `node ${nameOf(node)}`].join("\n");
  }
  if (i < 0) return "";
  const span = `\ncycles ${count(row.low[i])} to ${count(row.high[i])}: ${count(row.high[i] - row.low[i])}`;
  if (row.kind === "band")
    return (
      (row.of === "module" && row.owners[i] >= 0
        ? tables.module[row.owners[i]].row.name
        : titleOf(row.of, row.owners[i])) + span
    );
  if (row.kind === "why")
    return (
      causeWords(row.owners[i], row.resource) + span + (stallAt(row.resource, time) >= 0 ? "\nclick for the chain" : "")
    );
  const more = row.counts[i] > 1 ? ` and ${count(row.counts[i] - 1)} more, ${count(row.works[i])} cycles of work` : "";
  return `${nameOf(row.nodes[i])} ${data.words[row.words[i]]} at ${hex(row.pcs[i])}${more}${span}`;
}

function choose({time, row, i, buffer}) {
  if (!row || row.kind === "rate") return selection.set("", -1);
  if (row.kind === "memory")
    return buffer
      ? selection.set("buffer", row.buffers.indexOf(buffer), {
          buffer: {
            memory: row,
            name: row.names[buffer[0]],
            offset: buffer[1],
            bytes: buffer[2],
            low: buffer[3],
            high: buffer[4],
            node: buffer[5],
          },
        })
      : selection.set("", -1);
  if (row.kind === "why") {
    const n = stallAt(row.resource, time);
    return n >= 0 ? selection.set("stall", n) : selection.set("", -1);
  }
  if (i < 0) return selection.set("", -1);
  if (row.kind === "band") return row.owners[i] >= 0 ? selection.set(row.of, row.owners[i]) : selection.set("", -1);
  return row.nodes[i] >= 0
    ? selection.set("node", row.nodes[i], {
        work: {
          pc: row.pcs[i],
          word: data.words[row.words[i]],
          low: row.low[i],
          high: row.high[i],
          count: row.counts[i],
        },
      })
    : selection.set("", -1);
}

let drag = null;
const cross = byId("cross"),
  dragged = byId("drag"),
  tip = byId("tip");
const inside = event => event.clientX - canvas.getBoundingClientRect().left;
canvas.addEventListener("pointermove", event => {
  const x = inside(event);
  cross.hidden = x < LEFT;
  cross.style.left = x + "px";
  if (drag) {
    dragged.hidden = Math.abs(x - drag.x) < 4;
    dragged.style.left = Math.min(x, drag.x) + "px";
    dragged.style.width = Math.abs(x - drag.x) + "px";
    tip.hidden = true;
    return;
  }
  tip.textContent = tipOf(at(event));
  tip.hidden = !tip.textContent;
  tip.style.left = Math.max(Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6), 4) + "px";
  tip.style.top =
    (event.clientY + tip.offsetHeight + 20 > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 16) +
    "px";
});
canvas.addEventListener("pointerleave", () => {
  cross.hidden = tip.hidden = true;
});
canvas.addEventListener("pointerdown", event => {
  if (event.button === 0) {
    drag = {x: inside(event), time: timeOf(inside(event))};
    try {
      canvas.setPointerCapture(event.pointerId);
    } catch {
      /* of a script's event */
    }
  }
});
canvas.addEventListener("pointerup", event => {
  if (!drag) return;
  const {x, time} = drag,
    now = inside(event);
  drag = null;
  dragged.hidden = true;
  if (Math.abs(now - x) < 4) choose(at(event));
  else {
    const [a, b] = [time, timeOf(now)].sort((p, q) => p - q);
    timeline.show(Math.max(a, 0), b);
  }
});
canvas.addEventListener("dblclick", () => timeline.all());
canvas.addEventListener(
  "wheel",
  event => {
    // with a key held it zooms; without, the page scrolls
    if (event.ctrlKey || event.metaKey || event.altKey) {
      event.preventDefault();
      timeline.zoom(event.deltaY > 0 ? 1.25 : 0.8, timeOf(inside(event)));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      timeline.pan(event.deltaX / 800);
    }
  },
  {passive: false},
);
byId("overview").addEventListener("click", event => {
  const box = event.currentTarget.getBoundingClientRect(),
    middle = ((event.clientX - box.left) / box.width) * data.cycles,
    half = (view.to - view.from) / 2;
  timeline.show(middle - half, middle + half);
});

function legend() {
  byId("legend").replaceChildren(
    ...data.causes.map((name, i) => {
      const item = make("span"),
        swatch = make("span", undefined, "swatch");
      swatch.style.background = colours.named(name);
      if (name === "compute") swatch.style.opacity = 0.3;
      item.append(swatch, causeWords(i, data.resource));
      return item;
    }),
  );
}
legend();
theme.listeners.push(legend, draw);
selection.listeners.push(given => {
  if (given.show && selection.kind in tables) {
    const {low, high} = tables[selection.kind][selection.number];
    timeline.near(low, high);
  }
  if (given.show && selection.kind === "stall") {
    const {low, high} = stalls[selection.number];
    timeline.near(low, high);
  }
  draw();
});
addEventListener("resize", draw);
paint();
