// The page's own part of the work: it writes what the server says of beds and alarms, tells the server what
// the user wants and that the browser draws, and says so when the server has fallen silent.
"use strict";

window.bedside = (() => {
  // The server speaks at least once a second.
  const SILENT_MS = 4000;
  const BEAT_MS = 500;
  // As many rows as fit a screen of 900 pixels with an alarm or two among them.
  const MANY = 10;
  const counters = {patches: 0, frames: 0};
  const byId = (id) => document.getElementById(id);
  const rows = new Map();
  let page = null;
  let heard = performance.now();
  let beds = [];
  let shown = "";

  function element(tag, name, parent) {
    const made = document.createElement(tag);
    made.className = name;
    parent.append(made);
    return made;
  }

  // Setting what is there already would make the browser lay the page out again.
  function write(target, text) {
    if (target.textContent !== text) target.textContent = text;
  }

  function restyle(target, name) {
    if (target.className !== name) target.className = name;
  }

  function row(name) {
    let known = rows.get(name);
    if (known === undefined) {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.bed = name;
      button.addEventListener("click", () => select(name));
      const sign = element("span", "sign", button);
      const body = element("span", "body", button);
      const top = element("span", "top", body);
      const bed = element("span", "bed", top);
      const score = element("span", "score", top);
      const text = element("span", "text", body);
      const more = element("span", "more", body);
      const since = element("span", "since", more);
      const lag = element("span", "lag", more);
      known = {button, sign, bed, score, text, since, lag};
      rows.set(name, known);
    }
    return known;
  }

  function classes(line) {
    const alarmed = line.level !== "none";
    return [
      alarmed ? `alarmed ${line.level}` : "",
      line.technical ? "technical" : "",
      line.acknowledged ? "acknowledged" : "",
    ].join(" ");
  }

  function writeRow(line) {
    const {button, sign, bed, score, text, since, lag} = row(line.bed);
    restyle(button, `row ${line.state} ${classes(line)}`);
    button.setAttribute("aria-current", String(line.bed === shown));
    write(sign, line.sign);
    write(bed, line.bed);
    write(score, line.score);
    score.title = "Anomaly score of the newest window";
    restyle(score, line.over ? "score over" : "score");
    const others = line.more ? ` (and ${line.more} more)` : "";
    const what = `${line.text}${line.presence ? `, ${line.presence}` : ""}${others}`;
    // A number stays with its unit.
    write(text, what.replace(/(\d) (s|min|h)\b/g, "$1\u00a0$2"));
    write(since, line.since ? `since ${line.since} · ${line.for}` : "");
    write(lag, line.lag === "–" ? "" : `lag ${line.lag}`);
    restyle(lag, line.lagging ? "lag lagging" : "lag");
    return button;
  }

  function writeWard(ward) {
    beds = ward.beds ?? [];
    document.body.classList.toggle("vacant", beds.length === 0);
    document.body.classList.toggle("lost", ward.lost === true);
    const trouble = byId("trouble");
    trouble.hidden = !ward.trouble;
    restyle(trouble, ward.lost ? "lost" : "worker");
    write(trouble, ward.trouble ?? "");
    const list = byId("beds");
    list.classList.toggle("many", beds.length > MANY);
    const focused = document.activeElement;
    beds.forEach((line, place) => {
      const button = writeRow(line);
      if (list.children[place] !== button) list.insertBefore(button, list.children[place] ?? null);
    });
    while (list.children.length > beds.length) {
      rows.delete(list.lastChild.dataset.bed);
      list.lastChild.remove();
    }
    if (focused instanceof HTMLElement && focused !== document.activeElement) focused.focus();
    const alarmed = beds.filter((line) => line.level !== "none" && line.level !== "info").length;
    const count = `${beds.length} ${beds.length === 1 ? "bed" : "beds"}`;
    write(byId("count"), alarmed ? `${count}, ${alarmed} with alarm` : count);
    document.title = alarmed ? `(${alarmed}) Bedside` : "Bedside";
  }

  function writeAlarms(alarms) {
    const board = byId("alarms");
    const most = 3;
    while (board.children.length > Math.min(alarms.length, most)) board.lastChild.remove();
    alarms.slice(0, most).forEach((alarm, place) => {
      const banner = board.children[place] ?? element("div", "alarm", board);
      if (banner.children.length === 0) {
        element("span", "sign", banner);
        const what = element("span", "what", banner);
        element("span", "message", what);
        element("span", "kind", what);
        // It changes every second: not to be read out each time.
        element("span", "when", banner).setAttribute("aria-live", "off");
      }
      const [sign, what, when] = banner.children;
      restyle(banner, `alarm ${alarm.level} ${classes(alarm)}`);
      write(sign, alarm.sign);
      write(what.children[0], alarm.text);
      const kind = alarm.technical ? "technical" : "physiological";
      const left = place === most - 1 && alarms.length > most ? ` · ${alarms.length - most} more` : "";
      const presence = alarm.presence ? ` · ${alarm.presence}` : "";
      write(what.children[1], `${alarm.level} priority · ${kind}${presence}${left}`);
      write(when, `since ${alarm.since} · ${alarm.for}`);
    });
  }

  function writeBed(bed) {
    if (bed.bed === undefined) return;
    document.body.classList.remove("starting");
    if (bed.bed !== shown) {
      shown = bed.bed;
      rows.forEach(({button}, name) => button.setAttribute("aria-current", String(name === shown)));
    }
    write(byId("name"), bed.bed);
    write(byId("rate"), bed.rate);
    const behind = byId("behind");
    behind.hidden = bed.behind === "";
    write(behind, bed.late ? `${bed.behind} behind live` : `live · ${bed.behind} to screen`);
    restyle(behind, bed.late ? "badge late" : "badge");
    byId("missing").hidden = bed.missing === "";
    write(byId("missing"), bed.missing);
    write(byId("paper"), bed.size ? `${bed.speed} mm/s · ${bed.size} mm/mV` : "");
    write(byId("score"), bed.score);
    restyle(byId("score"), bed.over ? "over" : "");
    write(byId("limit"), `threshold ${bed.threshold}`);
    write(byId("percentile"), bed.percentile ? `higher than ${bed.percentile} % of normal windows` : "");
    write(byId("model"), bed.model);
    writeAlarms(bed.alarms);
  }

  function select(name) {
    page.selected = name;
    const address = new URL(window.location.href);
    address.searchParams.set("bed", name);
    window.history.replaceState(null, "", address);
  }

  // A hidden tab gets no animation frames: then nothing is drawn, and the server is not told that it is.
  function beat(time) {
    counters.frames += 1;
    if (time - beat.last >= BEAT_MS && performance.now() - heard < SILENT_MS) {
      beat.last = time;
      page.drawn += 1;
    }
    window.requestAnimationFrame(beat);
  }
  beat.last = 0;

  async function watchServer() {
    if (performance.now() - heard < SILENT_MS) return;
    document.body.classList.add("lost");
    const trouble = byId("trouble");
    trouble.hidden = false;
    restyle(trouble, "lost");
    write(trouble, "The dashboard does not answer: what you see is old");
    try {
      const answer = await fetch("healthz", {cache: "no-store"});
      // It is there again, and knows nothing of this page any more: begin anew.
      if (answer.status === 200 && performance.now() - heard >= SILENT_MS) window.location.reload();
    } catch {
      // Not yet.
    }
  }

  function start(state, sweep, trace) {
    page = state;
    const hear = (change) => (_) => {
      heard = performance.now();
      change();
    };
    const {ward, bed} = page.properties;
    ward.change.connect(hear(() => writeWard(JSON.parse(page.ward))));
    bed.change.connect(hear(() => writeBed(JSON.parse(page.bed))));
    trace.patching.connect(hear(() => { counters.patches += 1; }));
    const measure = () => {
      if (sweep.inner_width > 0) page.setv({width: sweep.inner_width, height: sweep.inner_height});
    };
    sweep.properties.inner_width.change.connect(measure);
    sweep.properties.inner_height.change.connect(measure);
    measure();
    byId("band").addEventListener("change", (event) => { page.band = event.target.value; });
    byId("size").addEventListener("change", (event) => { page.size = event.target.value; });
    writeWard(JSON.parse(page.ward));
    writeBed(JSON.parse(page.bed));
    state.document.on_event("connection_lost", () => {
      heard = -SILENT_MS;
      watchServer();
    });
    window.requestAnimationFrame(beat);
    window.setInterval(watchServer, 1000);
  }

  return {start, counters};
})();
