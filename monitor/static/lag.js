// How far the page is behind: said in the bar, and what has been taken to the server, which sends nothing new while too
// much is on its way.
"use strict";

(() => {
  const {follow, state, write} = window.bedside;
  // A list of beds comes each second, and may come late by another one.
  const BEHIND_MS = 2000;
  const TURN_MS = 250;
  // A minute of lists: the fastest of them was not held up, and two clocks do not part by more than they can be read.
  const REMEMBERED = 60;
  // How long the last lists were on their way, by two clocks that differ by an unknown constant.
  const transit = [];
  let made = null;

  function take({number, made_ms: madeMs}) {
    if (number === undefined) return;
    made = madeMs;
    transit.push(performance.now() - made);
    if (transit.length > REMEMBERED) transit.shift();
    state().taken = number;
  }

  function tell() {
    if (made === null) return;
    const age = performance.now() - made - Math.min(...transit);
    const badge = document.getElementById("lag");
    badge.hidden = age <= BEHIND_MS;
    write(badge, `${Math.floor(age / 1000)} s behind live`);
  }

  follow(take);
  window.setInterval(tell, TURN_MS);
})();
