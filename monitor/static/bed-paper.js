// ECG paper: where each lead is drawn, in millimetres, and the paper itself.
"use strict";

window.bedside.parts.paper = (() => {
  // A large square.
  const SQUARE = 5;
  // To the left of the first column, for the mark that shows how high 1 mV is, and between columns.
  const MARGIN = 2 * SQUARE;
  const GAP = SQUARE;
  // Above the rows for beat marks, below them for the bar of all leads and for S waves.
  const HEAD = 4;
  const FOOT = 5;
  // A row as high holds an ordinary complex at 10 mm/mV; in one that is lower than the second, neighbours lie over
  // each other, and the paper is scrolled instead.
  const ROOMY = 16;
  const LOWEST = 9;
  // A column has a beat in it even of a slow heart; one that is wider than the second part of a sheet tells rhythm.
  const SHORTEST_S = 2;
  // A complex of 1.6 mV fits its row at the size that is chosen, which is at most twice the usual.
  const USUAL_MV = 1.6;
  const SIZES = [5, 10, 20];
  // R waves point up in most leads: a baseline below the middle of the row leaves them room.
  const BASELINE = 0.6;
  // Bars below a trace, mm, and the room of each.
  const BAR = 1.4;
  const BAR_ROOM = 1.8;
  // Fine lines closer than this are a grey.
  const FINE_PX = 2;

  // Lays out `n` leads on a sheet of `width` by `height` pixels, with `scale` pixels a millimetre, `speed` mm/s, and
  // `size` mm/mV, or 0 for what fits. All that is returned is in millimetres from the sheet's upper left corner.
  function layOut({n, width, height, scale, speed, size}) {
    const sheet = Math.max(width / scale, MARGIN + SQUARE);
    const high = height / scale - HEAD - FOOT;
    let chosen = null;
    for (let columns = 1; columns <= Math.max(1, n); columns += 1) {
      const rows = Math.ceil(n / columns);
      const room = (sheet - MARGIN - GAP * (columns - 1)) / columns;
      const across = Math.max(SQUARE, Math.floor(room / SQUARE) * SQUARE);
      if (columns > 1 && across / speed < SHORTEST_S) break;
      chosen = {columns: Math.ceil(n / rows), rows, across, pitch: Math.max(LOWEST, Math.floor(high / rows))};
      if (high / rows >= ROOMY) break;
    }
    const {columns, rows, across, pitch} = chosen;
    const fitting = SIZES.filter((mm) => mm * USUAL_MV <= pitch);
    const top = (place) => HEAD + (place % rows) * pitch;
    return {
      columns, rows, across, pitch, scale, speed,
      size: size || (fitting.at(-1) ?? SIZES[0]),
      seconds: across / speed,
      high: HEAD + rows * pitch + FOOT,
      column: (place) => Math.floor(place / rows),
      left: (column) => MARGIN + column * (across + GAP),
      top,
      baseline: (place) => Math.round(top(place) + BASELINE * pitch),
      // Bars from the foot of the row upwards.
      bar: (place, number) => top(place) + pitch - (number + 1) * BAR_ROOM,
      foot: HEAD + rows * pitch + 1.5,
      head: 0.6,
      thick: BAR,
    };
  }

  // Draws the empty sheet on a canvas of its own, in device pixels: `dots` of them are a CSS pixel.
  function draw(canvas, layout, colours, dots) {
    const {width, height} = canvas;
    const context = canvas.getContext("2d", {alpha: false});
    const mm = layout.scale * dots;
    context.fillStyle = colours.paper;
    context.fillRect(0, 0, width, height);
    // Millimetres first, so that the lines of the large squares lie over them.
    for (const [step, colour] of [[1, colours.minor], [SQUARE, colours.major]]) {
      if (step * mm < FINE_PX * dots) continue;
      context.fillStyle = colour;
      const thick = Math.max(1, Math.round(dots * (step === 1 ? 0.75 : 1)));
      for (let x = 0; x * mm < width; x += step) context.fillRect(Math.round(x * mm), 0, thick, height);
      for (let y = 0; y * mm < height; y += step) context.fillRect(0, Math.round(y * mm), width, thick);
    }
    drawMark(context, layout, colours, mm, dots);
  }

  // How high 1 mV is.
  function drawMark(context, layout, colours, mm, dots) {
    const [left, right] = [3.5 * mm, 7 * mm];
    const base = layout.baseline(0) * mm;
    const top = base - layout.size * mm;
    context.strokeStyle = context.fillStyle = colours.words;
    context.lineWidth = 1.25 * dots;
    context.beginPath();
    context.moveTo(left, base);
    context.lineTo((left + right) / 2, base);
    context.lineTo((left + right) / 2, top);
    context.lineTo(right, top);
    context.stroke();
    context.font = `${11 * dots}px system-ui, sans-serif`;
    context.textBaseline = "top";
    context.fillText("1 mV", 1.5 * mm, base + 3 * dots);
  }

  return {layOut, draw};
})();
