"use strict";
// A row of each pane by keyboard: arrows, Page Up and Down, Home, End; what the row stands for is held as if it were clicked.
const Keys = {
  at: {},  // the row of each pane
  move(id, place) {
    const pane = panes[id], to = Math.min(Math.max(place, 0), pane.shown.length - 1), row = pane.shown[to];
    if (row === undefined) return;
    this.at[id] = row;
    const {scrollTop, clientHeight} = pane.element;
    if (to * ROW < scrollTop) pane.element.scrollTop = to * ROW;
    else if ((to + 1) * ROW > scrollTop + clientHeight) pane.element.scrollTop = (to + 1) * ROW - clientHeight;
    pane.fill(pane.chunks[Math.floor(to / CHUNK)]);
    pane.mark("cursor", [row]); pane.element.setAttribute("aria-activedescendant", `${id}-${row}`);
    const {nodes, word} = pane.rows[row];
    if (nodes && (nodes.length || word !== undefined)) pin(nodes, id, word);
  },
  start(id) {  // the row that is held, else the first that is seen
    const pane = panes[id], held = this.at[id] ?? [...pane.marks.here, ...pane.marks.pin][0];
    return pane.place.get(held) ?? Math.ceil(pane.element.scrollTop / ROW) - 1;
  },
};
for (const id in panes) {
  const {element} = panes[id];
  element.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const page = Math.max(Math.floor(element.clientHeight / ROW) - 1, 1), steps = {ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page};
    const to = event.key in steps ? Keys.start(id) + steps[event.key] : event.key === "Home" ? 0 : event.key === "End" ? panes[id].shown.length - 1 : undefined;
    if (to !== undefined) { event.preventDefault(); Keys.move(id, to); }
  });
  element.addEventListener("click", event => { const e = event.target.closest(".row"); if (e) { Keys.at[id] = +e.dataset.row; panes[id].mark("cursor", []); } });
}
