// Signing in. The page stands where the live page will be: whoever signs in loads the same address again.
"use strict";

(() => {
  const path = document.body.dataset.path;
  // Beside the proxy, where the session's cookie does not count.
  if (!window.location.pathname.startsWith(`${path}/`)) {
    window.location.replace(`${path}${window.location.pathname}${window.location.search}`);
    return;
  }
  const form = document.querySelector("form");
  const kept = window.localStorage.getItem("bedside-theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = kept ?? (dark ? "dark" : "light");
  if (form === null) return;
  const refused = document.getElementById("refused");
  const button = form.querySelector("button");
  const user = document.getElementById("user");
  const password = document.getElementById("password");

  function goOn() {
    const here = new URL(window.location.href);
    window.location.replace(here.pathname === `${path}/login` ? `${path}/` : here);
  }

  function refuse(text) {
    refused.textContent = text;
    refused.hidden = text === "";
  }

  // A link on another site leads here without the session's cookie, although there is one.
  async function lookForSession() {
    const me = await (await fetch(`${path}/api/me`, {cache: "no-store"})).json();
    if (me.user !== null) goOn();
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    refuse("");
    button.disabled = true;
    try {
      const answer = await fetch(`${path}/login`, {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({user: user.value, password: password.value}),
      });
      if (answer.ok) {
        goOn();
        return;
      }
      const {error} = await answer.json();
      refuse(`${error[0].toUpperCase()}${error.slice(1)}.`);
      password.select();
    } catch {
      refuse("The dashboard does not answer. Try again.");
    }
    button.disabled = false;
  });

  if (window.sessionStorage.getItem("bedside-signed-in") !== null) {
    window.sessionStorage.removeItem("bedside-signed-in");
    refuse("Your session has ended. Sign in again.");
  }
  user.focus();
  lookForSession().catch(() => {});
})();
