// The sweeping leads: a trace runs from left to right and begins again at the left edge, over what it drew before; a
// gap runs in front of it. In each frame only what is new is drawn.
"use strict";

window.bedside.parts.Sweep = (() => {
  const {counters, parts} = window.bedside;
  // The gap in front of the trace: wide enough to be seen from afar.
  const GAP_MM = 7.5;
  // Of what changes behind the trace, so many buckets a frame: the trace goes on meanwhile.
  const A_FRAME = 96;

  return class Sweep extends parts.Sheet {
    constructor(box) {
      super(box);
      this.playout = null;
      this.head = 0;
      this.changed = [];
      this.running = false;
      // Called with the time in each frame.
      this.onFrame = () => {};
    }

    // Takes what the server has sent.
    take(packet) {
      const now = performance.now();
      if (packet.leads !== undefined) {
        this.board = new parts.Board(packet);
        this.playout = new parts.Playout(this.board.rate * packet.pace);
        this.head = 0;
        this.stale = true;
      }
      if (this.board === null) return;
      this.changed.push(...this.board.take(packet));
      // Another model may have come: the legend and the bars change with what it says.
      const said = JSON.stringify([this.board.has, this.board.errorUnit]);
      if (said !== this.said) [this.said, this.stale] = [said, true];
      if (packet.trace !== undefined) {
        this.playout.hear(now, packet.sent_ms, this.board.stop);
        this.newest = {now, age: packet.age_s, late: this.playout.overdue(now, packet.sent_ms) / 1000};
      }
    }

    // Shows nothing, until another feed comes.
    clear() {
      this.board = this.playout = null;
      this.stale = true;
    }

    start() {
      if (this.running) return;
      this.running = this.stale = true;
      const frame = () => {
        if (!this.running) return;
        const now = performance.now();
        this.draw(now);
        this.onFrame(now);
        window.requestAnimationFrame(frame);
      };
      window.requestAnimationFrame(frame);
    }

    stop() {
      this.running = false;
    }

    // How long ago the newest sample on the screen was taken, seconds; null without a feed.
    lag(now = performance.now()) {
      if (!this.newest || this.board === null) return null;
      const rate = this.playout.rate * 1000;
      const waiting = rate > 0 ? (this.board.stop - this.playout.position(now)) / rate : 0;
      return this.newest.age + this.newest.late + (now - this.newest.now) / 1000 + waiting;
    }

    // Buckets from the first one to the one after the last that are to be seen.
    range() {
      const {across, step, mm} = this.painter;
      const gap = Math.ceil((GAP_MM * mm) / step);
      return {low: Math.max(this.board.start, this.head - across + gap), high: this.head, gap};
    }

    draw(now) {
      const {board} = this;
      const head = board === null ? 0 : Math.floor(this.playout.position(now));
      const fresh = head > this.head;
      if (this.stale) {
        this.head = head;
        this.drawAll();
      } else if (board !== null) {
        const before = this.head;
        this.head = head;
        const {low, high, gap} = this.range();
        if (head - before >= this.painter.across - gap) this.painter.paint(low, high + gap, low, high);
        else if (fresh) this.painter.paint(before - 1, high + gap, low, high);
        this.drawChanged(low, high);
      }
      if (fresh) counters.painted += 1;
    }

    drawAll() {
      this.changed = [];
      super.drawAll();
    }

    drawChanged(low, high) {
      let left = A_FRAME;
      while (this.changed.length > 0 && left > 0) {
        const [from, to] = this.changed[0];
        const [first, last] = [Math.max(from, low), Math.min(to, high, Math.max(from, low) + left)];
        if (first < last) {
          this.painter.paint(first, last, low, high);
          left -= last - first;
        }
        // What lies before the trace's end is drawn when the trace gets there.
        if (first >= last || last >= Math.min(to, high)) this.changed.shift();
        else this.changed[0] = [last, to];
      }
    }

    // Where a value of a lead is drawn, CSS pixels of the sheet; null if it is not. `sample`: of the session.
    where(lead, sample, microvolts) {
      const place = this.shown().findIndex((at) => this.board.leads[at] === lead);
      if (place < 0 || this.painter.board === null) return null;
      const {painter, layout} = this;
      const slot = (sample / this.board.size) % painter.across;
      const y = painter.heights(place)(microvolts);
      return {x: painter.x(layout.column(place), slot) / painter.dots, y: y / painter.dots};
    }
  };
})();
