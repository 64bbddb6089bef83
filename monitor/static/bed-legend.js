// The legend below a sheet has what is on it, and at what scale.
"use strict";

// Returns a function that writes it, to be called with the layout when the sheet is drawn anew.
window.bedside.parts.legend = (root, sheet) => {
  const {write, parts} = window.bedside;
  const part = (name) => root.querySelector(`[data-legend=${name}]`);
  let lines = {width: 0, height: 0};
  return ({speed, size, scale}) => {
    const {board, look} = sheet;
    const there = {
      quality: true,
      expected: board?.has.expected,
      error: board?.has.expected,
      attention: board?.has.attention || board?.has.temporal,
      beats: true,
    };
    for (const item of root.querySelectorAll("[data-layer]")) {
      item.hidden = !(look.show[item.dataset.layer] && there[item.dataset.layer]);
    }
    part("hidden").hidden = !look.show.attention;
    part("band").hidden = !board?.has.spread;
    if (board) write(part("error"), `error 0–${board.errorMost} ${board.errorUnit}`);
    write(part("paper"), `${speed} mm/s · ${size} mm/mV · ${parts.controls.scaleWords(scale)}`);
    // What is told hangs on the sheet, and the sheet on the room that is left: no line is given back at one width.
    if (lines.width !== root.clientWidth) {
      lines = {width: root.clientWidth, height: 0};
      root.style.minHeight = "";
    }
    lines.height = Math.max(lines.height, root.offsetHeight);
    root.style.minHeight = `${lines.height}px`;
  };
};
