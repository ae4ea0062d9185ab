"use strict";
// Draws the rows of the timeline.
function paint() {
  const g = canvas.getContext("2d"),
    scale = devicePixelRatio || 1;
  screen_.width = canvas.clientWidth;
  canvas.width = screen_.width * scale;
  canvas.height = tall * scale;
  g.scale(scale, scale);
  g.font = "11px system-ui, sans-serif";
  g.textBaseline = "middle";
  const ink = colours.named("ink"),
    dim = colours.named("dim"),
    line = colours.named("line");
  axis(g, dim, line);
  for (const row of tracks) {
    g.fillStyle = dim;
    g.textAlign = "right";
    if (row.title) g.fillText(row.title, LEFT - 8, row.y + Math.min(row.height / 2, 12));
    g.textAlign = "left";
    g.save();
    g.beginPath();
    g.rect(LEFT, row.y, screen_.width - LEFT, row.height);
    g.clip();
    if (row.kind !== "why" || row.whole) {
      g.globalAlpha = 0.45;
      g.fillStyle = line;
      g.fillRect(LEFT, row.y, screen_.width - LEFT, row.height);
      g.globalAlpha = 1;
    }
    DRAW[row.kind](g, row, ink);
    g.restore();
  }
  if (selection.kind === "stall") chain(g, stalls[selection.number]);
  if (selection.kind in tables) {
    // from when to when it is at work
    const {low, high} = tables[selection.kind][selection.number];
    g.strokeStyle = colours.named("link");
    g.lineWidth = 1.5;
    g.beginPath();
    for (const x of [xOf(low), xOf(high)])
      if (x >= LEFT) {
        g.moveTo(x, AXIS - 6);
        g.lineTo(x, tall);
      }
    g.stroke();
  }
  byId("range").textContent =
    `cycles ${count(view.from)} to ${count(view.to)} of ${count(data.cycles)}: ${micros(view.to - view.from)}`;
  const window_ = document.querySelector("#overview span");
  window_.style.left = (100 * view.from) / data.cycles + "%";
  window_.style.width = (100 * (view.to - view.from)) / data.cycles + "%";
  document.body.dataset.view = `${Math.round(view.from)} ${Math.round(view.to)}`;
}

function axis(g, dim, line) {
  const span = view.to - view.from,
    rough = span / Math.max((screen_.width - LEFT) / 110, 1),
    power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(power * [1, 2, 5, 10].find(f => f * power >= rough), 1);
  g.fillStyle = dim;
  g.strokeStyle = line;
  g.textAlign = "center";
  g.lineWidth = 1;
  g.beginPath();
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
    const x = Math.round(xOf(time)) + 0.5;
    g.moveTo(x, AXIS - 3);
    g.lineTo(x, tall);
    if (x > LEFT + 20 && x < screen_.width - 20) g.fillText(count(time), x, 8);
  }
  g.stroke();
}

function label(g, text, x0, x1, y, height, ink) {
  const left = Math.max(x0, LEFT) + 3,
    room = Math.min(x1, screen_.width) - left - 2;
  if (room < 22) return;
  const fits = Math.floor(room / 6.2);
  g.fillStyle = ink;
  g.fillText(text.length <= fits ? text : text.slice(0, fits - 1) + "…", left, y + height / 2 + 0.5);
}

const titleOf = (kind, n) =>
  n < 0
    ? ""
    : kind === "module"
      ? data.modules[n].name
      : kind === "line" && tables.line[n].place
        ? `${short(tables.line[n].place)}  ${tables.line[n].row.code.split("\n")[0].trim()}`
        : tables[kind][n].row.name || "(none)";
const isOn = (kind, n) =>
  kind === selection.kind && kind !== "module"
    ? n === selection.number
    : kind === "node"
      ? selection.nodes.has(n)
      : n >= 0 && nodesOf[kind][n].some(node => selection.nodes.has(node));

