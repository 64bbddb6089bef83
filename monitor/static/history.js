// The past of a bed, from what the recorder wrote: a line of time above, a sheet of ECG paper below, its alarms beside.
"use strict";

window.bedside.register("history", (() => {
  const {element, write, restyle, select, address, sentence, parts} = window.bedside;
  const {HistoryPages, HistorySheet, HistoryCompare, Timeline, AlarmFeed, alarmWords: words} = parts;
  const byId = (id) => document.getElementById(id);
  const SECOND = 1000;
  const MINUTE = 60 * SECOND;
  const ZOOMS = [[1, "1 min"], [2, "2 min"], [5, "5 min"], [15, "15 min"], [60, "1 h"], [240, "4 h"], [720, "12 h"], [1440, "24 h"]];
  // Of a moment that somebody goes to, so much of the sheet is before.
  const BEFORE = 0.25;
  const SETTLED_MS = 120;
  const ADDRESS_MS = 600;
  // What is being recorded grows; the list of beds, too.
  const GROWS_MS = 3000;
  const LIST_MS = 15_000;
  // Values at the cursor are of windows and seconds that ended so shortly before it.
  const KNOWN_MS = 2500;
  const STRIP_S = 30;
  const pages = new HistoryPages();
  const compare = new HistoryCompare();
  const state = {beds: null, bed: "", overview: null, alarms: [], at: null, left: 0, band: "monitor", pinned: null};
  let [sheet, line, leads] = [null, null, () => {}];
  let page = null;
  let playing = null;
  let shown = false;
  let comparing = false;
  let [asked, opened] = [0, 0];
  // What a link, or another view, wants to be shown of the bed that is opened next.
  let arriving = {};
  let [settling, addressing, growing, listing] = [0, 0, 0, 0];
  const rates = new Map();
  // Beds that are connected now.
  let live = new Set();

  // ---- where we are ----------------------------------------------------------------------------------------

  const seconds = () => Math.max(0.5, sheet.seconds(state.overview?.leads ?? []));
  const within = (at) => at >= state.left && at < state.left + seconds() * SECOND;

  function clamp(at) {
    const {from, to} = state.overview;
    return Math.min(Math.max(at, from), Math.max(from, to - SECOND / 2));
  }

  // Goes to a moment; `left` says where the sheet is to begin, if it has to be another one.
  function go(at, {left, middle = false, soon = false} = {}) {
    if (state.overview === null) return;
    state.at = clamp(at);
    if (left !== undefined || !within(state.at)) turn(left ?? state.at - BEFORE * seconds() * SECOND, soon);
    line.follow(state.at, middle);
    writeMoment();
    writeAddress();
  }

  // Another sheet, from a moment on. Those that somebody only passes are not fetched.
  function turn(left, soon) {
    // At the end it is full.
    state.left = Math.max(state.overview.from, Math.min(left, state.overview.to - seconds() * SECOND));
    // The sheet does not move by parts of a sample.
    state.left = Math.round(state.left);
    line.set({page: [state.left, state.left + seconds() * SECOND]});
    window.clearTimeout(settling);
    if (soon) settling = window.setTimeout(load, SETTLED_MS);
    else load();
  }

  async function load() {
    if (state.overview === null || !shown) return;
    asked += 1;
    const turnOf = asked;
    const now = () => asked === turnOf && shown;
    const wanted = pages.page(state.bed, state.left, seconds(), state.band);
    page = null;
    byId("hist-sheet").classList.add("loading");
    let packet;
    try {
      packet = await wanted.signal;
    } catch (error) {
      if (!now()) return;
      sheet.show(null);
      notice(sentence(error.message));
      return;
    }
    if (!now()) return;
    page = wanted;
    byId("hist-sheet").classList.remove("loading");
    const there = packet.leads.length > 0;
    sheet.show(there ? packet : null);
    notice(there ? sentence(packet.left_out) : "Nothing was recorded here", there);
    if (there) leads(packet.leads);
    // The words stay until there are others: mostly the sheet is known in a moment.
    byId("hist-state").dataset.state = "asked";
    if (wanted.findings !== null) learn(wanted.findings);
    if (comparing) compareNow();
    if (!there) {
      analysed("", "");
      return;
    }
    if (playing !== null) pages.page(state.bed, state.left + Math.round(seconds() * SECOND), seconds(), state.band);
    await pages.find(wanted, now, learn);
  }

  function notice(text, aside = false) {
    byId("hist-notice").hidden = text === "";
    byId("hist-notice").classList.toggle("aside", aside);
    write(byId("hist-notice"), text);
  }

  // Takes what the model says of the sheet, as far as it is known.
  function learn(found) {
    sheet.overlay(found);
    for (const [at, ...said] of found.windows ?? []) line.windows.set(at, said);
    for (const [at, rate] of found.rates ?? []) rates.set(at, rate);
    if (found.threshold !== undefined) {
      line.set({threshold: found.threshold});
      write(byId("hist-main").querySelector("[data-legend=hidden]"), found.hidden.length > 0 ? `not drawn: ${found.hidden.join("; ")}` : "");
    }
    if (found.state === "running") analysed("running", `${Math.round(100 * (found.progress ?? 0))} %`);
    else if (found.trouble) analysed("failed", found.trouble);
    else analysed("done", found.model ?? "");
    writeMoment();
  }

  function analysed(how, more) {
    const texts = {running: `analysing … ${more}`, done: more && `analysed by ${more}`, failed: `not analysed: ${more}`};
    const badge = byId("hist-state");
    badge.dataset.state = how;
    badge.hidden = !texts[how];
    restyle(badge, how === "failed" ? "badge late" : how === "running" ? "badge plain busy" : "badge plain");
    write(badge, texts[how] ?? "");
    badge.title = how === "running" ? "What the model says of these minutes is being computed, as bedside analyze does" : texts[how] ?? "";
  }

  // ---- what is written -------------------------------------------------------------------------------------

  // Of what ended at or before a moment, the last.
  function before(map, at) {
    let best = null;
    for (const [end, value] of map) if (end <= at + 500 && end > at - KNOWN_MS && (best === null || end > best[0])) best = [end, value];
    return best === null ? null : best[1];
  }

  function writeMoment() {
    const wall = words.wall(state.at);
    write(byId("hist-clock"), `${wall.slice(0, 10)} ${wall.slice(11, 21)}`);
    byId("hist-line").setAttribute("aria-valuetext", words.clock(state.at));
    const rate = before(rates, state.at);
    write(byId("hist-rate"), rate === null ? "–" : String(Math.round(rate)));
    const window_ = before(line.windows, state.at);
    write(byId("hist-score"), window_ === null ? "–" : window_[0].toFixed(1).replace("-", "−"));
    restyle(byId("hist-score"), window_?.[1] ? "over" : "");
    const held = window_?.[2] ?? line.threshold;
    const own = held === line.threshold ? "the model's own" : `which was in force for this bed; the model's own is ${line.threshold?.toFixed(2)}`;
    byId("hist-score").parentElement.title = `Anomaly score of the window that ends at the cursor${held === null ? "" : `; threshold ${held.toFixed(2)}, ${own}`}`;
    line.set({held});
    const input = byId("hist-goto");
    if (document.activeElement !== input) input.value = `${wall.slice(0, 10)} ${wall.slice(11, 19)}`;
    mark();
  }

  // The alarm that the cursor is in, or the last one before it.
  function current() {
    return state.alarms.findLast((alarm) => alarm.onset <= state.at + 1);
  }

  function mark() {
    const alarm = current();
    const holds = alarm !== undefined && (alarm.over ?? state.overview.to) >= state.at;
    if (line.chosen?.id !== (holds ? alarm.id : undefined)) line.set({chosen: holds ? alarm : undefined});
    for (const row of byId("hist-alarms").querySelectorAll("button")) {
      const own = holds && row.dataset.alarm === alarm.id;
      if ((row.getAttribute("aria-current") === "true") === own) continue;
      row.setAttribute("aria-current", String(own));
      if (own) row.scrollIntoView({block: "nearest"});
    }
  }

  function writeAlarms() {
    const list = byId("hist-alarms").querySelector("ol");
    const {alarms, overview} = state;
    const count = alarms.length === 0 ? "" : `${alarms.length}${overview.cut ? " newest" : ""}`;
    write(byId("hist-alarms").querySelector("h3 span"), count);
    list.replaceChildren();
    if (alarms.length === 0) write(element("li", "quiet none", list), "No alarm was recorded.");
    let day = "";
    for (const alarm of alarms) {
      const date = words.wall(alarm.onset).slice(0, 10);
      if (date !== day) write(element("li", "day quiet", list), date);
      day = date;
      const row = element("button", `${alarm.priority} ${alarm.technical ? "technical" : ""} acknowledged`, element("li", "", list));
      row.type = "button";
      row.dataset.alarm = alarm.id;
      write(element("span", "sign", row), words.sign(alarm));
      const text = element("span", "text", row);
      write(element("b", "message", text), alarm.message);
      const lasted = alarm.over === null ? "lasts" : words.duration(alarm.over - alarm.onset);
      write(element("span", "quiet", text), `${words.time(alarm.onset)} · ${lasted}`);
      row.addEventListener("click", () => jump(alarm));
    }
  }

  function writeAddress() {
    window.clearTimeout(addressing);
    addressing = window.setTimeout(() => {
      if (shown && state.at !== null) address({at: new Date(state.at).toISOString(), ref: state.pinned === null ? "" : new Date(state.pinned).toISOString()});
    }, ADDRESS_MS);
  }

  function writeSpan() {
    const choice = byId("hist-zoom");
    const minutes = line.span / MINUTE;
    const known = ZOOMS.find(([length]) => Math.abs(length - minutes) < 0.01);
    const last = choice.options[choice.options.length - 1];
    last.hidden = known !== undefined;
    last.text = words.duration(line.span);
    choice.value = known === undefined ? "" : String(known[0]);
  }

  // ---- beds ------------------------------------------------------------------------------------------------

  async function list() {
    window.clearTimeout(listing);
    if (!shown) return;
    let found;
    try {
      found = await HistoryPages.json("api/history");
    } catch (error) {
      if (state.beds === null) nothing("The recordings cannot be read", sentence(error.message), "");
      listing = window.setTimeout(list, GROWS_MS);
      return;
    }
    if (!shown) return;
    const first = state.beds === null;
    state.beds = found.beds;
    listing = window.setTimeout(list, LIST_MS);
    if (found.beds.length === 0) {
      nothing("Nothing is recorded yet", `bedside record --out ${found.folder}`, "records every bed; what it writes can be looked at here at once, and for as long as it is kept.", true);
      listing = window.setTimeout(list, GROWS_MS);
      return;
    }
    writeBeds();
    if (first || state.bed === "") open(wantedBed());
  }

  function wantedBed() {
    const names = state.beds.map(({bed}) => bed);
    const selected = window.bedside.selected();
    return selected || names[0];
  }

  function writeBeds() {
    const choice = byId("hist-bed");
    const names = state.beds.map(({bed}) => bed).sort((one, other) => one.localeCompare(other, "en", {numeric: true}));
    if (state.bed !== "" && !names.includes(state.bed)) names.unshift(state.bed);
    const there = [...choice.options].map((option) => option.value);
    if (names.join("\n") !== there.join("\n") && document.activeElement !== choice) {
      choice.replaceChildren(...names.map((bed) => new Option(bed, bed)));
    }
    choice.value = state.bed;
    writeLive();
  }

  function writeLive() {
    const button = byId("hist-live");
    button.disabled = !live.has(state.bed);
    button.title = button.disabled ? "This bed is not connected now" : "The bed as it is now (l)";
  }

  function nothing(title, text, more, command = false) {
    byId("hist-all").hidden = true;
    const box = byId("hist-none");
    box.hidden = false;
    const [head, line_, foot] = box.children;
    write(head, title);
    line_.replaceChildren();
    if (command) write(element("code", "", line_), text);
    else write(line_, text);
    write(foot, more);
  }

  // Shows a bed: where we were in it, or at its end, unless somebody wants another moment.
  async function open(bed) {
    pause();
    window.clearTimeout(growing);
    opened += 1;
    const turnOf = opened;
    if (bed !== state.bed) {
      pages.forget();
      rates.clear();
      line.windows.clear();
      line.set({threshold: null, held: null, envelope: null});
      state.pinned = null;
      Object.assign(state, {bed, overview: null, at: null});
    }
    Object.assign(state, arriving);
    arriving = {};
    let found;
    try {
      found = await HistoryPages.json(HistoryPages.path(bed));
    } catch (error) {
      if (opened !== turnOf) return;
      writeBeds();
      nothing(sentence(error.message).replace(/\.$/, ""), `bedside record --bed ${bed}`, "records it. Other beds are in the list of the history.", true);
      if (state.beds !== null && state.beds.length > 0) offerOthers();
      return;
    }
    if (opened !== turnOf || !shown) return;
    byId("hist-none").hidden = true;
    byId("hist-all").hidden = false;
    writeBeds();
    const zoomed = state.overview !== null;
    take(found);
    leads(found.leads);
    if (!zoomed) line.look(Math.min(line.span, Math.max(MINUTE, (found.to - found.from) * 1.05)));
    const at = clamp(state.at ?? found.to - (1 - BEFORE) * seconds() * SECOND);
    go(at, {left: at - BEFORE * seconds() * SECOND, middle: true});
    growing = window.setTimeout(grow, GROWS_MS);
  }

  function offerOthers() {
    const foot = byId("hist-none").children[2];
    write(foot, "Recorded are:");
    for (const {bed} of state.beds) {
      const button = element("button", "do", foot);
      button.type = "button";
      write(button, bed);
      button.addEventListener("click", () => select(bed));
    }
  }

  // When the condition of an alarm was over, ms; null while it lasts.
  function over({events}) {
    const last = events.findLast(({presence}) => presence === "on");
    const after = events.find(({presence, number}) => ["latched", "off"].includes(presence) && number > (last?.number ?? -1));
    return after === undefined ? null : after.since / 1e6;
  }

  function take(overview) {
    const feed = new AlarmFeed(() => {});
    for (const event of overview.alarms) feed.take(event);
    state.overview = overview;
    const alarms = [...feed.alarms.values()].sort((one, other) => one.onset - other.onset);
    // A condition is over when it latches; answered it may be much later.
    for (const alarm of alarms) alarm.over = over(alarm);
    const told = JSON.stringify(alarms.map(({id, events}) => [id, events.length]));
    // The lead of a rhythm strip, and what stands in for it.
    const lead = ["II", "I", "V1"].find((name) => overview.leads.includes(name)) ?? overview.leads[0];
    line.set({overview, alarms, lead});
    state.alarms = alarms;
    const until = overview.growing ? "now" : `${words.clock(overview.to)} · nothing is recorded now`;
    write(byId("hist-span"), `recorded ${words.clock(overview.from)} to ${until}`);
    if (told !== take.told || overview.bed !== take.bed) writeAlarms();
    [take.told, take.bed] = [told, overview.bed];
  }

  // What is being recorded goes on.
  async function grow() {
    const bed = state.bed;
    if (!shown) return;
    try {
      const known = new URLSearchParams({known: state.overview?.told ?? ""});
      const found = await HistoryPages.json(HistoryPages.path(bed, `?${known}`));
      if (!shown || state.bed !== bed || state.overview === null) return;
      // Of what is known already nothing is sent again.
      found.alarms ??= state.overview.alarms;
      const came = state.overview !== null && found.to > state.overview.to;
      // A sheet that was not full has more now.
      const open_ = came && state.overview.to < state.left + seconds() * SECOND;
      take(found);
      mark();
      if (came) line.refresh(envelope);
      if (open_) {
        pages.forget();
        load();
      }
    } catch {
      // The page says itself that the dashboard does not answer.
    }
    window.clearTimeout(growing);
    growing = window.setTimeout(grow, state.overview?.growing ? GROWS_MS : LIST_MS);
  }

  // ---- moving ----------------------------------------------------------------------------------------------

  function jump(alarm) {
    pause();
    go(alarm.onset, {left: alarm.onset - BEFORE * seconds() * SECOND, middle: line.span > 2 * MINUTE});
  }

  function step(by) {
    const {alarms, at} = state;
    const next = by > 0 ? alarms.find(({onset}) => onset > at + 1) : alarms.findLast(({onset}) => onset < at - 1);
    if (next !== undefined) jump(next);
  }

  function move(by) {
    go(state.at + by * SECOND, {soon: true});
  }

  // A time as people write it, on the day that is shown unless it says another.
  function goTo(text) {
    const found = /^(?:(\d{4}-\d\d-\d\d)[ T])?(\d?\d):(\d\d)(?::(\d\d))?$/.exec(text.trim());
    if (found === null) return;
    const [, day = words.wall(state.at).slice(0, 10), hour, minute, second = "00"] = found;
    const at = Date.parse(`${day}T${hour.padStart(2, "0")}:${minute}:${second}Z`) - Number(document.body.dataset.utcOffset) * SECOND;
    if (Number.isFinite(at)) go(at, {left: at - BEFORE * seconds() * SECOND, middle: true});
  }

  // A sheet on or back, the cursor at the same place.
  function leaf(by) {
    const long = seconds() * SECOND;
    const at = clamp(state.at + by * long);
    go(at, {left: state.left + (at - state.at), soon: true});
  }

  function zoom(by) {
    const at = line.x(state.at) >= 0 && line.x(state.at) <= line.box.clientWidth ? state.at : line.from + line.span / 2;
    const span = line.span * by;
    line.look(span, at - ((at - line.from) / line.span) * span);
  }

  function play() {
    if (state.overview === null) return;
    if (playing !== null) {
      pause();
      return;
    }
    if (state.at >= clamp(Infinity) - 1) go(state.overview.from);
    playing = performance.now();
    writePlay();
  }

  function pause() {
    playing = null;
    writePlay();
  }

  function writePlay() {
    const button = byId("hist-play");
    write(button, playing === null ? "▶ Play" : "❚❚ Pause");
    button.setAttribute("aria-pressed", String(playing !== null));
  }

  // The cursor goes on, over gaps at once; at the edge the sheet is turned. It waits for a sheet that is not there yet.
  function run(now) {
    const past = Math.min(now - playing, 250) * Number(byId("hist-speed").value);
    playing = now;
    if (page === null) return;
    let at = state.at + past;
    const {stretches, to} = state.overview;
    if (!stretches.some(([start, end]) => at >= start && at < end)) {
      const next = stretches.find(([start]) => start >= at);
      if (next === undefined) {
        if (!state.overview.growing) pause();
        at = Math.min(at, to);
      } else {
        at = next[0];
      }
    }
    if (within(at)) go(at);
    else go(at, {left: at < state.left + 1.5 * seconds() * SECOND ? state.left + Math.round(seconds() * SECOND) : at});
  }

  // ---- comparison and export -------------------------------------------------------------------------------

  function compareNow() {
    compare.show(state.bed, state.left, seconds(), state.pinned);
  }

  function toggleCompare() {
    comparing = !comparing;
    byId("hist-compare").setAttribute("aria-pressed", String(comparing));
    byId("hist-alarms").hidden = comparing;
    byId("hist-baseline").hidden = !comparing;
    byId("hist-aside").classList.toggle("wide", comparing);
    if (comparing) compareNow();
    else compare.stop();
  }

  function pin(at) {
    state.pinned = at;
    writeAddress();
    compareNow();
  }

  function writeForms() {
    const long = Number(byId("hist-long").value);
    for (const button of byId("hist-export").querySelectorAll("[data-form]")) {
      const strip = button.dataset.form !== "zip";
      button.disabled = button.dataset.busy === "yes" || (strip && long > STRIP_S);
      if (strip) button.title = long > STRIP_S ? `Strips have ${STRIP_S} s at most` : "A strip of ECG paper with what the model expected, true to scale when printed";
    }
  }

  async function exported(button) {
    const told = byId("hist-exported");
    const [from, to] = [state.at, state.at + Number(byId("hist-long").value) * SECOND];
    const address_ = HistoryPages.path(state.bed, `/export.${button.dataset.form}?from=${from}&to=${to}`);
    button.dataset.busy = "yes";
    writeForms();
    told.hidden = false;
    restyle(told, "busy");
    write(told, "Being made …");
    try {
      const answer = await HistoryPages.fetched(address_);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await answer.blob());
      link.download = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "ecg";
      link.click();
      window.setTimeout(() => URL.revokeObjectURL(link.href), MINUTE);
      restyle(told, "");
      write(told, `Saved as ${link.download}`);
    } catch (error) {
      restyle(told, "wrong");
      write(told, sentence(error.message));
    }
    button.dataset.busy = "";
    writeForms();
  }

  // ---- the view --------------------------------------------------------------------------------------------

  function frame(now) {
    if (!shown) return;
    if (state.overview !== null) {
      if (playing !== null) run(now);
      line.draw();
      // More or less fits since the window or the choice of leads has changed.
      if (sheet.stale && page !== null && Math.abs(page.seconds - seconds()) > 0.01) turn(state.left, true);
      sheet.draw(state.at);
    }
    window.requestAnimationFrame(frame);
  }

  const keys = {
    " ": play,
    ArrowLeft: (event) => move(event.shiftKey ? -60 : -10),
    ArrowRight: (event) => move(event.shiftKey ? 60 : 10),
    PageUp: () => leaf(-1),
    PageDown: () => leaf(1),
    Home: () => go(state.overview.from),
    End: () => go(Infinity),
    "[": () => step(-1),
    "]": () => step(1),
    "+": () => zoom(0.5),
    "-": () => zoom(2),
    g: () => byId("hist-goto").focus(),
    l: () => { if (live.has(state.bed)) select(state.bed, "bed"); },
    c: toggleCompare,
  };

  function press(event) {
    // A button that has the focus is pressed by the space bar.
    if (event.key === " " && event.target instanceof HTMLElement && event.target.closest("button, summary")) return false;
    if (keys[event.key] === undefined || state.overview === null) return false;
    keys[event.key](event);
    return true;
  }

  function start() {
    sheet = parts.historySheet = new HistorySheet(byId("hist-sheet"));
    line = new Timeline(byId("hist-line"), {
      onMoment: (at, alarm) => (alarm === undefined ? go(at, {soon: false}) : jump(alarm)),
      onRange: () => {
        writeSpan();
        line?.refresh(envelope);
      },
    });
    parts.historyLine = line;
    sheet.onLayout = parts.legend(byId("hist-main").querySelector(".legend"), sheet);
    for (const [minutes, label] of ZOOMS) byId("hist-zoom").add(new Option(label, minutes));
    byId("hist-zoom").add(new Option("", ""));
    leads = parts.controls.start({
      root: byId("hist-main").querySelector(".controls"),
      onLook: (look) => sheet.set(look),
      onBand: (band) => {
        state.band = band;
        load();
      },
    });
    parts.controls.closeMenus(byId("hist-head"));
    byId("hist-sheet").addEventListener("click", (event) => {
      const at = sheet.moment(event.clientX - sheet.canvas.getBoundingClientRect().left);
      if (at !== null) go(at, {left: state.left});
    });
    for (const button of byId("hist-transport").querySelectorAll("[data-move]")) {
      const [what, by] = button.dataset.move.split(":");
      button.addEventListener("click", () => (what === "alarm" ? step(Number(by)) : move(Number(what))));
    }
    for (const button of byId("hist-transport").querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
    }
    byId("hist-zoom").addEventListener("change", ({target}) => zoom((Number(target.value) * MINUTE) / line.span));
    byId("hist-play").addEventListener("click", play);
    byId("hist-bed").addEventListener("change", ({target}) => select(target.value));
    byId("hist-live").addEventListener("click", () => select(state.bed, "bed"));
    byId("hist-compare").addEventListener("click", toggleCompare);
    byId("hist-pin").addEventListener("click", () => pin(Math.round(state.at)));
    byId("hist-unpin").addEventListener("click", () => pin(null));
    byId("hist-long").addEventListener("change", writeForms);
    for (const button of byId("hist-export").querySelectorAll("[data-form]")) button.addEventListener("click", () => exported(button));
    const input = byId("hist-goto");
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.stopPropagation();
      input.blur();
      if (event.key === "Enter") goTo(input.value);
      writeMoment();
    });
    writeForms();
    const linked = new URL(window.location.href).searchParams;
    const moment = Date.parse(linked.get("at") ?? "");
    if (Number.isFinite(moment)) arriving.at = moment;
    const pinned = Date.parse(linked.get("ref") ?? "");
    if (Number.isFinite(pinned)) arriving.pinned = pinned;
  }

  async function envelope(from, to, width) {
    const query = new URLSearchParams({from, to, lead: line.lead, width});
    try {
      return await HistoryPages.json(HistoryPages.path(state.bed, `/envelope?${query}`));
    } catch {
      // It is there for looks; what is wrong is said of the sheet.
      return null;
    }
  }

  function enter() {
    shown = true;
    window.requestAnimationFrame(frame);
    const known = state.beds !== null;
    list();
    if (known) open(wantedBed());
  }

  function leave() {
    shown = false;
    pause();
    compare.stop();
    for (const timer of [settling, addressing, growing, listing]) window.clearTimeout(timer);
    address({at: "", ref: ""});
  }

  // For the other views: a bed at a moment, ms, or at its end.
  parts.openHistory = (bed, at = null) => {
    arriving = {at};
    select(bed, "history");
  };

  return {
    title: "History",
    key: "h",
    start,
    enter,
    leave,
    press,
    bed: (name) => { if (shown && state.beds !== null && name !== state.bed) open(name); },
    ward: ({beds = []}) => {
      live = new Set(beds.map(({bed}) => bed));
      writeLive();
    },
    theme: () => {
      sheet?.set({});
      line?.set({});
      compare.write();
    },
    keys: [
      ["Space", "play or pause"], ["← →", "ten seconds (Shift: a minute)"], ["Page Up, Page Down", "a sheet"],
      ["[ ]", "alarm before, next alarm"], ["+ −", "shorter or longer timeline"], ["g", "go to a time"],
      ["c", "compare with the baseline"], ["l", "live"], ["Home, End", "begin and end of the recording"],
    ],
  };
})());
