// Asking for something, for all views: who asks, how it is sent, and what to say when it does not work.
//
//   await window.bedside.who()                   the name under which it is recorded; null if none was given
//   await window.bedside.ask(path, body, tell)   POSTs JSON; the answer, or null after its failure was told:
//                                                to tell(text), which is first called with "", or as a note
//   window.bedside.barred()                      why this user may ask for nothing; "" for who may
//   window.bedside.operators(button)             a button for operators only: viewers are told why it is dead
"use strict";

(() => {
  // An open page is not idle; see monitor/login/sessions.py.
  const RENEW_MS = 240_000;
  const ENDS_SOON_S = 900;
  const KEPT = "bedside-who";
  // The page to sign in says that a session has ended if it was not left on purpose.
  const SIGNED_IN = "bedside-signed-in";
  const NOTE_MS = 10_000;
  const {element, write} = window.bedside;
  const byId = (id) => document.getElementById(id);
  const me = {login: false, user: null, role: "operator", until: null};
  const barred = () => (me.role === "operator" ? "" : "Operators only: you are signed in as a viewer.");
  let asking = null;

  function sentence(text) {
    const trimmed = text.trim();
    if (trimmed === "") return "";
    return trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
  }

  // By the clock on the wall where the dashboard runs; with the date if it is another day.
  function wall(seconds) {
    const at = (moment) => new Date((moment + Number(document.body.dataset.utcOffset)) * 1000).toISOString();
    const [date, time] = at(seconds).slice(0, 16).split("T");
    return date === at(Date.now() / 1000).slice(0, 10) ? time : `${time} on ${date}`;
  }

  function note(text) {
    if (text === "") return;
    const shown = element("p", "note", byId("notes"));
    write(shown, text);
    window.setTimeout(() => shown.remove(), NOTE_MS);
  }

  function operators(button) {
    if (barred() !== "") {
      button.disabled = true;
      button.title = barred();
    }
    return button;
  }

  function writeUser() {
    const name = me.login ? me.user : window.localStorage.getItem(KEPT);
    const button = byId("user");
    button.hidden = !me.login && !name;
    const left = me.until === null ? Infinity : me.until - Date.now() / 1000;
    const ends = left < ENDS_SOON_S ? ` · session ends at ${wall(me.until)}` : "";
    write(button, `${name ?? ""}${me.role === "viewer" ? " (viewer)" : ""}${ends}`);
    button.title = me.login ? "Signed in; sign out" : "Under this name your requests are recorded; change it";
  }

  // Without a login the page asks once, and remembers.
  async function who() {
    if (me.login) return me.user;
    return window.localStorage.getItem(KEPT) || nameAsked();
  }

  function nameAsked() {
    asking ??= new Promise((done) => {
      const dialog = byId("who");
      const input = byId("who-name");
      input.value = window.localStorage.getItem(KEPT) ?? "";
      dialog.returnValue = "";
      dialog.addEventListener("close", () => {
        asking = null;
        const name = dialog.returnValue === "ok" ? input.value.trim() : "";
        if (name) window.localStorage.setItem(KEPT, name);
        writeUser();
        done(name || null);
      }, {once: true});
      dialog.showModal();
      input.select();
    });
    return asking;
  }

  async function ask(path, body = {}, tell = note) {
    tell(barred());
    if (barred() !== "") return null;
    const name = await who();
    if (name === null) return null;
    let answer, told;
    try {
      answer = await fetch(path, {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({...body, who: name}),
      });
      told = await answer.json();
    } catch {
      tell("The dashboard does not answer: it is not known whether it was done.");
      return null;
    }
    if (answer.ok) return told;
    if (answer.status === 401) signedOut();
    // What a worker refuses is an audit entry, with a message.
    tell(sentence(told.error ?? told.message ?? `error ${answer.status}`));
    return null;
  }

  function signedOut() {
    window.location.reload();
  }

  async function renew() {
    try {
      const answer = await (await fetch("api/me", {cache: "no-store"})).json();
      if (me.login && answer.user === null) signedOut();
      me.until = answer.until;
      writeUser();
    } catch {
      // The page says itself that the dashboard does not answer.
    }
  }

  async function signOut() {
    try {
      await fetch("logout", {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"});
    } catch {
      note("The dashboard does not answer: you are still signed in.");
      return;
    }
    window.sessionStorage.removeItem(SIGNED_IN);
    window.location.reload();
  }

  function start() {
    const {login, user, role} = document.body.dataset;
    Object.assign(me, {login: login === "yes", user: user || null, role: role || "operator"});
    byId("user").addEventListener("click", () => {
      if (!me.login) {
        nameAsked();
        return;
      }
      write(byId("signed-in"), `You are signed in as ${me.user}, ${me.role}.`);
      write(byId("session-ends"), me.until === null ? "" : `The session ends at ${wall(me.until)}.`);
      byId("account").showModal();
    });
    byId("sign-out").addEventListener("click", signOut);
    byId("who-cancel").addEventListener("click", () => byId("who").close());
    writeUser();
    if (me.login) {
      window.sessionStorage.setItem(SIGNED_IN, "yes");
      renew();
      window.setInterval(renew, RENEW_MS);
    }
  }

  Object.assign(window.bedside, {who, ask, barred, operators, sentence});
  document.addEventListener("DOMContentLoaded", start);
})();
