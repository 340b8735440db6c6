"use strict";
// One table, two pictures, one truth: `shown()` says which runs are seen, `mark()` which one is pointed at.
const { runs, columns, more, metric, mode } = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const state = { sort: "best", down: mode === "max", query: "", ranges: new Map(), marked: null };
const VALUE = { run: (r) => r.name, state: (r) => r.state, best: (r) => r.best, updates: (r) => r.updates, hours: (r) => r.hours, "tok/s": (r) => r.speed };
const value = (run, key) => (VALUE[key] ? VALUE[key](run) : key in run.settings ? run.settings[key] : run.metrics[key]) ?? null;
const name = (key) => (key === "best" ? `best ${metric}` : key);
const text = (v) => v === null ? "" : typeof v !== "number" ? String(v) : Number.isInteger(v) ? v.toLocaleString("en") : Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(4));
const finite = (v) => typeof v === "number" && Number.isFinite(v);
const sum = (run) => [run.name, `${run.state}${run.reason ? ": " + run.reason : ""}`, `${name("best")} ${text(run.best) || "none yet"}`].join("\n");

// Colours: a few runs are told apart, many are ordered from worst (pale) to best (strong).
const FEW = ["#3366cc", "#dc5c1e", "#2a9d5c", "#8e4fc4", "#c2a11a", "#12a0a8", "#d14788", "#6b7280"];
const ranked = runs.filter((r) => finite(r.best)).sort((a, b) => (mode === "max" ? a.best - b.best : b.best - a.best));
const ranks = new Map(ranked.map((r, i) => [r, ranked.length < 2 ? 1 : i / (ranked.length - 1)]));
runs.forEach((r, i) => {
  const rank = ranks.get(r);
  r.colour = runs.length <= FEW.length ? FEW[i] : rank === undefined ? "#9aa1ad" : `hsl(${Math.round(205 + 40 * rank)} ${Math.round(25 + 55 * rank)}% ${Math.round(76 - 34 * rank)}%)`;
  r.words = [r.name, r.state, ...Object.entries(r.settings).map(([k, v]) => `${k}=${v}`)].join(" ").toLowerCase();
});

function within(run) {
  for (const [key, [low, high]] of state.ranges) {
    const at = scales.get(key)?.position(value(run, key));
    if (at === undefined || at === null || at < low || at > high) return false;
  }
  return true;
}
const shown = () => runs.filter((r) => state.query.split(/\s+/).every((word) => r.words.includes(word)) && within(r));

function draw(tag, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, v] of Object.entries(attributes)) key === "text" ? (node.textContent = v) : node.setAttribute(key, v);
  parent?.append(node);
  return node;
}
function ticks(low, high, logarithmic) {
  if (logarithmic) {
    const all = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) for (const m of [1, 2, 5]) all.push(m * 10 ** e);
    const inside = all.filter((t) => t >= low && t <= high);
    return inside.length > 8 ? inside.filter((t) => Number.isInteger(+Math.log10(t).toFixed(9))) : inside;
  }
  const rough = (high - low) / 5 || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const first = Math.ceil(low / step), count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, i) => +((first + i) * step).toPrecision(12));
}

