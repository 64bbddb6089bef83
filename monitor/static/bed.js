// One bed: the list of beds to choose from, its alarms, and what the server says of it in words.
"use strict";

window.bedside.register("bed", (() => {
  const {element, write, restyle, on, select, counters} = window.bedside;
  const byId = (id) => document.getElementById(id);
  // As many rows as fit a screen of 900 pixels with an alarm or two among them.
  const MANY = 10;
  const rows = new Map();
  let shown = "";

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

  function ward({beds = []}) {
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

  function writeBed(text) {
    const bed = JSON.parse(text);
    byId("bed").classList.toggle("unknown", bed.bed === undefined);
    if (bed.bed === undefined) return;
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

  function start({state, sweep, trace}) {
    on(state, "bed", writeBed);
    trace.patching.connect(() => {
      window.bedside.heard();
      counters.patches += 1;
    });
    const measure = () => {
      if (sweep.inner_width > 0) state.setv({width: sweep.inner_width, height: sweep.inner_height});
    };
    sweep.properties.inner_width.change.connect(measure);
    sweep.properties.inner_height.change.connect(measure);
    measure();
    byId("band").addEventListener("change", (event) => { state.band = event.target.value; });
    byId("size").addEventListener("change", (event) => { state.size = event.target.value; });
    writeBed(state.bed);
  }

  return {title: "Bed", key: "b", start, ward};
})());
