"use strict";
// A pane of rows. `rows` are {html, cls, key}; row elements carry their number.
class Pane {
  constructor(id, rows) {
    this.id = id; this.element = document.querySelector(`#${id} .pane`); this.rows = rows; this.marks = {hot: new Set(), pin: new Set(), match: new Set(), here: new Set(), cursor: new Set()};
    this.observer = new IntersectionObserver(seen => seen.forEach(s => s.isIntersecting && this.fill(s.target)), {root: this.element, rootMargin: "600px"});
    this.layout();
  }
  layout() {  // hidden rows take no room
    this.shown = this.rows.map((row, i) => i).filter(i => !this.rows[i].hidden || !this.rows[i].hidden());
    this.place = new Map(this.shown.map((row, at) => [row, at]));
    this.observer.disconnect(); this.element.replaceChildren(); this.chunks = [];
    for (let first = 0; first < this.shown.length; first += CHUNK) {
      const chunk = document.createElement("div"), count = Math.min(CHUNK, this.shown.length - first);
      chunk.style.height = count * ROW + "px"; chunk.dataset.first = first; this.element.append(chunk); this.chunks.push(chunk); this.observer.observe(chunk);
    }
    if (this.chunks[0]) this.fill(this.chunks[0]);
  }
  fill(chunk) {
    if (chunk.dataset.full) return;
    chunk.dataset.full = 1;
    const first = +chunk.dataset.first;
    chunk.innerHTML = this.shown.slice(first, first + CHUNK).map(i => {
      const row = this.rows[i], marks = Object.keys(this.marks).filter(m => this.marks[m].has(i)).join(" ");
      return `<div class="row ${row.cls} ${marks}" role="option" id="${this.id}-${i}" data-row="${i}"${row.style ? ` style="${row.style}"` : ""}>${row.html()}</div>`;
    }).join("");
  }
  at(row) {
    const place = this.place.get(row);
    if (place === undefined) return null;
    const chunk = this.chunks[Math.floor(place / CHUNK)];
    return chunk.dataset.full ? chunk.children[place % CHUNK] : null;
  }
  mark(name, rows) {
    this.marks[name].forEach(i => this.at(i)?.classList.remove(name));
    this.marks[name] = new Set(rows);
    this.marks[name].forEach(i => this.at(i)?.classList.add(name));
  }
  show(row) {  // scroll so that the row stands in the upper third, unless it is in view
    const place = this.place.get(row);
    if (place === undefined) return;
    const top = place * ROW, {scrollTop, clientHeight} = this.element;
    if (top < scrollTop + ROW * 2 || top > scrollTop + clientHeight - ROW * 2) this.element.scrollTop = Math.max(top - clientHeight / 3, 0);
    this.fill(this.chunks[Math.floor(place / CHUNK)]);
  }
}