function drawCurves(seen) {
  const svg = $("curves"), { width, height } = svg.getBoundingClientRect();
  svg.replaceChildren();
  const kind = $("curve").value, over = +$("over").value, all = seen.filter((r) => r.curves[kind]?.length);
  const flat = all.flatMap((r) => r.curves[kind]);
  const logarithmic = $("log").checked && flat.every((p) => p[2] > 0);
  if (!flat.length) return void draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle", text: "nothing logged yet" }, svg);
  const span = (i) => flat.reduce(([a, b], p) => [Math.min(a, p[i]), Math.max(b, p[i])], [Infinity, -Infinity]);
  const [x0, x1] = span(over), [low, high] = span(2), f = logarithmic ? Math.log : (v) => v;
  const [left, right, top, bottom] = [58, width - 10, 8, height - 24];
  const X = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (right - left);
  const Y = (v) => bottom - ((f(v) - f(low)) / (f(high) - f(low) || 1)) * (bottom - top);
  for (const t of ticks(low, high, logarithmic)) {
    draw("line", { class: "axis", x1: left, x2: right, y1: Y(t), y2: Y(t) }, svg);
    draw("text", { x: left - 6, y: Y(t) + 4, "text-anchor": "end", text: text(t) }, svg);
  }
  for (const t of ticks(x0, x1)) draw("text", { x: X(t), y: height - 6, "text-anchor": "middle", text: text(t) }, svg);
  for (const run of all) {
    const points = run.curves[kind].map((p) => `${X(p[over]).toFixed(1)},${Y(p[2]).toFixed(1)}`);
    if (points.length === 1) draw("circle", { class: "run", cx: points[0].split(",")[0], cy: points[0].split(",")[1], r: 3, stroke: run.colour, "data-run": run.index }, svg);
    else draw("polyline", { class: "run", points: points.join(" "), stroke: run.colour, "data-run": run.index }, svg);
  }
}

// A scale puts numbers and words on 0..1, the axis from bottom to top.
function scaleOf(key) {
  const values = [...new Set(runs.map((r) => value(r, key)).filter((v) => v !== null))];
  if (values.length && values.every(finite) && values.length > 1) {
    const low = Math.min(...values), high = Math.max(...values), logarithmic = low > 0 && high / low > 50, f = logarithmic ? Math.log : (v) => v;
    return { ticks: values.length < 8 ? values : ticks(low, high, logarithmic), position: (v) => (finite(v) ? (f(v) - f(low)) / (f(high) - f(low)) : null) };
  }
  const words = values.map(String).sort();
  return { ticks: words, position: (v) => (v === null ? null : words.length < 2 ? 0.5 : words.indexOf(String(v)) / (words.length - 1)) };
}
const axes = [...columns.slice(0, 8), "best"], scales = new Map(axes.map((key) => [key, scaleOf(key)]));

function drawParallel(seen) {
  const svg = $("parallel"), { width, height } = svg.getBoundingClientRect(), [top, bottom] = [26, height - 10];
  svg.replaceChildren();
  const X = (i) => 46 + (i * (width - 110)) / Math.max(1, axes.length - 1), Y = (at) => bottom - at * (bottom - top);
  const line = (run) => axes.map((key, i) => [i, scales.get(key).position(value(run, key))]).filter(([, at]) => at !== null).map(([i, at]) => `${X(i).toFixed(1)},${Y(at).toFixed(1)}`);
  for (const run of seen) draw("polyline", { class: "run", points: line(run).join(" "), stroke: run.colour, "data-run": run.index }, svg);
  axes.forEach((key, i) => {
    const label = name(key), room = Math.floor((width - 110) / Math.max(1, axes.length - 1) / 6.5);
    const short = label.length > room && label.includes(".") ? label.slice(label.lastIndexOf(".") + 1) : label;
    draw("title", { text: label }, draw("text", { x: X(i), y: 12, "text-anchor": "middle", text: short }, svg));
    draw("line", { class: "axis", x1: X(i), x2: X(i), y1: top, y2: bottom }, svg);
    for (const t of scales.get(key).ticks) draw("text", { x: X(i) + 5, y: Y(scales.get(key).position(t)) + 4, text: text(t).slice(0, 18) }, svg);
    const range = state.ranges.get(key);
    if (range) draw("rect", { class: "brush", x: X(i) - 7, width: 14, y: Y(range[1]), height: Y(range[0]) - Y(range[1]) }, svg);
    const handle = draw("rect", { class: "handle", x: X(i) - 10, width: 20, y: top - 4, height: bottom - top + 8, "data-axis": key }, svg);
    const at = (event) => Math.min(1.02, Math.max(-0.02, (bottom - (event.clientY - svg.getBoundingClientRect().top)) / (bottom - top)));
    handle.onpointerdown = (event) => {
      const from = at(event);
      svg.setPointerCapture(event.pointerId);
      svg.onpointermove = (e) => { const to = at(e); state.ranges.set(key, [Math.min(from, to), Math.max(from, to)]); refresh(); };
      svg.onpointerup = (e) => { svg.onpointermove = svg.onpointerup = null; if (Math.abs(at(e) - from) < 0.02) { state.ranges.delete(key); refresh(); } };
    };
  });
}

