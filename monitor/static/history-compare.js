// What is shown beside the baseline of the patient: numbers, and the median beat of each lead over the usual one.
"use strict";

window.bedside.parts.HistoryCompare = (() => {
  const {element, write, parts, sentence} = window.bedside;
  const byId = (id) => document.getElementById(id);
  const AGAIN_MS = 500;
  // A page with fewer seconds has too few beats.
  const LEAST_S = 10;
  const [WIDE, HIGH] = [148, 96];
  // From this correlation on two beats have about the same shape, as in stream/vitals/morphology.py.
  const ALIKE = 0.85;

  const signed = (value, digits) => value.toFixed(digits).replace("-", "−");
  const clock = (at) => parts.alarmWords.clock(at);

  return class HistoryCompare {
    constructor() {
      this.wanted = null;
      this.found = null;
      this.written = null;
    }

    stop() {
      this.wanted = null;
    }

    // Compares a stretch of a bed; `pinned`: where a reference begins that somebody chose, or null.
    async show(bed, from, seconds, pinned) {
      const asked = {};
      this.wanted = asked;
      const query = new URLSearchParams({from, seconds: Math.max(seconds, LEAST_S)});
      if (pinned !== null) query.set("reference", pinned);
      byId("hist-unpin").hidden = pinned === null;
      while (this.wanted === asked) {
        let found;
        try {
          found = await parts.HistoryPages.json(parts.HistoryPages.path(bed, `/comparison?${query}`));
        } catch (error) {
          found = {state: "impossible", text: sentence(error.message)};
        }
        if (this.wanted !== asked) return;
        this.found = found;
        this.write();
        if (found.state !== "running") return;
        await new Promise((done) => window.setTimeout(done, AGAIN_MS));
      }
    }

    write() {
      const {found} = this;
      byId("hist-baseline").dataset.state = found?.state ?? "";
      const done = found?.state === "done";
      byId("hist-numbers").hidden = byId("hist-beats").hidden = byId("hist-how").hidden = !done;
      if (found === null) return;
      if (!done) {
        const told = found.state === "running" ? `The beats are being found … ${Math.round(found.progress * 100)} %` : found.text;
        write(byId("hist-words"), told);
        return;
      }
      this.writeWords(found);
      this.writeNumbers(found);
      this.writeBeats(found);
    }

    writeWords({reference, shown}) {
      const words = byId("hist-words");
      words.replaceChildren();
      element("i", "hist-usual", words);
      const end = parts.alarmWords.time(reference.to);
      words.append(`Reference: ${reference.why}, ${clock(reference.from)} to ${end} (${reference.beats} beats). `);
      element("i", "hist-shown", words);
      words.append(`Shown: ${clock(shown.from)} to ${parts.alarmWords.time(shown.to)} (${shown.beats} beats).`);
    }

    writeNumbers({reference, shown, above}) {
      const body = byId("hist-numbers").tBodies[0];
      body.replaceChildren();
      const row = (...cells) => {
        const line = element("tr", "", body);
        cells.forEach((text, place) => write(element(place === 0 ? "th" : "td", "", line), text));
      };
      row("", "reference", "shown");
      const rate = (one) => (one.rate === null ? "–" : `${Math.round(one.rate)} bpm`);
      row("Heart rate", rate(reference), rate(shown));
      const [, low, middle, high] = reference.scores;
      const usual = middle === undefined ? "–" : `${signed(low, 1)} to ${signed(high, 1)}`;
      row("Score", usual, shown.scores[0] === 0 ? "–" : signed(shown.scores[2], 1));
      if (above !== null) {
        const part = above === 1 ? "all" : above === 0 ? "none" : `${Math.min(99, Math.max(1, Math.round(above * 100)))} %`;
        const line = element("tr", "", body);
        const told = element("td", "quiet", line);
        told.colSpan = 3;
        write(told, `Of the reference: 5th to 95th percentile of ${reference.scores[0]} windows. What is shown scores higher than ${part} of them.`);
      }
    }

    writeBeats(found) {
      const box = byId("hist-beats");
      box.replaceChildren();
      const values = found.leads.flatMap(({reference, shown}) => [...reference ?? [], ...shown ?? []]);
      const [low, high] = [Math.min(-300, ...values), Math.max(500, ...values)];
      for (const lead of found.leads) {
        const cell = element("figure", "", box);
        cell.dataset.lead = lead.lead;
        this.draw(element("canvas", "", cell), lead, found, low, high);
        const words = element("figcaption", "", cell);
        write(element("b", "", words), lead.lead);
        const r = (value) => (value === null ? "–" : signed(value, 2));
        write(element("span", "", words), `R ${r(lead.r_reference)} → ${r(lead.r_shown)}`);
        const alike = element("span", lead.correlation !== null && lead.correlation < ALIKE ? "unlike" : "", words);
        write(alike, lead.correlation === null ? "no beat" : `r ${signed(lead.correlation, 2)}`);
      }
    }

    draw(canvas, {reference, shown}, {fs, before_s: before}, low, high) {
      const dots = window.devicePixelRatio;
      [canvas.width, canvas.height] = [WIDE * dots, HIGH * dots];
      [canvas.style.width, canvas.style.height] = [`${WIDE}px`, `${HIGH}px`];
      const context = canvas.getContext("2d");
      context.scale(dots, dots);
      const styles = window.getComputedStyle(canvas);
      const ink = (name) => styles.getPropertyValue(`--${name}`).trim();
      context.fillStyle = ink("paper");
      context.fillRect(0, 0, WIDE, HIGH);
      const n = (reference ?? shown ?? []).length;
      const x = (place) => (place / Math.max(1, n - 1)) * WIDE;
      const y = (value) => 4 + ((high - value) / (high - low)) * (HIGH - 8);
      // Half a millivolt and a fifth of a second: large squares.
      context.fillStyle = ink("major");
      for (let value = Math.ceil(low / 500) * 500; value <= high; value += 500) context.fillRect(0, y(value), WIDE, 0.75);
      for (let at = before % 0.2; at * fs < n; at += 0.2) context.fillRect(x(at * fs), 0, 0.75, HIGH);
      for (const [wave, colour, wide] of [[reference, ink("beat"), 2.4], [shown, ink("trace"), 1.3]]) {
        if (wave === null) continue;
        context.strokeStyle = colour;
        context.lineWidth = wide;
        context.lineJoin = "round";
        context.beginPath();
        wave.forEach((value, place) => context.lineTo(x(place), y(value)));
        context.stroke();
      }
    }
  };
})();
