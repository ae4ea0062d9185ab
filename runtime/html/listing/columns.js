"use strict";
// The borders between panes, moved by pointer or keys; what is chosen is remembered. Sizes are shares of what is around the panes.
const Columns = {
  key: "llmchip-columns", chosen: {},
  edges: {  // of each border: the element whose share it sets, and the share at a point
    source: box => x => (x.clientX - box.left) / box.width, graph: box => x => (x.clientX - box.left) / box.width - Columns.share("source"),
    footer: box => x => (box.bottom - x.clientY) / box.height, details: box => x => (box.right - x.clientX) / box.width,
  },
  share(name) { return parseFloat(getComputedStyle(document.body).getPropertyValue("--" + name)) / 100; },
  set(name, share) {
    this.chosen[name] = Math.min(Math.max(share, .05), .8);
    document.body.style.setProperty("--" + name, (100 * this.chosen[name]).toFixed(2) + "%");
    this.changed(name);
  },
  reset(name) { delete this.chosen[name]; document.body.style.removeProperty("--" + name); this.changed(name); },
  changed(name) {
    document.querySelector(`.grip[data-size=${name}]`).setAttribute("aria-valuenow", Math.round(100 * this.share(name)));
    try { localStorage.setItem(this.key, JSON.stringify(this.chosen)); } catch { /* a page without storage forgets */ }
    Map_.paint();
  },
  stored() {
    try { const found = JSON.parse(localStorage.getItem(this.key)); return found && typeof found === "object" ? found : {}; } catch { return {}; }
  },
};
document.querySelectorAll(".grip").forEach(grip => {
  const name = grip.dataset.size, wide = grip.getAttribute("aria-orientation") === "vertical", back = name === "footer" || name === "details" ? -1 : 1;
  const share = event => Columns.edges[name](grip.parentElement.getBoundingClientRect())(event);
  grip.addEventListener("pointerdown", event => { event.preventDefault(); grip.setPointerCapture(event.pointerId); grip.classList.add("held"); });
  grip.addEventListener("pointermove", event => { if (grip.classList.contains("held")) Columns.set(name, share(event)); });
  for (const end of ["pointerup", "pointercancel"]) grip.addEventListener(end, () => grip.classList.remove("held"));
  grip.addEventListener("dblclick", () => Columns.reset(name));
  grip.addEventListener("keydown", event => {
    const step = {[wide ? "ArrowLeft" : "ArrowDown"]: -back, [wide ? "ArrowRight" : "ArrowUp"]: back}[event.key];
    if (wide ? step : event.key === "ArrowUp" || event.key === "ArrowDown") { event.preventDefault(); Columns.set(name, Columns.share(name) + .02 * (wide ? step : event.key === "ArrowUp" ? 1 : -1)); }
    else if (event.key === "Home") Columns.reset(name);
  });
  grip.title = "drag, or arrow keys; double click or Home puts it back";
});
Object.entries(Columns.stored()).forEach(([name, share]) => { if (name in Columns.edges && Number.isFinite(share)) Columns.set(name, share); });
document.querySelectorAll(".grip").forEach(grip => grip.setAttribute("aria-valuenow", Math.round(100 * Columns.share(grip.dataset.size))));
