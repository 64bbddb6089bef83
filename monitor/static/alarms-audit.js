// Who asked for what, and what became of alarms; and whether the log still holds together.
"use strict";

window.bedside.parts.audit = (() => {
  const {element, write, restyle, sentence} = window.bedside;
  const byId = (id) => document.getElementById(id);
  const COUNT = 300;
  let asked = 0;

  async function fetched(path) {
    let answer, told;
    try {
      answer = await fetch(path, {cache: "no-store"});
      told = await answer.json();
    } catch {
      throw new Error("the dashboard does not answer");
    }
    if (!answer.ok) throw new Error(told.error);
    return told;
  }

  function row(entry, body) {
    // Loaded after this one.
    const words = window.bedside.parts.alarmWords;
    const line = element("tr", entry.done ? "" : "refused", body);
    write(element("td", "number", line), String(entry.number));
    write(element("td", "when", line), words.clock(entry.at / 1e6));
    write(element("td", "bed", line), words.bed(entry.bed));
    write(element("td", "what", line), entry.what);
    write(element("td", "", line), entry.who || "–");
    write(element("td", "", line), entry.outcome);
  }

  function nothing(title, more) {
    const box = byId("no-alarm");
    box.hidden = title === "";
    write(box.children[0], title);
    write(box.children[1], more);
    byId("tab-audit").querySelector("table").hidden = title !== "";
  }

  function chain(text, state) {
    restyle(byId("chain"), state);
    write(byId("chain"), text);
  }

  async function verify(turn) {
    chain("Checking whether the log holds together …", "checking");
    let told;
    try {
      told = await fetched("api/audit/verification");
    } catch (error) {
      if (turn === asked) chain(`The log was not checked: ${error.message}`, "unknown");
      return;
    }
    if (turn !== asked) return;
    const {ok, entries, anchor, head, problems} = told;
    if (ok && entries === 0) {
      chain("", "");
    } else if (ok) {
      const trimmed = anchor === 0 ? "" : " What came before is no longer kept.";
      chain(`✓ The log holds together: ${entries} ${entries === 1 ? "entry" : "entries"}, numbers ${anchor} to ${head.number}.${trimmed}`, "holds");
      byId("chain").title = `Digest of number ${head.number}: ${head.digest}`;
    } else {
      const first = problems.slice(0, 5).map((one) => (one.number === null ? one.what : `number ${one.number} ${one.what}`));
      const more = problems.length > 5 ? `; and ${problems.length - 5} more` : "";
      chain(`✕ The log was tampered with: ${first.join("; ")}${more}.`, "broken");
    }
  }

  async function list(turn, {bed, since}) {
    const query = new URLSearchParams({count: COUNT});
    if (bed) query.set("bed", bed);
    if (since) query.set("since", since);
    let told;
    try {
      told = await fetched(`api/audit?${query}`);
    } catch (error) {
      if (turn === asked) nothing("The log cannot be read", sentence(error.message));
      return;
    }
    if (turn !== asked) return;
    const body = byId("tab-audit").querySelector("tbody");
    body.replaceChildren();
    for (const entry of told.entries) row(entry, body);
    if (told.more) {
      const last = element("td", "quiet", element("tr", "", body));
      last.colSpan = 6;
      write(last, `These are the newest ${COUNT}; “bedside audit list” has all of them.`);
    }
    nothing(told.entries.length > 0 ? "" : "Nothing in the log", "What people ask for and what becomes of alarms is written down here.");
  }

  function show(filters) {
    asked += 1;
    const turn = asked;
    verify(turn);
    list(turn, filters);
  }

  return {show};
})();
