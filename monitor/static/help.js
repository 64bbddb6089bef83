// What the keys do, and the full screen.
"use strict";

(() => {
  const {bind, element, write, keys} = window.bedside;
  const byId = (id) => document.getElementById(id);

  function show() {
    const list = byId("help").querySelector("dl");
    list.replaceChildren();
    const {views, bound, shown} = keys();
    const lines = [...views.values()].filter(({key}) => key).map(({key, title}) => [key, `${title.toLowerCase()} view`]);
    for (const [key, {words}] of bound) lines.push([key, words]);
    for (const [key, words] of [...shown.keys ?? [], ...lines]) {
      write(element("dt", "", list), key);
      write(element("dd", "", list), words);
    }
    byId("help").showModal();
  }

  function fill() {
    if (document.fullscreenElement) document.exitFullscreen();
    // Where a browser does not allow it, the page stays as it is.
    else document.documentElement.requestFullscreen().catch(() => {});
  }

  bind("f", "full screen", fill);
  bind("?", "this list", show);
  document.addEventListener("DOMContentLoaded", () => {
    byId("full").addEventListener("click", fill);
    byId("keys").addEventListener("click", show);
  });
})();
