// The page's shell: which view is shown, what is wrong with the whole, and that the browser draws. Each view is
// a script of its own that registers here, and is told what concerns all views; see `register`.
"use strict";

window.bedside = (() => {
  // The server speaks at least once a second. Counted in turns of a timer, not in time: a browser that was busy
  // itself has not listened.
  const TURN_MS = 1000;
  const SILENT_TURNS = 4;
  const BEAT_MS = 500;
  // Frames, those of them that drew new samples of a bed, and patches of Bokeh's sources.
  const counters = {frames: 0, painted: 0, patches: 0};
  const byId = (id) => document.getElementById(id);
  const views = new Map();
  const followers = [];
  const bound = new Map();
  let page = null;
  let ward = {};
  let shown = "";
  let silent = 0;

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

  // Makes a view known. What it may have, all of it optional:
  //   title, key            its name in the bar, and the key that shows it
  //   start(models)         once, with the models that the server gives to the view
  //   enter(), leave()      when it is shown and when it no longer is
  //   ward(ward)            the list of beds, once a second and when an alarm changes
  //   bed(name)             another bed has been selected
  //   theme()               the colours have changed
  //   press(event)          a key while it is shown; true if it was for the view
  //   keys                  [key, what it does] of those, for the page of help
  function register(name, view) {
    views.set(name, view);
  }

  // For the shell's own scripts: who wants the list of beds, and who has a key in every view.
  function follow(callback) {
    followers.push(callback);
  }

  function bind(key, words, action) {
    bound.set(key, {words, action});
  }

  function address(changes) {
    const now = new URL(window.location.href);
    for (const [key, value] of Object.entries(changes)) {
      if (value) now.searchParams.set(key, value);
      else now.searchParams.delete(key);
    }
    window.history.replaceState(null, "", now);
  }

  function show(name) {
    if (!views.has(name) || name === shown) return;
    views.get(shown)?.leave?.();
    shown = name;
    for (const other of views.keys()) byId(`view-${other}`).hidden = other !== name;
    for (const button of byId("views").children) {
      button.setAttribute("aria-current", button.dataset.view === name ? "page" : "false");
    }
    document.body.dataset.view = name;
    page.view = name;
    address({view: name});
    views.get(name).enter?.();
    window.dispatchEvent(new Event("resize"));
  }

  // Selects a bed, in whatever view; `then` names a view to go on in.
  function select(bed, then) {
    page.selected = bed;
    address({bed});
    for (const view of views.values()) view.bed?.(bed);
    if (then !== undefined) show(then);
  }

  function writeWard(text) {
    ward = JSON.parse(text);
    const beds = ward.beds ?? [];
    document.body.classList.toggle("vacant", beds.length === 0);
    document.body.classList.toggle("lost", ward.lost === true);
    const trouble = byId("trouble");
    trouble.hidden = !ward.trouble;
    restyle(trouble, ward.lost ? "lost" : "worker");
    write(trouble, ward.trouble ?? "");
    const alarmed = beds.filter((line) => line.level !== "none" && line.level !== "info").length;
    const count = `${beds.length} ${beds.length === 1 ? "bed" : "beds"}`;
    write(byId("count"), alarmed ? `${count}, ${alarmed} with alarm` : count);
    document.title = alarmed ? `(${alarmed}) Bedside` : "Bedside";
    for (const view of views.values()) view.ward?.(ward);
    for (const tell of followers) tell(ward);
  }

  function theme(wanted) {
    const dark = wanted === "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    window.localStorage.setItem("bedside-theme", dark ? "dark" : "light");
    page.dark = dark;
    for (const view of views.values()) view.theme?.();
  }

  function press(event) {
    const typing = event.target instanceof HTMLElement && event.target.closest("input, select, textarea, dialog");
    if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
    if (views.get(shown)?.press?.(event)) {
      event.preventDefault();
      return;
    }
    bound.get(event.key)?.action();
    for (const [name, view] of views) if (view.key === event.key) show(name);
  }

  function changeTheme() {
    theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  }

  // A hidden tab gets no animation frames: then nothing is drawn, and the server is not told that it is.
  function beat(time) {
    counters.frames += 1;
    if (time - beat.last >= BEAT_MS && silent < SILENT_TURNS) {
      beat.last = time;
      page.drawn += 1;
    }
    window.requestAnimationFrame(beat);
  }
  beat.last = 0;

  async function watchServer() {
    silent += 1;
    if (silent < SILENT_TURNS) return;
    document.body.classList.add("lost");
    const trouble = byId("trouble");
    trouble.hidden = false;
    restyle(trouble, "lost");
    write(trouble, "The dashboard does not answer: what you see is old");
    try {
      const answer = await fetch("healthz", {cache: "no-store"});
      // It is there again, and knows nothing of this page any more: begin anew.
      if (answer.status === 200 && silent >= SILENT_TURNS) window.location.reload();
    } catch {
      // Not yet.
    }
  }

  // Calls back when a property of a model changes; the server has been heard of then.
  function on(model, property, callback) {
    model.properties[property].change.connect(() => {
      silent = 0;
      callback(model[property]);
    });
  }

  function start(state, models) {
    page = state;
    const bar = byId("views");
    for (const [name, view] of views) {
      const button = element("button", "", bar);
      button.type = "button";
      button.dataset.view = name;
      button.title = `${view.title} (${view.key})`;
      button.textContent = view.title;
      button.addEventListener("click", () => show(name));
    }
    const preferred = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    theme(window.localStorage.getItem("bedside-theme") ?? preferred);
    byId("theme").addEventListener("click", changeTheme);
    bind("d", "dark or light", changeTheme);
    bind("Escape", "back to the first view", () => show(views.keys().next().value));
    // What flashes does so together: one rhythm is told from another, a crowd of them is not.
    document.addEventListener("animationstart", ({target}) => {
      for (const flashing of target.getAnimations()) flashing.startTime = 0;
    });
    for (const [name, view] of views) view.start?.(models[name] ?? {});
    on(page, "ward", writeWard);
    writeWard(page.ward);
    document.body.classList.remove("starting");
    show(views.has(page.view) ? page.view : views.keys().next().value);
    document.addEventListener("keydown", press);
    state.document.on_event("connection_lost", () => {
      silent = SILENT_TURNS;
      watchServer();
    });
    window.requestAnimationFrame(beat);
    window.setInterval(watchServer, TURN_MS);
  }

  return {
    start, register, follow, bind, show, select, on, address, element, write, restyle, counters, parts: {},
    keys: () => ({views, bound, shown: views.get(shown)}),
    heard: () => { silent = 0; },
    selected: () => page.selected,
    state: () => page,
  };
})();
