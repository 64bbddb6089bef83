// How the leads are drawn: which of them, what over them, how fast, how high and at what scale. What a person chooses
// is kept in the browser, and holds for all beds.
"use strict";

window.bedside.parts.controls = (() => {
  const {element, write} = window.bedside;
  const byId = (id) => document.getElementById(id);
  const KEY = "bedside-bed";
  const LIMB = ["I", "II", "III", "aVR", "aVL", "aVF"];
  const PRECORDIAL = ["V1", "V2", "V3", "V4", "V5", "V6"];
  // The lead of a rhythm strip, and what stands in for it.
  const RHYTHM = ["II", "MLII", "I", "V1"];
  const LAYERS = {
    expected: "expected by the model",
    error: "error of each point",
    attention: "attention of the model",
    quality: "poor signal in grey",
    beats: "beats",
  };
  // CSS says that an inch has 96 pixels; what a screen makes of it a person may measure.
  const PX_PER_MM = 96 / 25.4;
  // A sheet of ten seconds at 25 mm/s, with its margins.
  const FIT_MM = 260;
  const CARD_MM = [85.6, 53.98];

  // Every bar of controls marks what is chosen: two views have one.
  const bars = [];
  const chosen = {set: "all", leads: [], speed: 25, size: 0, band: "monitor", scale: "true", calibrated: null, show: {}};

  function recall() {
    try {
      Object.assign(chosen, JSON.parse(window.localStorage.getItem(KEY) ?? "{}"));
    } catch {
      // Not ours: what is chosen by default holds.
    }
    chosen.show = Object.fromEntries(Object.keys(LAYERS).map((layer) => [layer, chosen.show?.[layer] !== false]));
  }

  function keep() {
    window.localStorage.setItem(KEY, JSON.stringify(chosen));
  }

  // Sets of leads of which the feed has some, and not all: name, label, leads.
  function sets(all) {
    const rhythm = RHYTHM.find((lead) => all.includes(lead));
    const found = [
      ["all", all.length > 1 ? `All ${all.length}` : all[0], all],
      ["limb", "Limb", all.filter((lead) => LIMB.includes(lead))],
      ["precordial", "Precordial", all.filter((lead) => PRECORDIAL.includes(lead))],
      ["rhythm", rhythm ?? "", rhythm === undefined ? [] : [rhythm]],
    ];
    return found.filter(([name, , leads]) => name === "all" || (leads.length > 0 && leads.length < all.length));
  }

  // Leads that are drawn of a feed: those chosen that it has, or all.
  function leadsOf(all) {
    if (chosen.set === "own") {
      const own = all.filter((lead) => chosen.leads.includes(lead));
      return own.length > 0 ? own : all;
    }
    return sets(all).find(([name]) => name === chosen.set)?.[2] ?? all;
  }

  // Pixels a millimetre of this screen. A browser that is zoomed changes how large its pixels are.
  function trueScale() {
    const measured = chosen.calibrated;
    return measured === null ? PX_PER_MM : (measured.scale * measured.dots) / window.devicePixelRatio;
  }

  function scale(width) {
    return chosen.scale === "fit" ? Math.max(1, width / FIT_MM) : trueScale();
  }

  // How large a millimetre of the paper is, in words.
  function scaleWords(used) {
    const part = used / trueScale();
    if (Math.abs(part - 1) >= 0.005) return `${part > 1 ? "enlarged" : "reduced"} to ${Math.round(part * 100)} %`;
    return chosen.calibrated === null ? "true size, not calibrated" : "true size";
  }

  function check(panel, label, checked, change) {
    const line = element("label", "", panel);
    const box = element("input", "", line);
    box.type = "checkbox";
    box.checked = checked;
    box.addEventListener("change", () => change(box.checked));
    line.append(label);
    return box;
  }

  // `root`: the bar, with elements of `data-control`; `onLook(look)` is told of what is chosen, for a sheet, and
  // `onBand(band)` of the filter. Returns a function that is to be called with the names of the feed's leads.
  function start({root, onLook, onBand}) {
    if (bars.length === 0) recall();
    const control = (name) => root.querySelector(`[data-control=${name}]`);
    let all = [];
    let band = chosen.band;
    const boxes = new Map();

    function look() {
      const {speed, size, show} = chosen;
      onLook({leads: leadsOf(all), speed, size, show: {...show}, scale});
    }

    function change(changes) {
      Object.assign(chosen, changes);
      keep();
      for (const bar of bars) bar();
    }

    // What is chosen in one view holds in the other.
    function follow() {
      mark();
      look();
      if (band !== chosen.band) {
        band = chosen.band;
        onBand(band);
      }
    }

    function mark() {
      for (const name of ["speed", "size", "band", "scale"]) control(name).value = String(chosen[name]);
      for (const box of control("layers").querySelectorAll("input")) box.checked = chosen.show[box.name];
      for (const button of control("lead-sets").children) {
        button.setAttribute("aria-pressed", String(button.dataset.set === chosen.set));
      }
      const drawn = leadsOf(all);
      boxes.forEach((tick, lead) => { tick.checked = drawn.includes(lead); });
      write(control("leads").querySelector("summary"), chosen.set === "own" ? `Leads: ${drawn.join(" ")}` : "Leads");
    }

    function tick(lead, wanted) {
      const drawn = leadsOf(all).filter((other) => other !== lead);
      if (wanted) drawn.push(lead);
      // The last lead stays: an empty sheet tells nothing.
      if (drawn.length > 0) change({set: drawn.length === all.length ? "all" : "own", leads: drawn});
      else mark();
    }

    function leads(names) {
      if (names.join(" ") === all.join(" ")) return;
      all = names;
      const group = control("lead-sets");
      const panel = control("leads").querySelector(".panel");
      group.replaceChildren();
      panel.replaceChildren();
      boxes.clear();
      for (const [name, label] of sets(all)) {
        const button = element("button", "", group);
        button.type = "button";
        button.dataset.set = name;
        button.textContent = label;
        button.addEventListener("click", () => change({set: name}));
      }
      for (const lead of all) boxes.set(lead, check(panel, lead, true, (wanted) => tick(lead, wanted)));
      control("leads").hidden = group.hidden = all.length < 2;
      mark();
      look();
    }

    for (const [layer, label] of Object.entries(LAYERS)) {
      const tickBox = check(control("layers").querySelector(".panel"), label, chosen.show[layer], (wanted) => {
        change({show: {...chosen.show, [layer]: wanted}});
      });
      tickBox.name = layer;
    }
    for (const [name, read] of [["speed", Number], ["size", Number], ["band", String]]) {
      control(name).addEventListener("change", ({target}) => change({[name]: read(target.value)}));
    }
    control("scale").addEventListener("change", ({target}) => {
      if (target.value !== "calibrate") change({scale: target.value});
      else calibrate(() => change({scale: "true"}));
      target.value = chosen.scale;
    });
    closeMenus(root);
    bars.push(follow);
    if (band !== "monitor") onBand(band);
    mark();
    look();
    return leads;
  }

  // A menu closes when something else is clicked, and with Escape.
  function closeMenus(root) {
    const menus = [...root.querySelectorAll("details.menu")];
    document.addEventListener("pointerdown", ({target}) => {
      for (const menu of menus) if (!menu.contains(target)) menu.open = false;
    });
    for (const menu of menus) {
      menu.addEventListener("keydown", (event) => {
        if (event.key !== "Escape" || !menu.open) return;
        // Elsewhere it leads back to the first view.
        event.stopPropagation();
        menu.open = false;
        menu.querySelector("summary").focus();
      });
    }
  }

  function calibrate(done) {
    const dialog = byId("calibration");
    const slider = byId("dots");
    const draw = () => {
      const wide = Number(slider.value);
      byId("card").style.width = `${CARD_MM[0] * wide}px`;
      byId("card").style.height = `${CARD_MM[1] * wide}px`;
      byId("ruler").style.width = `${100 * wide}px`;
      byId("ruler").style.setProperty("--mm", `${wide}px`);
      write(byId("dots-words"), `${wide.toFixed(2)} pixels a millimetre; the ruler is 100 mm long`);
    };
    slider.value = String(trueScale());
    slider.oninput = draw;
    dialog.onclose = () => {
      if (dialog.returnValue === "keep") {
        chosen.calibrated = {scale: Number(slider.value), dots: window.devicePixelRatio};
      } else if (dialog.returnValue === "reset") {
        chosen.calibrated = null;
      } else {
        return;
      }
      done();
    };
    draw();
    dialog.returnValue = "cancel";
    dialog.showModal();
  }

  return {start, scaleWords, closeMenus};
})();