function drawTable(seen) {
  const keys = ["run", "state", "best", "updates", "hours", "tok/s", ...columns, ...($("all").checked ? more : [])];
  const sign = state.down ? -1 : 1, key = state.sort;
  const rows = [...seen].sort((a, b) => {
    const [x, y] = [value(a, key), value(b, key)];
    if (x === null || y === null) return (x === null) - (y === null); // what has no value comes last, whichever way
    return sign * (finite(x) && finite(y) ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
  });
  $("table").tHead.replaceChildren(cells("tr", keys, (k) => {
    const th = document.createElement("th"), button = document.createElement("button");
    button.textContent = name(k);
    button.onclick = () => { state.down = state.sort === k ? !state.down : false; state.sort = k; drawTable(shown()); };
    if (k === key) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    th.append(button);
    return th;
  }));
  $("table").tBodies[0].replaceChildren(...rows.map((run) => {
    const tr = cells("tr", keys, (k) => {
      const td = document.createElement("td"), v = value(run, k);
      td.textContent = finite(v) && !(k in run.settings) && !Number.isInteger(v) && Math.abs(v) < 1000 ? v.toPrecision(4) : text(v);
      if (finite(v)) td.className = "number";
      if (k === "state") { td.className = run.state; td.title = run.reason; }
      if (k === "run") { const dot = document.createElement("span"); dot.className = "dot"; dot.style.background = run.colour; td.prepend(dot); }
      return td;
    });
    tr.dataset.run = run.index;
    return tr;
  }));
  $("shown").textContent = seen.length === runs.length ? "" : `${seen.length} of ${runs.length}`;
}
function cells(tag, keys, make) { const row = document.createElement(tag); row.append(...keys.map(make)); return row; }

function mark(index, event) {
  if (index !== state.marked) {
    document.querySelectorAll(".on").forEach((node) => node.classList.remove("on"));
    if (index !== null) document.querySelectorAll(`[data-run="${index}"]`).forEach((node) => { node.classList.add("on"); if (node.ownerSVGElement) node.ownerSVGElement.append(node); });
    state.marked = index;
  }
  const tip = $("tip");
  tip.hidden = index === null || !event?.target.closest("svg");
  if (tip.hidden) return;
  tip.textContent = sum(runs[index]);
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
}
function refresh() { const seen = shown(); drawCurves(seen); drawParallel(seen); drawTable(seen); state.marked = null; }

runs.forEach((run, i) => (run.index = i));
const kinds = [...new Set(runs.flatMap((r) => Object.keys(r.curves)))].sort((a, b) => (a.startsWith("train") - b.startsWith("train")) || a.localeCompare(b));
$("curve").append(...kinds.map((kind) => new Option(kind.replace(" ", ": "), kind, false, kind === `valid ${metric}`)));
const order = ["finished", "running", "queued", "stopped", "interrupted", "failed"];
$("counts").textContent = `${runs.length} ${runs.length === 1 ? "run" : "runs"}: ` + order.map((s) => [s, runs.filter((r) => r.state === s).length]).filter(([, n]) => n).map(([s, n]) => `${n} ${s}`).join(", ");
$("filter").oninput = (event) => { state.query = event.target.value.trim().toLowerCase(); refresh(); };
for (const id of ["curve", "over", "log"]) $(id).onchange = () => drawCurves(shown());
$("all").onchange = () => drawTable(shown());
document.onpointermove = (event) => { const node = event.target.closest?.("[data-run]"); mark(node ? +node.dataset.run : null, event); };
addEventListener("resize", refresh);
refresh();
