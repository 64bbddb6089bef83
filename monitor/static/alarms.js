// The alarms of all beds: those that are open, with what can be done about them, and those that were.
"use strict";

window.bedside.register("alarms", (() => {
  const {element, write, select, ask, operators} = window.bedside;
  const {AlarmFeed, AlarmDetail, alarmWords: words, audit} = window.bedside.parts;
  const byId = (id) => document.getElementById(id);
  const PAUSES_MIN = [1, 2, 5, 10];
  // As many as somebody scrolls through.
  const HISTORY = 300;
  const filters = {bed: "", kind: "", priority: "", state: "", since: "8h"};
  // What went wrong, by the path that was asked: it stays where it happened when the list is written anew.
  const wrong = new Map();
  const waiting = new Set();
  const minutes = new Map();
  const feed = new AlarmFeed(() => render());
  // What changes with every second: an element, and what to write into it.
  const ticking = [];
  let tab = "open";
  let chosen = null;
  let detail = null;
  let written = "";
  let beds = [];
  let timer = 0;

  function classes(alarm, name) {
    const quiet = alarm.presence === "acknowledged" || !feed.isOpen(alarm);
    const told = [name, alarm.priority, alarm.technical && "technical", quiet && "acknowledged", alarm.id === chosen && "chosen"];
    return told.filter(Boolean).join(" ");
  }

  // ---- what is shown ---------------------------------------------------------------------------------------

  function passes(alarm) {
    return (filters.bed === "" || alarm.bed === filters.bed || alarm.bed === words.EVERY_BED)
      && (filters.kind === "" || alarm.kind === filters.kind)
      && (filters.priority === "" || AlarmFeed.URGENCY[alarm.priority] >= AlarmFeed.URGENCY[filters.priority]);
  }

  const begun = (alarm) => alarm.raised ?? alarm.onset;
  const openAlarms = () => [...feed.alarms.values()].filter((alarm) => feed.isOpen(alarm));

  // Beds with their open alarms, the most urgent first.
  function groups() {
    const grouped = new Map();
    for (const alarm of openAlarms().filter(passes).sort(feed.order)) {
      if (!grouped.has(alarm.bed)) grouped.set(alarm.bed, []);
      grouped.get(alarm.bed).push(alarm);
    }
    // Where nothing is open alarms can be paused, too.
    if (filters.bed !== "" && !grouped.has(filters.bed)) grouped.set(filters.bed, []);
    return grouped;
  }

  function past() {
    const state = (alarm) => filters.state === "" || (filters.state === "open") === feed.isOpen(alarm);
    return [...feed.alarms.values()]
      .filter((alarm) => passes(alarm) && state(alarm))
      .sort((one, other) => begun(other) - begun(one))
      .slice(0, HISTORY);
  }

  function visible() {
    if (tab === "open") return [...groups().values()].flat();
    return tab === "history" ? past() : [];
  }

  // ---- doing -----------------------------------------------------------------------------------------------

  async function request(path, body) {
    if (waiting.has(path)) return;
    waiting.add(path);
    render();
    await ask(path, body, (text) => {
      if (text) wrong.set(path, text);
      else wrong.delete(path);
    });
    waiting.delete(path);
    render();
  }

  const alarmPath = (alarm) => `api/alarms/${encodeURIComponent(alarm.id)}/acknowledge`;
  const bedPath = (bed, what) => `api/beds/${encodeURIComponent(bed)}/${what}`;
  // Information waits for nobody, and what is about all beds ends by itself.
  const canAcknowledge = (alarm) => feed.isOpen(alarm) && alarm.presence !== "acknowledged"
    && alarm.priority !== "info" && alarm.bed !== words.EVERY_BED;
  const acknowledge = (alarm) => request(alarmPath(alarm));

  function button(parent, text, path, does) {
    const made = element("button", "do", parent);
    made.type = "button";
    write(made, waiting.has(path) ? "Asking …" : text);
    made.disabled = waiting.has(path);
    made.dataset.asks = path;
    made.addEventListener("click", (event) => {
      event.stopPropagation();
      does();
    });
    return operators(made);
  }

  function openButton(parent, bed) {
    const open = element("button", "do", parent);
    open.type = "button";
    write(open, "Open bed");
    open.addEventListener("click", () => select(bed, "bed"));
  }

  function complaint(parent, ...paths) {
    for (const path of paths.filter((one) => wrong.has(one))) {
      const told = element("p", "wrong", parent);
      told.setAttribute("role", "alert");
      write(told, wrong.get(path));
    }
  }

  // ---- the open ones ---------------------------------------------------------------------------------------

  function writeGroup(bed, alarms, parent) {
    const group = element("section", "group", parent);
    group.dataset.bed = bed;
    const head = element("header", "", group);
    const name = element("h3", "", head);
    write(name, words.bed(bed));
    if (bed !== words.EVERY_BED) {
      const paused = alarms.find((alarm) => alarm.rule === "paused");
      element("span", "spring", head);
      const many = alarms.filter(canAcknowledge).length;
      if (many > 1) {
        const path = bedPath(bed, "acknowledge");
        button(head, `Acknowledge all ${many}`, path, () => request(path));
      }
      writePause(bed, paused, head);
      openButton(head, bed);
      complaint(group, bedPath(bed, "acknowledge"), bedPath(bed, "pause"), bedPath(bed, "resume"));
    }
    for (const alarm of alarms) writeRow(alarm, group);
    if (alarms.length === 0) write(element("p", "calm quiet", group), "No open alarm.");
  }

  function writePause(bed, paused, parent) {
    if (paused !== undefined) {
      const path = bedPath(bed, "resume");
      button(parent, "Resume alarms", path, () => request(path));
      return;
    }
    const together = element("span", "pause", parent);
    const path = bedPath(bed, "pause");
    button(together, "Pause", path, () => request(path, {seconds: 60 * (minutes.get(bed) ?? 2)}))
      .setAttribute("aria-label", `Pause the physiological alarms of ${bed}`);
    const length = element("select", "", together);
    length.setAttribute("aria-label", "For how long");
    for (const one of PAUSES_MIN) length.add(new Option(`${one} min`, one));
    length.value = minutes.get(bed) ?? 2;
    length.addEventListener("change", () => minutes.set(bed, Number(length.value)));
    operators(length);
  }

  function writeRow(alarm, parent) {
    const row = element("div", classes(alarm, "entry"), parent);
    row.dataset.alarm = alarm.id;
    row.addEventListener("click", () => choose(alarm.id));
    write(element("span", "sign", row), words.sign(alarm));
    const text = element("div", "text", row);
    write(element("strong", "message", text), alarm.message);
    write(element("span", "about", text), words.about(alarm));
    complaint(text, alarmPath(alarm));
    const when = element("div", "when", row);
    ticking.push([element("span", "for", when), () => words.duration(feed.now(alarm.bed) - alarm.onset)]);
    write(element("span", "", when), `since ${words.clock(alarm.onset)}`);
    const actions = element("div", "actions", row);
    if (canAcknowledge(alarm)) button(actions, "Acknowledge", alarmPath(alarm), () => acknowledge(alarm));
  }

  function writeOpen(parent) {
    const grouped = groups();
    for (const [bed, alarms] of grouped) writeGroup(bed, alarms, parent);
    const calm = beds.filter((bed) => !openAlarms().some((alarm) => alarm.bed === bed));
    if (filters.bed === "" && calm.length > 0 && feed.state === "here") {
      const line = element("p", "calm-beds quiet", parent);
      element("span", "", line).textContent = grouped.size > 0 ? "No open alarm:" : "Beds:";
      for (const bed of calm) {
        const one = element("button", "chip", line);
        one.type = "button";
        one.title = "Show this bed, to pause its alarms";
        write(one, bed);
        one.addEventListener("click", () => filter("bed", bed));
      }
    }
  }

  // ---- the past --------------------------------------------------------------------------------------------

  function writePast(body, list) {
    for (const alarm of list) {
      const row = element("tr", classes(alarm, "past"), body);
      row.dataset.alarm = alarm.id;
      row.addEventListener("click", () => choose(alarm.id));
      write(element("span", "sign", element("td", "", row)), words.sign(alarm));
      write(element("td", "bed", row), words.bed(alarm.bed));
      write(element("td", "what message", row), alarm.message);
      write(element("td", "", row), words.clock(begun(alarm)));
      const seen = element("td", "", row);
      if (alarm.who !== "") {
        write(element("span", "", seen), alarm.who);
        write(element("span", "quiet", seen), ` ${words.clock(alarm.seen)}`);
      }
      const end = element("td", feed.isOpen(alarm) ? "open" : "", row);
      write(end, alarm.lost ? "not told" : alarm.ended ? words.clock(alarm.end) : "open");
      const lasted = element("td", "number", row);
      if (!alarm.lost) ticking.push([lasted, () => words.duration((alarm.end ?? feed.now(alarm.bed)) - begun(alarm))]);
    }
  }

  // ---- the whole -------------------------------------------------------------------------------------------

  // Anew only where something has changed: what is replaced under somebody's finger cannot be clicked.
  function render() {
    if (timer === 0) return;
    const list = visible();
    const alarm = chosen === null ? undefined : feed.alarms.get(chosen);
    const said = (one) => [one.id, one.events.length, one.lost];
    const open = openAlarms();
    const now = JSON.stringify([
      tab, chosen, filters, beds, feed.state, feed.trouble, [...wrong], [...waiting],
      list.map(said), open.map(said), alarm && said(alarm),
    ]);
    if (now === written) return;
    written = now;
    const focused = document.activeElement?.dataset?.asks;
    const scrolled = byId("lists").scrollTop;
    ticking.length = 0;
    write(byId("open-count"), feed.state === "here" ? String(open.length) : "");
    byId("feed-trouble").hidden = feed.trouble === "";
    write(byId("feed-trouble"), feed.trouble);
    writeBeds();
    byId("tab-open").replaceChildren();
    if (tab === "open") writeOpen(byId("tab-open"));
    const past = byId("tab-history").querySelector("tbody");
    past.replaceChildren();
    if (tab === "history") writePast(past, list);
    writeNothing(list);
    detail.show(tab === "audit" ? null : alarm ?? null);
    byId("lists").scrollTop = scrolled;
    if (focused) document.querySelector(`[data-asks="${CSS.escape(focused)}"]`)?.focus();
    tick();
  }

  // Durations go on.
  function tick() {
    for (const [target, since] of ticking) write(target, since());
  }

  function writeNothing(list) {
    const filtered = filters.bed !== "" || filters.kind !== "" || filters.priority !== "" || (tab === "history" && filters.state !== "");
    byId("unfilter").hidden = !filtered || tab === "audit";
    if (tab === "audit") return;
    const empty = list.length === 0 && !(tab === "open" && filters.bed !== "");
    byId("no-alarm").hidden = !empty;
    byId("tab-history").querySelector("table").hidden = empty;
    if (!empty) return;
    const [title, more] = byId("no-alarm").children;
    if (feed.state === "loading") {
      write(title, feed.trouble ? "The alarms are not known" : "Loading …");
      write(more, "");
    } else if (filtered) {
      write(title, "No alarm like that");
      write(more, "Other alarms are hidden by the filters above.");
    } else {
      write(title, tab === "open" ? "✓ No open alarm" : "No alarm yet");
      const watched = beds.length === 0 ? "no bed is connected" : beds.length === 1 ? "1 bed is watched" : `${beds.length} beds are watched`;
      write(more, tab === "open" ? `${watched[0].toUpperCase()}${watched.slice(1)}.` : "Alarms stay here after they have ended.");
    }
  }

  function writeBeds() {
    const choice = document.querySelector("[data-filter=bed]");
    const known = [...new Set([...beds, ...[...feed.alarms.values()].map((alarm) => alarm.bed)])]
      .filter((bed) => bed !== words.EVERY_BED)
      .sort((one, other) => one.localeCompare(other, "en", {numeric: true}));
    const there = [...choice.options].slice(1).map((option) => option.value);
    if (known.join("\n") === there.join("\n") || document.activeElement === choice) return;
    choice.replaceChildren(new Option("all", ""), ...known.map((bed) => new Option(bed, bed)));
    choice.value = known.includes(filters.bed) ? filters.bed : "";
    filters.bed = choice.value;
  }

  function filter(name, value) {
    filters[name] = value;
    document.querySelector(`[data-filter=${name}]`).value = value;
    if (tab === "audit") audit.show(filters);
    render();
  }

  function choose(id) {
    chosen = id;
    render();
    document.querySelector(`#lists [data-alarm="${CSS.escape(id)}"]`)?.scrollIntoView({block: "nearest"});
  }

  function move(by) {
    const list = visible();
    if (list.length === 0) return;
    const place = list.findIndex((alarm) => alarm.id === chosen);
    const next = place < 0 ? (by > 0 ? 0 : list.length - 1) : Math.min(list.length - 1, Math.max(0, place + by));
    // Enter is for the alarm from now on, not for the button that was pressed before.
    document.activeElement?.blur();
    choose(list[next].id);
  }

  function showTab(name) {
    tab = name;
    byId("panel").dataset.tab = name;
    for (const one of byId("tabs").children) one.setAttribute("aria-selected", String(one.dataset.tab === name));
    for (const one of ["open", "history", "audit"]) byId(`tab-${one}`).hidden = one !== name;
    if (name === "audit") audit.show(filters);
    render();
  }

  function press(event) {
    const alarm = chosen === null ? undefined : feed.alarms.get(chosen);
    const onButton = event.target instanceof HTMLElement && event.target.closest("button, a");
    if (event.key === "j" || event.key === "ArrowDown") move(1);
    else if (event.key === "k" || event.key === "ArrowUp") move(-1);
    else if (event.key === "Enter" && !onButton && alarm && alarm.bed !== words.EVERY_BED) select(alarm.bed, "bed");
    else if (event.key === "x" && alarm && canAcknowledge(alarm)) acknowledge(alarm);
    else return false;
    return true;
  }

  // The buttons of one alarm beside its picture.
  function actions(alarm, parent) {
    if (canAcknowledge(alarm)) {
      button(parent, "Acknowledge", alarmPath(alarm), () => acknowledge(alarm)).classList.add("main");
    }
    if (alarm.bed !== words.EVERY_BED) {
      openButton(parent, alarm.bed);
      const past = element("button", "do", parent);
      past.type = "button";
      past.title = "The ECG around its onset, from what was recorded";
      write(past, "Show in history");
      past.addEventListener("click", () => window.bedside.parts.openHistory(alarm.bed, alarm.onset));
    }
    complaint(parent, alarmPath(alarm));
  }

  function start() {
    detail = new AlarmDetail(byId("detail"), actions, (alarm) => feed.now(alarm.bed) - begun(alarm));
    for (const one of byId("tabs").children) one.addEventListener("click", () => showTab(one.dataset.tab));
    for (const choice of document.querySelectorAll("[data-filter]")) {
      choice.addEventListener("change", () => filter(choice.dataset.filter, choice.value));
    }
    byId("unfilter").addEventListener("click", () => {
      for (const name of ["bed", "kind", "priority", "state"]) filter(name, "");
    });
  }

  function enter() {
    feed.open();
    timer = window.setInterval(tick, 1000);
    written = "";
    showTab(tab);
  }

  function leave() {
    feed.close();
    window.clearInterval(timer);
    timer = 0;
  }

  function ward({beds: lines = []}) {
    beds = lines.map((line) => line.bed);
    render();
  }

  return {
    title: "Alarms", key: "a", start, enter, leave, ward, press,
    keys: [["j k, ↓ ↑", "choose an alarm"], ["Enter", "open its bed"], ["x", "acknowledge it"]],
  };
})());
