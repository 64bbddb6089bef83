// Fetches what was recorded: sheets of signal, what the model says of them, and the overview of a bed. A sheet that
// has been fetched is kept for a while: people go back and forth.
"use strict";

window.bedside.parts.HistoryPages = (() => {
  const KINDS = {int16: Int16Array, uint8: Uint8Array};
  const KEPT = 16;
  const AGAIN_MS = 400;

  const path = (bed, rest = "") => `api/history/${encodeURIComponent(bed)}${rest}`;

  async function fetched(address) {
    let answer;
    try {
      answer = await fetch(address, {cache: "no-store"});
    } catch {
      throw new Error("the dashboard does not answer");
    }
    if (answer.ok) return answer;
    let told = {};
    try {
      told = await answer.json();
    } catch {
      // A proxy's page.
    }
    throw new Error(told.error ?? `error ${answer.status}`);
  }

  const json = async (address) => (await fetched(address)).json();

  // A line of JSON, and arrays behind it; see monitor/history/handlers.py.
  async function packet(address) {
    const raw = await (await fetched(address)).arrayBuffer();
    const bytes = new Uint8Array(raw);
    const end = bytes.indexOf(10);
    const {arrays, ...found} = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
    for (const {name, kind, at, length} of arrays) found[name] = new KINDS[kind](raw, end + 1 + at, length);
    return found;
  }

  const pause = (ms) => new Promise((done) => window.setTimeout(done, ms));

  return class HistoryPages {
    constructor() {
      this.pages = new Map();
    }

    static json = json;
    static fetched = fetched;
    static path = path;

    forget() {
      this.pages.clear();
    }

    // A sheet: its signal as a promise; the findings are kept with it once they are there.
    page(bed, from, seconds, band) {
      const query = `from=${from}&seconds=${seconds}`;
      const key = `${bed}\n${query}\n${band}`;
      let page = this.pages.get(key);
      if (page === undefined) {
        page = {bed, from, seconds, query, findings: null, signal: packet(path(bed, `/signal?${query}&band=${band}`))};
        page.signal.catch(() => this.pages.delete(key));
        this.pages.set(key, page);
        if (this.pages.size > KEPT) this.pages.delete(this.pages.keys().next().value);
      }
      return page;
    }

    // Asks for what the model says of a sheet until it is there; `wanted()` tells whether somebody still looks,
    // `heard(findings)` hears of each step.
    async find(page, wanted, heard) {
      while (wanted()) {
        let found;
        try {
          found = page.findings ?? await packet(path(page.bed, `/findings?${page.query}`));
        } catch (error) {
          found = {state: "failed", trouble: error.message};
        }
        if (!wanted()) return;
        if (found.state === "done" && !found.trouble) page.findings = found;
        heard(found);
        if (found.state !== "running") return;
        await pause(AGAIN_MS);
      }
    }
  };
})();
