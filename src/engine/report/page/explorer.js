// The per-example view: choose a task and one or two systems; confusion, reliability, and every example behind a filter.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const $ = (id) => document.getElementById(id);
  const PAGE = 25, MOST_LABELS = 15, MOST_START = 90, BINS = 10;
  let rows = [], page = 0;

  const element = (tag, text, cls) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (cls) node.className = cls;
    return node;
  };
  const choose = (select, entries) => {
    const before = select.value;
    select.replaceChildren(...entries.map(([value, text]) => {
      const option = element("option", text);
      option.value = value;
      return option;
    }));
    if (entries.some(([value]) => String(value) === before)) select.value = before;
  };
  const name = (s) => {
    const { name, model } = data.systems[s];
    return new Set(data.systems.map((x) => x.model)).size > 1 ? `${name} (${model})` : name;
  };
  const optionsOf = (cell, n) => data.options[Array.isArray(cell.o) ? cell.o[n] : cell.o];
  const answer = (cell, n, place) => (typeof place === "number" ? optionsOf(cell, n)[place] : place);
  const cellsOf = (task, system) => data.cells.filter((cell) => cell.t === task && cell.s === system);
  const confidences = (scores) => {
    const least = Math.min(...scores);
    const weights = scores.map((x) => Math.exp(least - x));
    const total = weights.reduce((a, b) => a + b, 0);
    return weights.map((x) => x / total);
  };

  const fillSystems = () => {
    const task = Number($("x-task").value);
    const here = [...new Set(data.cells.filter((c) => c.t === task).map((c) => c.s))].sort((a, b) => a - b);
    choose($("x-first"), here.map((s) => [s, name(s)]));
    choose($("x-second"), [["", "none"], ...here.map((s) => [s, name(s)])]);
    fillSeeds();
  };
  const fillSeeds = () => {
    const cells = cellsOf(Number($("x-task").value), Number($("x-first").value));
    choose($("x-seed"), [["", "all"], ...cells.map((c) => [c.seed, String(c.seed)])]);
  };

  const collect = () => {
    const task = Number($("x-task").value), seed = $("x-seed").value;
    const firsts = cellsOf(task, Number($("x-first").value));
    const seconds = $("x-second").value === "" ? [] : cellsOf(task, Number($("x-second").value));
    const found = [];
    for (const cell of firsts) {
      if (seed !== "" && cell.seed !== Number(seed)) continue;
      const other = seconds.find((c) => c.seed === cell.seed) ?? (seconds.length === 1 ? seconds[0] : undefined);
      for (let n = 0; n < cell.a.length; n += 1) {
        const gold = answer(cell, n, cell.g[n]);
        const said = answer(cell, n, cell.a[n]);
        const theirs = other && n < other.a.length ? answer(other, n, other.a[n]) : undefined;
        found.push({ cell, other, n, gold, said, theirs, right: said === gold, otherRight: theirs === gold });
      }
    }
    return found;
  };
  const wanted = (row) => {
    switch ($("x-show").value) {
      case "wrong": return !row.right;
      case "right": return row.right;
      case "flipped": return row.theirs !== undefined && row.right !== row.otherRight;
      case "won": return row.theirs !== undefined && row.right && !row.otherRight;
      case "lost": return row.theirs !== undefined && !row.right && row.otherRight;
      default: return true;
    }
  };
  const textOf = (row) => (row.cell.i < 0 ? "" : data.inputs[row.cell.i][row.n]);

  const confusion = (all) => {
    const place = $("x-confusion");
    place.replaceChildren(element("h3", "Confusion"));
    const labels = [...new Set(all.flatMap((r) => [r.gold, r.said]))].sort();
    if (data.tasks[Number($("x-task").value)].metric !== "macro_f1" || labels.length > MOST_LABELS) {
      place.append(element("p", "The options differ from example to example, or are too many for a matrix.", "note"));
      return;
    }
    const table = element("table", undefined, "matrix");
    table.append(element("caption", "Rows: gold; columns: predicted; share of a row shaded"));
    const head = element("tr");
    head.append(element("th", "gold \\ predicted"), ...labels.map((l) => element("th", l)));
    table.append(head);
    for (const gold of labels) {
      const of = all.filter((r) => r.gold === gold);
      const line = element("tr");
      line.append(element("th", gold));
      for (const said of labels) {
        const count = of.filter((r) => r.said === said).length;
        const cell = element("td", String(count), gold === said ? "hit" : "miss");
        cell.style.setProperty("--share", `${Math.round((70 * count) / Math.max(1, of.length))}%`);
        line.append(cell);
      }
      table.append(line);
    }
    place.append(table);
  };

  const reliability = (all) => {
    const place = $("x-reliability");
    place.replaceChildren(element("h3", "Reliability"));
    const bins = Array.from({ length: BINS }, () => ({ n: 0, sum: 0, right: 0 }));
    for (const row of all) {
      const p = Math.max(...confidences(row.cell.x[row.n]));
      const bin = bins[Math.min(BINS - 1, Math.floor(p * BINS))];
      bin.n += 1; bin.sum += p; bin.right += row.right;
    }
    const full = bins.filter((b) => b.n);
    const error = full.reduce((a, b) => a + Math.abs(b.right - b.sum), 0) / Math.max(1, all.length);
    const ns = "http://www.w3.org/2000/svg";
    const shape = (tag, attributes) => {
      const node = document.createElementNS(ns, tag);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      return node;
    };
    const text = (x, y, content, anchor = "middle") => {
      const node = shape("text", { x, y, "text-anchor": anchor, class: "tick" });
      node.textContent = content;
      return node;
    };
    const svg = shape("svg", { viewBox: "0 0 240 210", role: "img", "aria-label": `Calibration error ${(100 * error).toFixed(1)} points over ${all.length} answers` });
    const X = (v) => 36 + 190 * v, Y = (v) => 172 - 160 * v;
    svg.append(shape("path", { d: `M${X(0)} ${Y(1)}V${Y(0)}H${X(1)}`, class: "axis" }));
    svg.append(shape("path", { d: `M${X(0)} ${Y(0)}L${X(1)} ${Y(1)}`, class: "ideal" }));
    bins.forEach((bin, place) => {
      if (!bin.n) return;
      const accuracy = bin.right / bin.n;
      const bar = shape("rect", { x: X(place / BINS) + 1, y: Y(accuracy), width: 17, height: Math.max(1, Y(0) - Y(accuracy)), class: "bar" });
      const title = shape("title", {});
      title.textContent = `confidence ${(100 * bin.sum / bin.n).toFixed(0)} %, right ${(100 * accuracy).toFixed(0)} %, ${bin.n} answers`;
      bar.append(title);
      svg.append(bar);
    });
    for (const v of [0, 0.5, 1]) svg.append(text(X(v), 186, String(100 * v)), text(30, Y(v) + 4, String(100 * v), "end"));
    svg.append(text(131, 203, "confidence, percent"));
    place.append(svg, element("p", `Bars: share of right answers (percent) by confidence, the softmax of the ranking scores. Calibration error ${(100 * error).toFixed(1)} points.`, "note"));
  };

  const scores = (row) => {
    const table = element("table", undefined, "scores");
    const head = element("tr");
    const both = row.other && row.n < row.other.x.length && optionsOf(row.other, row.n).join("\0") === optionsOf(row.cell, row.n).join("\0");
    head.append(element("th", "Option"), element("th", "Nats"), element("th", "Confidence"));
    if (both) head.append(element("th", "Nats, second"));
    table.append(head);
    const sure = confidences(row.cell.x[row.n]);
    optionsOf(row.cell, row.n).forEach((option, place) => {
      const line = element("tr");
      const marks = [option === row.gold ? "gold" : "", option === row.said ? "answer" : ""].filter(Boolean).join(", ");
      line.append(element("td", marks ? `${option} (${marks})` : option), element("td", row.cell.x[row.n][place].toFixed(3), "number"), element("td", `${(100 * sure[place]).toFixed(1)} %`, "number"));
      if (both) line.append(element("td", row.other.x[row.n][place].toFixed(3), "number"));
      table.append(line);
    });
    return table;
  };
  const entry = (row) => {
    const box = element("details");
    const line = element("summary");
    const whole = textOf(row).replace(/\s+/g, " ");
    const short = whole.length > MOST_START ? `${whole.slice(0, MOST_START)}…` : whole;
    line.append(
      element("span", row.right ? "✓" : "✗", row.right ? "ok" : "bad"),
      element("span", ` ${row.n} · seed ${row.cell.seed} · gold ${row.gold} · said ${row.said}`),
      ...(row.theirs === undefined ? [] : [element("span", ` · second ${row.theirs} ${row.otherRight ? "✓" : "✗"}`)]),
      element("span", short, "start"),
    );
    box.append(line);
    box.addEventListener("toggle", () => {
      if (!box.open || box.childElementCount > 1) return;
      const input = element("pre", textOf(row) || "(the run kept no inputs)");
      const table = element("div", undefined, "table");
      table.append(scores(row));
      box.append(element("h4", "Test input"), input, element("h4", "Ranking scores (lower is better)"), table);
      if (row.cell.p >= 0 && data.prompts[row.cell.p]) {
        const demonstrations = element("details");
        demonstrations.append(element("summary", "Demonstrations (before any cut)"), element("pre", data.prompts[row.cell.p]));
        box.append(demonstrations);
      }
    });
    return box;
  };
  const list = () => {
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    page = Math.min(Math.max(0, page), pages - 1);
    $("x-list").replaceChildren(...rows.slice(page * PAGE, (page + 1) * PAGE).map(entry));
    $("x-place").textContent = `page ${page + 1} of ${pages}`;
    $("x-back").disabled = page === 0;
    $("x-next").disabled = page === pages - 1;
  };
  const draw = () => {
    const all = collect();
    const words = $("x-text").value.trim().toLowerCase();
    rows = all.filter((row) => wanted(row) && (!words || textOf(row).toLowerCase().includes(words)));
    const right = all.filter((r) => r.right).length;
    $("x-count").textContent = `${rows.length} of ${all.length} answers shown; ${all.length ? (100 * right / all.length).toFixed(1) : 0} % of all are right`;
    confusion(all);
    reliability(all);
    page = 0;
    list();
  };
  choose($("x-task"), data.tasks.map((task, place) => [place, new Set(data.tasks.map((t) => t.setting)).size > 1 ? `${task.setting}: ${task.name}` : task.name]));
  fillSystems();
  $("x-task").addEventListener("change", () => { fillSystems(); draw(); });
  $("x-first").addEventListener("change", () => { fillSeeds(); draw(); });
  for (const id of ["x-second", "x-seed", "x-show"]) $(id).addEventListener("change", draw);
  $("x-text").addEventListener("input", draw);
  $("x-back").addEventListener("click", () => { page -= 1; list(); });
  $("x-next").addEventListener("click", () => { page += 1; list(); });
  draw();
})();
