// Draws stretches of a feed on its paper: what lies between two moments is wiped and drawn anew, and nothing else is
// touched. A browser without a graphics card draws the few pixels of a frame in a millisecond, and half of the
// picture, when the model has spoken, in some ten.
"use strict";

window.bedside.parts.Painter = (() => {
  const NONE = -32768;
  // Neighbours that are drawn along, so that lines are whole at both edges: the widest line is thinner than this.
  const MARGIN = 3;
  const TRACE_PX = 1.4;
  const EXPECTED_PX = 1.3;
  const TICK_PX = 2;
  // In standard deviations: 95 % of a normal distribution lie in the band.
  const BAND = 2;
  const UV_PER_MV = 1000;

  return class Painter {
    constructor(canvas) {
      this.canvas = canvas;
      // Opaque: what lies below need not be drawn. Pixels are read by no one but tests.
      this.context = canvas.getContext("2d", {alpha: false});
      this.sheet = document.createElement("canvas");
    }

    // `leads`: places of the leads to draw, in the board; `show`: which layers; `dots`: device pixels a CSS pixel.
    place({board, layout, leads, show, colours, dots, width, height}) {
      Object.assign(this, {board, layout, leads, show, colours, dots});
      for (const canvas of [this.canvas, this.sheet]) {
        canvas.width = Math.round(width * dots);
        canvas.height = Math.round(height * dots);
      }
      window.bedside.parts.paper.draw(this.sheet, layout, colours, dots);
      this.context.drawImage(this.sheet, 0, 0);
      this.mm = layout.scale * dots;
      // Buckets in a sweep, and how wide one is.
      this.across = board ? Math.max(1, Math.floor(layout.seconds * board.rate)) : 1;
      this.step = board ? (layout.across * this.mm) / (layout.seconds * board.rate) : 1;
    }

    // Where a bucket begins in a column, device pixels.
    x(column, slot) {
      return this.layout.left(column) * this.mm + slot * this.step;
    }

    // Paints the buckets from `from` to `to`, of which those from `low` to `high` are to be seen.
    paint(from, to, low, high) {
      while (from < to) {
        const slot = from % this.across;
        const last = Math.min(to, from + this.across - slot);
        for (let column = 0; column < this.layout.columns; column += 1) {
          this.paintColumn(column, from, last, low, high);
        }
        from = last;
      }
    }

    paintColumn(column, from, to, low, high) {
      const {context, canvas, sheet} = this;
      const slot = from % this.across;
      const origin = from - slot;
      const left = Math.floor(this.x(column, slot));
      const right = Math.ceil(this.x(column, slot + to - from));
      context.drawImage(sheet, left, 0, right - left, canvas.height, left, 0, right - left, canvas.height);
      const first = Math.max(low, from - MARGIN, origin);
      const last = Math.min(high, to + MARGIN, origin + this.across);
      if (first >= last) return;
      context.save();
      context.beginPath();
      context.rect(left, 0, right - left, canvas.height);
      context.clip();
      const run = {first, last, at: (bucket) => this.x(column, bucket - origin), left, right};
      const places = this.leads.map((lead, place) => [lead, place]).filter(([, place]) => this.layout.column(place) === column);
      for (const [lead, place] of places) this.paintBars(lead, place, run);
      if (this.show.attention && this.board.has.temporal) {
        this.bar(this.board.temporal[0], this.layout.foot, this.colours.attention, run);
      }
      if (this.show.expected) for (const [lead, place] of places) this.paintExpected(lead, place, run);
      for (const [lead, place] of places) this.paintTrace(lead, place, run);
      if (this.show.beats) this.paintBeats(run);
      context.restore();
    }

    paintBars(lead, place, run) {
      const {board, layout, colours, show} = this;
      let number = 0;
      if (show.attention && board.has.attention) {
        this.bar(board.attention[lead], layout.bar(place, number), colours.attention, run);
        number += 1;
      }
      if (show.error && board.has.expected) this.bar(board.error[lead], layout.bar(place, number), colours.error, run);
    }

    // A bar of shades, a device pixel at a time: between buckets of a part of a pixel there would be seams.
    bar(shades, top, ramp, {first, last, at, left, right}) {
      const {board, context, mm} = this;
      const [y, thick] = [Math.round(top * mm), Math.max(2, Math.round(this.layout.thick * mm))];
      const origin = at(first);
      let [begun, held] = [left, 0];
      for (let x = left; x <= right; x += 1) {
        const bucket = first + Math.floor((x + 0.5 - origin) / this.step);
        const shade = x < right && bucket >= first && bucket < last ? shades[board.place(bucket)] : 0;
        if (shade === held && x < right) continue;
        if (held > 0) {
          context.fillStyle = ramp[held];
          context.fillRect(begun, y, x - begun, thick);
        }
        [begun, held] = [x, shade];
      }
    }

    // Calls back with each point of a ring: x, value, bucket.
    points(ring, {first, last, at}, each) {
      const {board} = this;
      const {points} = board;
      let x = at(first) + this.step / points / 2;
      for (let bucket = first; bucket < last; bucket += 1) {
        const begin = board.place(bucket) * points;
        for (let point = begin; point < begin + points; point += 1, x += this.step / points) each(x, ring[point], bucket, point);
      }
    }

    // Takes microvolts to heights of a place.
    heights(place) {
      const base = this.layout.baseline(place) * this.mm;
      const tall = (this.layout.size * this.mm) / UV_PER_MV;
      return (value) => base - value * tall;
    }

    paintExpected(lead, place, run) {
      const {board, context, colours} = this;
      const height = this.heights(place);
      if (board.has.spread) {
        context.fillStyle = colours.band;
        let [over, under] = [[], []];
        const close = () => {
          if (over.length > 1) {
            context.beginPath();
            over.forEach(([x, y]) => context.lineTo(x, y));
            under.reverse().forEach(([x, y]) => context.lineTo(x, y));
            context.fill();
          }
          [over, under] = [[], []];
        };
        this.points(board.expected[lead], run, (x, value, _bucket, point) => {
          const spread = board.spread[lead][point];
          if (value === NONE || spread === NONE) {
            close();
            return;
          }
          over.push([x, height(value + BAND * spread)]);
          under.push([x, height(value - BAND * spread)]);
        });
        close();
      }
      this.line(board.expected[lead], height, run, colours.expected, EXPECTED_PX, () => true);
    }

    paintTrace(lead, place, run) {
      const {board, colours} = this;
      const height = this.heights(place);
      const ring = board.trace[lead];
      if (!this.show.quality) {
        this.line(ring, height, run, colours.trace, TRACE_PX, () => true);
        return;
      }
      const poor = board.poor[lead];
      this.line(ring, height, run, colours.poor, TRACE_PX, (bucket) => poor[board.place(bucket)] === 1);
      this.line(ring, height, run, colours.trace, TRACE_PX, (bucket) => poor[board.place(bucket)] === 0);
    }

    // A line through the points of the buckets that are wanted; a missing point is a gap.
    line(ring, height, run, colour, width, wanted) {
      const {context} = this;
      let [before, drawing] = [null, false];
      context.beginPath();
      this.points(ring, run, (x, value, bucket) => {
        if (value === NONE) {
          [before, drawing] = [null, false];
          return;
        }
        const y = height(value);
        if (!wanted(bucket)) {
          drawing = false;
        } else {
          if (!drawing) context.moveTo(...(before ?? [x, y]));
          context.lineTo(x, y);
          drawing = true;
        }
        before = [x, y];
      });
      context.strokeStyle = colour;
      context.lineWidth = width * this.dots;
      context.lineJoin = "round";
      context.stroke();
    }

    paintBeats({first, last, at}) {
      const {board, context, layout, mm} = this;
      context.fillStyle = this.colours.beat;
      const [top, long] = [Math.round(layout.head * mm), Math.round(2 * mm)];
      const thick = Math.round(TICK_PX * this.dots);
      for (const beat of board.beats) {
        if (beat >= first && beat < last) context.fillRect(Math.round(at(beat + 0.5) - thick / 2), top, thick, long);
      }
    }
  };
})();
