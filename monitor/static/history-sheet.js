// A still sheet of the past, with a cursor that runs over it while it is played. At the right edge the sheet is turned.
"use strict";

window.bedside.parts.HistorySheet = (() => {
  const {element, write, counters, parts} = window.bedside;
  // A tick of time above the paper each second, with its time each few.
  const LABEL_PX = 90;

  return class HistorySheet extends parts.Sheet {
    constructor(box) {
      super(box);
      this.marks = element("div", "hist-marks", box);
      this.packet = null;
      this.at = 0;
    }

    // Shows a sheet, or nothing (null).
    show(packet) {
      this.packet = packet;
      this.board = packet === null ? null : new parts.Board(packet);
      this.board?.take(packet);
      this.stale = true;
    }

    overlay(findings) {
      if (this.board === null || findings.expected === undefined) return;
      this.board.take(findings);
      this.stale = true;
    }

    range() {
      return {low: 0, high: Math.min(this.board.stop, this.painter.across)};
    }

    // Seconds that fit on the sheet, of a bed with so many leads shown.
    seconds(leads) {
      const shown = leads.filter((lead) => this.look.leads?.includes(lead) ?? true);
      return this.plan(shown.length || leads.length).seconds;
    }

    // Draws what has changed. Called in each frame.
    draw(at) {
      if (this.stale) {
        this.drawAll();
        this.drawTimes();
        counters.painted += 1;
      } else if (at === this.at) {
        return;
      }
      this.at = at;
      this.drawCursor();
    }

    // Pixels of a moment in a column; null if it is not on the sheet.
    x(column, at) {
      if (this.packet === null || this.layout === null) return null;
      const bucket = (at - this.packet.t0) / this.packet.bucket;
      if (bucket < -0.5 || bucket > this.painter.across) return null;
      return this.painter.x(column, bucket) / this.painter.dots;
    }

    // The moment at a place on the sheet; null beside it.
    moment(x) {
      if (this.packet === null || this.layout === null) return null;
      const mm = x / this.layout.scale;
      for (let column = 0; column < this.layout.columns; column += 1) {
        const inside = mm - this.layout.left(column);
        if (inside >= 0 && inside <= this.layout.across) return this.packet.t0 + (inside / this.layout.speed) * 1000;
      }
      return null;
    }

    drawCursor() {
      const columns = this.packet === null || this.layout === null ? 0 : this.layout.columns;
      const cursors = this.marks.querySelectorAll(".hist-cursor");
      cursors.forEach((cursor, place) => { if (place >= columns) cursor.remove(); });
      for (let column = 0; column < columns; column += 1) {
        const cursor = cursors[column] ?? element("i", "hist-cursor", this.marks);
        const x = this.x(column, this.at);
        cursor.hidden = x === null;
        if (x !== null) cursor.style.transform = `translateX(${x}px)`;
      }
    }

    drawTimes() {
      this.marks.style.height = this.canvas.style.height;
      this.marks.replaceChildren();
      if (this.packet === null) return;
      const {layout, packet} = this;
      const second = layout.speed * layout.scale;
      const step = [1, 2, 5, 10, 20].find((seconds) => seconds * second >= LABEL_PX) ?? 60;
      const end = packet.t0 + layout.seconds * 1000;
      for (let column = 0; column < layout.columns; column += 1) {
        for (let at = Math.ceil(packet.t0 / 1000 / step) * step * 1000; at < end; at += step * 1000) {
          const x = this.x(column, at);
          // Not over the next column.
          if (x === null || x + LABEL_PX / 2 > (layout.left(column) + layout.across) * layout.scale) continue;
          const time = element("span", "hist-time", this.marks);
          time.style.left = `${x}px`;
          write(time, parts.alarmWords.time(at));
        }
      }
    }
  };
})();
