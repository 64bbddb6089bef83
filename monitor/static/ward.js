// The ward: a tile for each bed, and one figure in front of them with all strips. The page lays the tiles out and
// measures where each strip has its place; the server says what is new in them.
"use strict";

window.bedside.register("ward", (() => {
  const {element, write, restyle, on, select, counters, state} = window.bedside;
  // As the server has it: beds on a leaf, and the part of a strip in front of the trace that is empty.
  const LEAF = 64;
  const GAP = 0.06;
  const NO_SAMPLE = -32768;
  // Width of a tile to its height: a strip wants to be wide, and the rest of a tile needs a few lines.
  const ASPECT = 1.9;
  // What a tile's trend reaches below and above the threshold, in units of the score: normal windows have a
  // standard deviation of 1.
  const BELOW = 6, ABOVE = 4;
  const byId = (id) => document.getElementById(id);
  const cells = new Map();
  const strips = new Map();
  let models = null;
  let tiles = {beds: [], leaves: 1};
  let lines = new Map();
  let columns = 1;

  function svg(tag, name, parent) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    made.setAttribute("class", name);
    parent.append(made);
    return made;
  }

  function makeCell(bed) {
    const cell = document.createElement("div");
    cell.className = "cell";
    cell.style.setProperty("--letters", Math.max(4, bed.length));
    const tile = element("button", "tile", cell);
    tile.type = "button";
    tile.dataset.bed = bed;
    tile.tabIndex = -1;
    tile.addEventListener("click", () => select(bed, "bed"));
    const head = element("span", "head", tile);
    const sign = element("span", "sign", head);
    write(element("span", "bed", head), bed);
    const heart = element("span", "heart", head);
    const rate = element("span", "rate", heart);
    write(element("span", "unit", heart), "bpm");
    const say = element("span", "say message", tile);
    const [text, what] = [element("span", "text", say), element("span", "what", say)];
    say.append(" ");
    const more = element("span", "count", say);
    const since = element("span", "since", say);
    const wave = element("span", "wave", tile);
    const bar = element("span", "millivolt", wave);
    const lead = element("span", "lead", wave);
    const late = element("span", "late", wave);
    const foot = element("span", "foot", tile);
    const signal = element("span", "signal", foot);
    const bars = element("span", "bars", signal);
    for (let step = 0; step < 3; step += 1) element("i", "", bars);
    const quality = element("span", "quality", signal);
    const mark = element("span", "mark", foot);
    const lasting = element("span", "for", foot);
    const score = element("span", "score", foot);
    const trend = svg("svg", "trend", foot);
    trend.setAttribute("viewBox", `0 ${-ABOVE} 60 ${ABOVE + BELOW}`);
    trend.setAttribute("preserveAspectRatio", "none");
    svg("path", "limit", trend).setAttribute("d", "M0 0H60");
    const [over, line] = [svg("path", "above", trend), svg("path", "line", trend)];
    return {cell, tile, sign, rate, text, what, more, since, wave, bar, lead, late, signal, bars, quality, mark,
      lasting, score, over, line};
  }

  // What is said of a bed.
  function writeCell(known, line) {
    const alarmed = line.level !== "none";
    restyle(known.tile, [
      "tile", line.state, alarmed ? `alarmed ${line.level}` : "", line.technical ? "technical" : "",
      line.acknowledged ? "acknowledged" : "", line.paused ? "paused" : "",
    ].filter(Boolean).join(" "));
    write(known.sign, line.sign);
    write(known.rate, line.rate);
    const presence = line.presence ? `, ${line.presence}` : "";
    write(known.text, `${line.text}${presence}`.replace(/(\d) (s|min|h)\b/g, "$1\u00a0$2"));
    write(known.what, line.brief);
    write(known.lasting, line.since ? line.for : "");
    known.lasting.title = `since ${line.since}`;
    write(known.more, line.more ? `+${line.more} ${line.more_sign}`.trim() : "");
    restyle(known.more, `count ${line.more_level}`.trim());
    known.more.title = line.more ? `${line.more} more ${line.more === 1 ? "alarm" : "alarms"}` : "";
    write(known.since, line.since ? ` since ${line.since} · ${line.for}` : "");
    write(known.late, line.lagging && line.lag !== "–" ? `${line.lag} ago` : "");
    known.late.title = "How long ago the last sample came";
    const {bars, text} = line.signal;
    known.signal.hidden = bars === null;
    known.bars.dataset.bars = bars ?? 0;
    known.signal.title = text;
    write(known.quality, text);
    write(known.mark, line.paused ? "alarms paused" : line.acknowledged ? "acknowledged" : "");
    write(known.score, line.score);
    restyle(known.score, line.over ? "score over" : "score");
    const rate = line.rate === "–" ? "unknown" : line.rate;
    known.tile.setAttribute("aria-label", `${line.bed}: ${line.text}${presence}; heart rate ${rate}; ${text}`);
    known.tile.title = line.more ? `${line.text} (and ${line.more} more)` : line.text;
  }

  function ward({beds = []}) {
    lines = new Map(beds.map((line) => [line.bed, line]));
    for (const [bed, known] of cells) if (lines.has(bed)) writeCell(known, lines.get(bed));
  }

  // As many columns as give tiles nearest to the wanted shape, and few empty places.
  function columnsFor(beds, width, height) {
    let [best, least] = [1, Infinity];
    for (let wide = 1; wide <= beds; wide += 1) {
      const high = Math.ceil(beds / wide);
      const shape = Math.abs(Math.log(width / wide / (height / high) / ASPECT));
      const cost = shape + (wide * high - beds) / beds;
      if (cost < least) [best, least] = [wide, cost];
    }
    return best;
  }

  function writeTiles(text) {
    tiles = {beds: [], leaves: 1, ...JSON.parse(text)};
    const board = byId("tiles");
    const focused = document.activeElement;
    tiles.beds.forEach(({bed, strip, lead = "", low, high}, place) => {
      if (!cells.has(bed)) {
        cells.set(bed, makeCell(bed));
        if (lines.has(bed)) writeCell(cells.get(bed), lines.get(bed));
      }
      const known = cells.get(bed);
      Object.assign(known, {strip, low, high});
      write(known.lead, lead);
      known.bar.hidden = low === undefined;
      known.bar.style.height = `${100 / (high - low)}%`;
      if (board.children[place] !== known.cell) board.insertBefore(known.cell, board.children[place] ?? null);
    });
    const here = new Set(tiles.beds.map(({bed}) => bed));
    for (const [bed, known] of cells) {
      if (here.has(bed)) continue;
      known.cell.remove();
      cells.delete(bed);
    }
    const drawn = new Set(tiles.beds.map(({strip}) => strip));
    for (const number of strips.keys()) if (!drawn.has(number)) strips.delete(number);
    // A tile that has moved keeps the focus.
    if (focused instanceof HTMLElement && focused.isConnected && focused !== document.activeElement) focused.focus();
    const first = board.querySelector("[tabindex='0']") ?? board.querySelector(".tile");
    if (first !== null) first.tabIndex = 0;
    byId("leaves").hidden = tiles.leaves < 2;
    const leaf = Math.min(models.state.leaf, tiles.leaves - 1);
    write(byId("leaf"), `Page ${leaf + 1} of ${tiles.leaves}`);
    for (const button of byId("leaves").querySelectorAll("button")) {
      const to = leaf + Number(button.dataset.turn);
      button.disabled = to < 0 || to >= tiles.leaves;
    }
    place();
  }

  // Where each strip lies on the figure, whose paper is a square of 1 by 1.
  function place() {
    const board = byId("tiles");
    const {width, height, left, bottom} = board.getBoundingClientRect();
    if (width === 0 || height === 0) return;
    columns = columnsFor(tiles.leaves > 1 ? LEAF : tiles.beds.length, width, height);
    board.style.setProperty("--columns", columns);
    board.style.setProperty("--rows", Math.ceil((tiles.leaves > 1 ? LEAF : tiles.beds.length) / columns));
    board.classList.toggle("few", tiles.leaves < 2 && tiles.beds.length <= 4);
    let pixels = 0;
    for (const {bed} of tiles.beds) {
      const known = cells.get(bed);
      const box = known.wave.getBoundingClientRect();
      known.box = {
        left: (box.left - left) / width, bottom: (bottom - box.bottom) / height,
        width: box.width / width, height: box.height / height,
      };
      pixels = Math.max(pixels, box.width * window.devicePixelRatio);
    }
    if (Math.abs(models.state.pixels - pixels) > 1) models.state.pixels = pixels;
    // A second time half a pixel off, to be bolder.
    const [across, up] = [0.5 / width, 0.5 / height];
    models.bold_x.setv({start: -across, end: 1 - across}, {sync: false});
    models.bold_y.setv({start: -up, end: 1 - up}, {sync: false});
    drawAll();
  }

  function drawAll() {
    const xs = [], ys = [];
    for (const {bed, strip} of tiles.beds) {
      const known = cells.get(bed);
      const points = strips.get(strip);
      if (points === undefined || known.low === undefined) continue;
      const {box} = known;
      points.ys = new Float32Array(points.values.length);
      points.known = known;
      xs.push(Float32Array.from(points.ys, (_, at) => box.left + (at + 0.5) / points.ys.length * box.width));
      ys.push(points.ys);
      for (let at = 0; at < points.ys.length; at += 1) points.ys[at] = height(points, at);
    }
    // In place: what is set anew would go back to the server.
    Object.assign(models.source.data, {xs, ys});
    models.line.setv({line_width: {value: byId("tiles").classList.contains("few") ? 2 : 1}}, {sync: false});
    models.source.change.emit();
  }

  function height({values, known}, at) {
    const value = values[at];
    if (value === NO_SAMPLE) return NaN;
    const share = (value / 1000 - known.low) / (known.high - known.low);
    return known.box.bottom + Math.min(1, Math.max(0, share)) * known.box.height;
  }

  // What is new, see monitor/tiles/view.py.
  function takeStrips(bytes) {
    const words = new Int16Array(bytes);
    let whole = false;
    for (let at = 0; at < words.length;) {
      const [number, first, count, total] = new Uint16Array(bytes, 2 * at, 4);
      at += 4;
      let points = strips.get(number);
      if (points === undefined || points.values.length !== total) {
        points = {values: new Int16Array(total).fill(NO_SAMPLE)};
        strips.set(number, points);
        whole = true;
      }
      const gap = Math.ceil(GAP * total);
      for (let step = 0; step < count + gap; step += 1) {
        const to = (first + step) % total;
        points.values[to] = step < count ? words[at + step] : NO_SAMPLE;
        if (points.known !== undefined) points.ys[to] = height(points, to);
      }
      at += count;
    }
    window.bedside.heard();
    counters.patches += 1;
    if (whole) drawAll();
    else models.source.change.emit();
  }

  function writeTrends(text) {
    for (const [bed, values] of Object.entries(JSON.parse(text))) {
      const known = cells.get(bed);
      if (known === undefined) continue;
      const inside = (value) => Math.min(ABOVE, Math.max(-BELOW, value));
      let line = "", over = "";
      values.forEach((value, at) => {
        if (value === null) return;
        const next = values[at + 1] ?? null;
        // A step that stands alone is a short line.
        const to = next === null ? `h0.5` : `L${at + 1} ${-inside(next)}`;
        line += `M${at} ${-inside(value)}${to}`;
        if (value > 0) over += `M${at - 0.5} 0V${-inside(value)}h1V0Z`;
      });
      known.line.setAttribute("d", line);
      known.over.setAttribute("d", over);
    }
  }

  function colour() {
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    models.line.setv({line_color: {value: ink}}, {sync: false});
  }

  function turn(by) {
    const leaf = Math.min(models.state.leaf, tiles.leaves - 1) + by;
    if (leaf >= 0 && leaf < tiles.leaves) models.state.leaf = leaf;
  }

  function focus(place) {
    const board = byId("tiles");
    const tile = board.children[place]?.querySelector(".tile");
    if (!tile) return;
    for (const other of board.querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
    tile.tabIndex = 0;
    tile.focus();
  }

  function press({key}) {
    const moves = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns};
    if (key === "PageUp" || key === "PageDown") {
      turn(key === "PageUp" ? -1 : 1);
      return true;
    }
    if (!(key in moves)) return false;
    const board = byId("tiles");
    const now = [...board.children].indexOf(document.activeElement?.closest(".cell"));
    focus(now < 0 ? 0 : now + moves[key]);
    return true;
  }

  function start(given) {
    models = given;
    on(models.state, "tiles", writeTiles);
    on(models.state, "trends", writeTrends);
    on(models.state, "strips", takeStrips);
    on(state(), "dark", colour);
    colour();
    new ResizeObserver(place).observe(byId("tiles"));
    for (const button of byId("leaves").querySelectorAll("button")) {
      button.addEventListener("click", () => turn(Number(button.dataset.turn)));
    }
    writeTiles(models.state.tiles);
    writeTrends(models.state.trends);
  }

  function enter() {
    place();
    cells.get(window.bedside.selected())?.tile.focus({preventScroll: true});
  }

  return {
    title: "Ward", key: "w", start, enter, ward, press,
    keys: [["← → ↑ ↓", "move from tile to tile"], ["Enter", "open the bed"], ["Page Up, Page Down", "turn the page"]],
  };
})());
