// Asking the server for something in a person's name, for all views.
//
//   await window.bedside.who()                   the name under which it is recorded; null if none was given
//   await window.bedside.ask(path, body, tell)   POSTs JSON; the answer, or null after its failure was told:
//                                                to tell(text), which is first called with ""
"use strict";

(() => {
  const KEPT = "bedside-who";
  const byId = (id) => document.getElementById(id);

  // The page asks once, and remembers.
  function who() {
    const kept = window.localStorage.getItem(KEPT);
    if (kept) return Promise.resolve(kept);
    return new Promise((done) => {
      const dialog = byId("who");
      dialog.returnValue = "";
      dialog.addEventListener("close", () => {
        const name = dialog.returnValue === "ok" ? byId("who-name").value.trim() : "";
        if (name) window.localStorage.setItem(KEPT, name);
        done(name || null);
      }, {once: true});
      dialog.showModal();
    });
  }

  async function ask(path, body, tell) {
    tell("");
    const name = await who();
    if (name === null) return null;
    try {
      const answer = await fetch(path, {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({...body, who: name}),
      });
      const told = await answer.json();
      if (answer.ok) return told;
      // What a worker refuses is an audit entry, with a message.
      tell(told.error ?? told.message);
    } catch {
      tell("The dashboard does not answer: it is not known whether it was done.");
    }
    return null;
  }

  Object.assign(window.bedside, {who, ask});
})();