// The pieces of a row that are in view: wide ones one by one, of narrow ones the cycles of each owner in each pixel.
function pieces(row, wide, narrow) {
  let pixel = -1,
    cycles = new Map();
  const flush = () => {
    if (cycles.size) narrow(pixel, cycles);
    cycles = new Map();
  };
  for (let i = beyond(row.high, view.from); i < row.low.length && row.low[i] < view.to; i++) {
    const x0 = Math.max(xOf(row.low[i]), LEFT),
      x1 = xOf(row.high[i]),
      owner = row.owners[i];
    if (x1 - x0 >= 1.5) {
      flush();
      wide(x0, x1, owner);
      pixel = -1;
      continue;
    }
    if (Math.floor(x0) !== pixel) {
      flush();
      pixel = Math.floor(x0);
    }
    cycles.set(owner, (cycles.get(owner) || 0) + row.lengths[i]);
  }
  flush();
}

const DRAW = {
  band(g, row, ink) {
    const some = selection.nodes.size > 0,
      marked = some && new Set(tables[row.of].map((_, n) => n).filter(n => isOn(row.of, n)));
    const fill = (x0, x1, owner) => {
      if (owner < 0 && row.of === "module") return;
      g.globalAlpha = some && !marked.has(owner) ? 0.22 : 1;
      g.fillStyle = colours.row(row.of, owner);
      g.fillRect(x0, row.y, x1 - x0, row.height);
    };
    pieces(
      row,
      (x0, x1, owner) => {
        fill(x0, Math.max(x1 - (x1 - x0 > 4 ? 1 : 0), x0 + 1), owner);
        label(g, titleOf(row.of, owner), x0, x1, row.y, row.height, ink);
      },
      (pixel, cycles) => fill(pixel, pixel + 1, [...cycles].reduce((a, b) => (b[1] > a[1] ? b : a))[0]),
    );
    g.globalAlpha = 1;
  },
  why(g, row) {
    const fill = (x, y, width, height, owner) => {
      const cause = data.causes[owner];
      if (cause === "compute" && !row.whole) return;
      g.globalAlpha = cause === "compute" ? 0.3 : 1;
      g.fillStyle = colours.named(cause);
      g.fillRect(x, y, width, height);
    };
    pieces(
      row,
      (x0, x1, owner) => {
        fill(x0, row.y, Math.max(x1 - x0, 1), row.height, owner);
        if (row.whole && data.causes[owner] !== "compute")
          label(g, causeWords(owner, row.resource), x0, x1, row.y, row.height, colours.named("page"));
      },
      (pixel, cycles) => {
        // a pixel with several is stacked
        const all = [...cycles.values()].reduce((a, b) => a + b);
        let y = row.y;
        for (const [owner, some] of [...cycles].sort((a, b) => a[0] - b[0])) {
          const height = (row.height * some) / all;
          fill(pixel, y, 1, height, owner);
          y += height;
        }
      },
    );
    g.globalAlpha = 1;
  },
  work(g, row, ink) {
    const some = selection.nodes.size > 0,
      width = Math.ceil(screen_.width),
      cover = [new Float32Array(width + 1), new Float32Array(width + 1)];
    const perPixel = (view.to - view.from) / (screen_.width - LEFT),
      colour = colours.named(row.title);
    for (let i = beyond(row.high, view.from); i < row.low.length && row.low[i] < view.to; i++) {
      const x0 = xOf(row.low[i]),
        x1 = xOf(row.high[i]),
        off = some && !selection.nodes.has(row.nodes[i]) ? 1 : 0;
      if (x1 - x0 < 2) {
        const pixel = Math.floor(x0);
        if (pixel >= LEFT && pixel < width) cover[off][pixel] += row.works[i] / perPixel;
        continue;
      }
      g.globalAlpha = (0.25 + (0.75 * row.works[i]) / row.lengths[i]) * (off ? 0.2 : 1);
      g.fillStyle = colour;
      g.fillRect(
        Math.max(x0, LEFT - 1),
        row.y,
        Math.min(x1, width + 1) - Math.max(x0, LEFT - 1) - (x1 - x0 > 5 ? 0.6 : 0),
        row.height,
      );
      if (x1 - x0 > 40) {
        g.globalAlpha = 1;
        label(
          g,
          `${nameOf(row.nodes[i])} ${data.words[row.words[i]]}`,
          x0,
          x1,
          row.y,
          row.height,
          off ? ink : colours.named("page"),
        );
      }
    }
    g.fillStyle = colour;
    for (const off of [1, 0])
      cover[off].forEach((part, pixel) => {
        if (part) {
          g.globalAlpha = (0.25 + 0.75 * Math.min(part, 1)) * (off ? 0.2 : 1);
          g.fillRect(pixel, row.y, 1, row.height);
        }
      });
    g.globalAlpha = 1;
  },
  rate(g, row) {
    const [at, rate] = data.rates,
      most = Math.max(...rate, 1e-9);
    g.fillStyle = colours.named("dram");
    for (let i = Math.max(beyond(Float64Array.from(at), view.from) - 1, 0); i < at.length && at[i] < view.to; i++) {
      const x0 = Math.max(xOf(at[i]), LEFT),
        x1 = xOf(i + 1 < at.length ? at[i + 1] : data.cycles),
        h = (rate[i] / most) * row.height;
      g.fillRect(x0, row.y + row.height - h, Math.max(x1 - x0 + 0.4, 0.5), h);
    }
  },
  memory(g, row, ink) {
    const some = selection.nodes.size > 0,
      y = address => row.y + row.height * (1 - address / row.top),
      edge = colours.named("card");
    for (const b of row.buffers) {
      const [name, offset, bytes, low, high, node] = b;
      if (high < view.from || low > view.to) continue;
      const x0 = Math.max(xOf(low), LEFT),
        x1 = Math.max(xOf(high), x0 + 0.6),
        y1 = y(offset),
        y0 = Math.min(y(offset + bytes), y1 - 0.6);
      g.globalAlpha = some && !selection.nodes.has(node) ? 0.15 : 0.95;
      g.fillStyle = colours.node(node);
      g.fillRect(x0, y0, x1 - x0, y1 - y0);
      if (x1 - x0 > 3 && y1 - y0 > 3) {
        g.strokeStyle = edge;
        g.lineWidth = 0.6;
        g.strokeRect(x0, y0, x1 - x0, y1 - y0);
      }
      if (y1 - y0 > 11) label(g, row.names[name], x0, x1, y0, y1 - y0, ink);
    }
    g.globalAlpha = 1;
  },
};

// A stall: the time that it takes through all rows, and the links of its chain on the tracks that they pass through.
function chain(g, stall) {
  const x0 = Math.max(xOf(stall.low), LEFT),
    x1 = Math.max(xOf(stall.high), x0 + 2);
  g.fillStyle = colours.named("waiting_mxu");
  g.globalAlpha = 0.13;
  g.fillRect(x0, AXIS, x1 - x0, tall - AXIS);
  g.globalAlpha = 1;
  g.strokeStyle = colours.named("ink");
  g.lineWidth = 1.5;
  let before = null;
  for (const part of stall.chain) {
    const row = tracks.find(r => r.kind === "work" && r.title === part.track);
    if (!row || part.high < view.from || part.low > view.to) {
      before = null;
      continue;
    }
    const a = Math.max(xOf(part.low), LEFT),
      b = Math.max(xOf(part.high), a + 2),
      middle = row.y + row.height / 2;
    g.strokeRect(a, row.y - 1, b - a, row.height + 2);
    if (before && before.y !== middle) {
      g.beginPath();
      g.moveTo(before.x, before.y);
      g.lineTo(a, middle);
      g.stroke();
    }
    before = {x: b, y: middle};
  }
}
