"use strict";
// Cycles and stalls beside the instructions, where the program was timed. `D.cycles` has, for each instruction, executions, cycles of
// work, cycles of stall, stalls by cause, the instruction it waited for longest, and its share of the run.
const T = D.cycles, [TIMES, WORK, STALL, CAUSES, WAITS, CHARGED] = [0, 1, 2, 3, 4, 5];
const number = count => count.toLocaleString("en");
const most = T && [WORK, STALL].map(column => Math.max(1, ...T.rows.map(row => row ? row[column] : 0)));
const cell = (row, column, cls) => {
  const count = row ? row[column] : 0, share = most[column === WORK ? 0 : 1];
  return `<span class="count ${cls}" style="--share: ${(100 * count / share).toFixed(1)}%">${row ? number(count) : "–"}</span>`;
};
const counts = i => T ? cell(T.rows[i], WORK, "work") + cell(T.rows[i], STALL, "stalled") + "  " : "";
function timing(word) {  // pairs for the details
  const row = T && T.rows[word];
  if (!T) return [];
  if (!row) return [["cycles", "never executed in this run"]];
  const causes = Object.entries(row[CAUSES]).sort((a, b) => b[1] - a[1]).map(([name, count]) => `${number(count)} ${T.causes[name]}`).join(", ");
  const waits = row[WAITS] < 0 ? "" : `<a data-word="${row[WAITS]}">${hex(row[WAITS] * D.wordBytes)} ${esc(D.code[row[WAITS]][TEXT].split(" ", 1)[0])}</a>`;
  return [
    ["executed", row[TIMES] === 1 ? "once" : `${number(row[TIMES])} times`], ["cycles", `${number(row[WORK])} of its engine's work`],
    ["stall", `${number(row[STALL])} before it` + (causes ? `: ${esc(causes)}` : "")], ["waits for", waits], ["of the run", `${number(row[CHARGED])} of ${number(T.total)} cycles, ${(100 * row[CHARGED] / T.total).toFixed(1)} %`],
  ];
}
if (T) {
  const head = document.createElement("div"), next = document.createElement("button"), order = T.rows.map((row, i) => i).filter(i => T.rows[i] && T.rows[i][STALL]).sort((a, b) => T.rows[b][STALL] - T.rows[a][STALL]);
  let at = -1;
  head.className = "heads"; head.innerHTML = '<div><span class="pc">pc    </span>  <span class="count" title="cycles in which its engine works on it">cycles</span><span class="count" title="cycles in which its engine stood idle before it">stall</span>  instruction</div>';
  $("code").insertBefore(head, document.querySelector("#code .pane"));
  document.querySelector("#code .pane").addEventListener("scroll", event => { head.scrollLeft = event.target.scrollLeft; });
  next.id = "stalls"; next.textContent = "next longest stall"; next.disabled = !order.length;
  next.onclick = () => { at = (at + 1) % order.length; const word = order[at]; next.textContent = `stall ${at + 1} of ${order.length}`; panes.code.show(wordRow[word]); pin(D.code[word][NODES], "code", word); };
  document.querySelector("#code h2").append(next);
}
