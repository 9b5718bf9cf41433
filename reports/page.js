"use strict";
// The interactive chart. Its data are embedded in the page; nothing is fetched.
(() => {
  const root = document.getElementById("explorer");
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  if (!root || !data.arms.length) return;
  const NS = "http://www.w3.org/2000/svg", W = Math.min(760, Math.max(320, root.clientWidth)), H = 290, L = 52, R = 12, T = 12, B = 44;
  const make = (name, attributes, text) => {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const svg = root.querySelector("svg.chart"), tip = root.querySelector(".tip");
  const outcome = root.querySelector("#explorer-outcome"), axis = root.querySelector("#explorer-axis");
  const boxes = [...root.querySelectorAll("input[type=checkbox]")];
  const finite = value => value !== null;
  const ticks = (low, high) => {
    const step = 10 ** Math.floor(Math.log10((high - low) / 4 || 1));
    const width = [1, 2, 5, 10].map(k => k * step).find(k => (high - low) / k <= 6);
    const found = [];
    for (let k = Math.ceil(low / width - 1e-9); k * width <= high + 1e-9 * width; k++) found.push(k * width);
    return found;
  };
  const mean = values => values.reduce((a, b) => a + b, 0) / values.length;

  function draw() {
    const what = data.outcomes[outcome.selectedIndex], across = data.axes[axis.selectedIndex];
    const arms = data.arms.filter((_, k) => boxes[k].checked);
    const runs = arms.flatMap(arm => arm.runs);
    const xs = runs.flatMap(run => run.x[across.name]).filter(finite), ys = runs.flatMap(run => what.parts.flatMap(part => run.y[part.name])).filter(finite);
    svg.replaceChildren();
    tip.hidden = true;
    if (!ys.length) return svg.append(make("text", { x: W / 2, y: H / 2, "text-anchor": "middle" }, "Choose an arm."));
    const right = Math.max(...xs) || 1, span = Math.max(...ys) - Math.min(...ys) || 0.1;
    const low = Math.min(...ys) - 0.06 * span, high = Math.max(...ys) + 0.06 * span;
    const px = x => L + (x / right) * (W - L - R), py = y => H - B - ((y - low) / (high - low)) * (H - T - B);
    const tell = y => (what.percent ? `${(100 * y).toFixed(1)} %` : y.toFixed(3));
    for (const y of ticks(low, high)) {
      svg.append(make("line", { x1: L, x2: W - R, y1: py(y), y2: py(y), class: "grid" }));
      svg.append(make("text", { x: L - 6, y: py(y) + 4, "text-anchor": "end" }, what.percent ? `${+(100 * y).toFixed(6)}%` : +y.toFixed(6)));
    }
    for (const x of ticks(0, right)) svg.append(make("text", { x: px(x), y: H - B + 18, "text-anchor": "middle" }, +x.toFixed(6)));
    svg.append(make("text", { x: (L + W - R) / 2, y: H - 6, "text-anchor": "middle" }, across.label));
    const path = (x, y) => x.map((v, k) => (finite(v) && finite(y[k]) ? `${px(v).toFixed(1)},${py(y[k]).toFixed(1)}` : null)).filter(finite).join(" ");
    for (const arm of arms) for (const part of what.parts) {
      const stroke = { stroke: arm.colour, "stroke-dasharray": part.dash ?? arm.dash, fill: "none" };
      const line = (points, kind) => svg.append(make("polyline", { points, class: kind, ...stroke }));
      for (const run of arm.runs) line(path(run.x[across.name], run.y[part.name]), "seed");
      const shortest = Math.min(...arm.runs.map(run => run.x.step.length)), x = [], y = [];
      for (let k = 0; k < shortest; k++) {
        const there = arm.runs.filter(run => finite(run.y[part.name][k]) && finite(run.x[across.name][k]));
        if (!there.length) continue;
        x.push(mean(there.map(run => run.x[across.name][k])));
        y.push(mean(there.map(run => run.y[part.name][k])));
      }
      line(path(x, y), "mean");
      for (const run of arm.runs) run.x[across.name].forEach((v, k) => {
        const value = run.y[part.name][k];
        if (!finite(v) || !finite(value)) return;
        const dot = make("circle", { cx: px(v), cy: py(value), r: 7, class: "target" });
        dot.addEventListener("pointerenter", () => {
          tip.textContent = `${arm.label}, seed ${run.seed}, update ${run.x.step[k]}: ${part.label} ${tell(value)}, √KL ${run.x.sqrt_kl[k]}`;
          tip.hidden = false;
        });
        dot.addEventListener("pointerleave", () => { tip.hidden = true; });
        svg.append(dot);
      });
    }
  }
  outcome.addEventListener("change", draw);
  axis.addEventListener("change", draw);
  for (const box of boxes) box.addEventListener("change", draw);
  for (const controls of root.querySelectorAll(".controls")) controls.hidden = false;
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.removeAttribute("hidden");
  draw();
})();

// The audio matrix: selecting a picture plays its sample; the arrow keys move between pictures.
(() => {
  const table = document.querySelector("table.audio");
  if (!table) return;
  const rows = [...table.tBodies[0].rows].map(row => [...row.querySelectorAll("td")].map(cell => cell.querySelector("button")));
  const all = rows.flat().filter(Boolean);
  const stop = except => { for (const sound of table.querySelectorAll("audio")) if (sound !== except) { sound.pause(); sound.currentTime = 0; } };
  for (const button of all) {
    const sound = button.parentElement.querySelector("audio");
    button.addEventListener("click", () => { stop(sound); if (sound.paused) sound.play(); else { sound.pause(); sound.currentTime = 0; } });
    sound.addEventListener("play", () => button.classList.add("playing"));
    for (const name of ["pause", "ended"]) sound.addEventListener(name, () => button.classList.remove("playing"));
  }
  table.addEventListener("keydown", event => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const row = rows.findIndex(found => found.includes(document.activeElement));
    if (!move || row < 0) return;
    event.preventDefault();
    let [r, c] = [row + move[0], rows[row].indexOf(document.activeElement) + move[1]];
    while (rows[r] && c >= 0 && c < rows[r].length && !rows[r][c]) { r += move[0]; c += move[1]; }
    if (rows[r] && rows[r][c]) rows[r][c].focus();
  });
})();

// A link into a folded section unfolds it; printing unfolds all sections.
(() => {
  const open = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
