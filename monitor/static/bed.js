// One bed: the list of beds to choose from, its alarms, and what the server says of it in words.
"use strict";

window.bedside.register("bed", (() => {
  const {element, write, restyle, on, select, parts} = window.bedside;
  const byId = (id) => document.getElementById(id);
  // As many rows as fit a screen of 900 pixels with an alarm or two among them.
  const MANY = 10;
  const rows = new Map();
  // A trace further behind than this is no longer live.
  const BEHIND_S = 1;
  const LAG_MS = 250;
  const TOLD_MS = 400;
  let shown = "";
  let [taken, told] = [0, 0];
  let sweep = null;
  let leads = () => {};

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
      const text = element("span", "text message", body);
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
    writeAbsent();
  }

  function acknowledge(alarm) {
    const told = byId("alarm-wrong");
    window.bedside.ask(`api/alarms/${encodeURIComponent(alarm)}/acknowledge`, {}, (text) => {
      write(told, text);
      told.hidden = text === "";
    });
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
        const button = element("button", "do", banner);
        button.type = "button";
        write(button, "Acknowledge");
        button.addEventListener("click", () => acknowledge(banner.dataset.alarm));
        window.bedside.operators(button);
      }
      const [sign, what, when, button] = banner.children;
      banner.dataset.alarm = alarm.alarm;
      button.hidden = alarm.acknowledged;
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

  // How late the screen is, no finer than people can see.
  function duration(seconds) {
    if (seconds < 10) return `${Math.max(0.1, seconds).toFixed(1)} s`;
    if (seconds < 60) return `${Math.floor(seconds)} s`;
    return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
  }

  // A link may name a bed that is not there: another one is never shown in its place without a word.
  function writeAbsent() {
    const wanted = window.bedside.selected();
    const absent = wanted !== "" && wanted !== shown && rows.size > 0 && !rows.has(wanted);
    byId("absent").hidden = !absent;
    write(byId("absent"), absent ? `There is no bed ${wanted} now. It is shown as soon as its feed begins; this is ${shown}.` : "");
  }

  function writeLag() {
    const badge = byId("behind");
    const lag = sweep.lag();
    badge.hidden = lag === null;
    if (lag === null) return;
    write(badge, lag > BEHIND_S ? `${duration(lag)} behind live` : `live · ${duration(lag)} to screen`);
    restyle(badge, lag > BEHIND_S ? "badge late" : "badge");
  }

  function writeWords(text) {
    const bed = JSON.parse(text);
    byId("bed").classList.toggle("unknown", bed.bed === undefined);
    if (bed.bed === undefined) return;
    if (bed.bed !== shown) {
      shown = bed.bed;
      rows.forEach(({button}, name) => button.setAttribute("aria-current", String(name === shown)));
    }
    writeAbsent();
    write(byId("name"), bed.bed);
    write(byId("rate"), bed.rate);
    byId("judged").hidden = bed.model === "";
    const took = bed.latency && `scored in ${bed.latency}`;
    write(byId("judged"), [bed.model, bed.runs_on, took].filter(Boolean).join(" · "));
    byId("missing").hidden = bed.missing === "";
    write(byId("missing"), bed.missing);
    write(byId("bed").querySelector("[data-legend=hidden]"), bed.hidden ? `not drawn: ${bed.hidden}` : "");
    write(byId("score"), bed.score);
    restyle(byId("score"), bed.over ? "over" : "");
    write(byId("limit"), `threshold ${bed.threshold}`);
    write(byId("percentile"), bed.percentile ? `higher than ${bed.percentile} % of normal windows` : "");
    const stopped = bed.state === "silent" || bed.state === "ended";
    byId("notice").hidden = !stopped;
    write(byId("notice"), stopped ? bed.text : "");
    byId("sweep").classList.toggle("stopped", stopped);
    sweep.note(bed.leads);
    writeAlarms(bed.alarms);
  }

  function take(packet) {
    if (packet.number === undefined) return;
    sweep.take(packet);
    if (packet.leads !== undefined) leads(packet.leads);
    taken = packet.number;
  }

  function start({state}) {
    // Also for who measures what it draws.
    sweep = parts.sweep = new parts.Sweep(byId("sweep"));
    sweep.onLayout = parts.legend(byId("bed").querySelector(".legend"), sweep);
    leads = parts.controls.start({
      root: byId("bed").querySelector(".controls"),
      onLook: (look) => sweep.set(look),
      onBand: (band) => { state.band = band; },
    });
    on(state, "words", writeWords);
    on(state, "packet", take);
    // What has been taken is told while the browser draws: one that does not is sent nothing.
    sweep.onFrame = (now) => {
      if (now - told < TOLD_MS) return;
      told = now;
      state.taken = Math.max(0, taken);
    };
    parts.judging.start();
    byId("past").addEventListener("click", () => parts.openHistory(shown));
    byId("judge").addEventListener("click", () => parts.judging.open(shown));
    window.setInterval(writeLag, LAG_MS);
    writeWords(state.words);
  }

  return {
    title: "Bed",
    key: "b",
    start,
    ward,
    enter: () => sweep.start(),
    leave: () => sweep.stop(),
    bed: (name) => { if (name !== shown) sweep.clear(); },
    theme: () => sweep?.set({}),
  };
})());
