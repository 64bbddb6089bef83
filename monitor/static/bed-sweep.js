// The sweeping leads: a trace runs from left to right and begins again at the left edge, over what it drew before; a
// gap runs in front of it. In each frame only what is new is drawn.
"use strict";

window.bedside.parts.Sweep = (() => {
  const {counters, element, write, restyle, parts} = window.bedside;
  // The gap in front of the trace: wide enough to be seen from afar.
  const GAP_MM = 7.5;
  // Of what changes behind the trace, so many buckets a frame: the trace goes on meanwhile.
  const A_FRAME = 96;

  function colour(styles, name) {
    return styles.getPropertyValue(`--${name}`).trim();
  }

  // 256 shades between three colours; 0 is none.
  function ramp(stops) {
    const values = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
    return Array.from({length: 256}, (_, shade) => {
      const at = (Math.max(0, shade - 1) / 254) * (stops.length - 1);
      const [low, part] = [Math.min(stops.length - 2, Math.floor(at)), at - Math.min(stops.length - 2, Math.floor(at))];
      return `rgb(${values[low].map((value, i) => Math.round(value + (values[low + 1][i] - value) * part)).join(" ")})`;
    });
  }

  return class Sweep {
    // `box`: the element that the sheet fills; it may scroll.
    constructor(box) {
      this.box = box;
      this.canvas = document.createElement("canvas");
      this.names = document.createElement("div");
      this.names.className = "names";
      box.append(this.canvas, this.names);
      this.painter = new parts.Painter(this.canvas);
      this.look = {leads: null, speed: 25, size: 0, scale: () => 96 / 25.4, show: {}};
      this.board = this.playout = this.layout = null;
      this.notes = {};
      this.head = 0;
      this.changed = [];
      this.stale = true;
      this.running = false;
      // Called with the layout when all has been drawn anew, and with the time in each frame.
      this.onLayout = () => {};
      this.onFrame = () => {};
      new ResizeObserver(() => { this.stale = true; }).observe(box);
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

    // Sets what is shown and how: `leads` (names), `speed` (mm/s), `size` (mm/mV, 0 for what fits), `scale` (takes a
    // width to pixels a millimetre), `show` (by layer). Only what is named changes.
    set(look) {
      Object.assign(this.look, look);
      this.stale = true;
    }

    // Leads of the feed that are shown, by their place in it.
    shown() {
      const all = this.board ? this.board.leads : [];
      const wanted = all.map((_, place) => place).filter((place) => this.look.leads?.includes(all[place]) ?? true);
      return wanted.length > 0 ? wanted : all.map((_, place) => place);
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
      const {box, board, look} = this;
      this.stale = false;
      this.changed = [];
      const styles = window.getComputedStyle(box);
      const shades = (name) => ramp([0, 1, 2].map((at) => colour(styles, `${name}-${at}`)));
      const names = ["paper", "minor", "major", "words", "trace", "expected", "band", "poor", "beat"];
      const colours = Object.fromEntries(names.map((name) => [name, colour(styles, name)]));
      Object.assign(colours, {error: shades("error"), attention: shades("attention")});
      const leads = this.shown();
      const {clientWidth: width, clientHeight: height} = box;
      const {speed, size} = look;
      const scale = look.scale(width);
      this.layout = parts.paper.layOut({n: Math.max(1, leads.length), width, height, scale, speed, size});
      const tall = Math.max(height, Math.floor(this.layout.high * scale));
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${tall}px`;
      const dots = window.devicePixelRatio;
      this.painter.place({board, layout: this.layout, leads, show: look.show, colours, dots, width, height: tall});
      if (board !== null) {
        const {low, high} = this.range();
        this.painter.paint(low, high, low, high);
      }
      this.drawNames(leads);
      this.onLayout(this.layout);
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

    // Writes what is wrong with leads, or unusual in them, at their names.
    note(notes) {
      this.notes = notes;
      for (const name of this.names.children) this.writeNote(name);
    }

    writeNote(name) {
      const note = this.notes[name.dataset.lead];
      restyle(name, `name ${note?.style ?? "good"}`);
      write(name.children[1], note?.text ?? "");
    }

    drawNames(leads) {
      const {layout} = this;
      const {scale} = layout;
      this.names.replaceChildren();
      leads.forEach((lead, place) => {
        const name = element("div", "name", this.names);
        name.dataset.lead = this.board.leads[lead];
        name.style.left = `${layout.left(layout.column(place)) * scale + 2}px`;
        name.style.top = `${layout.top(place) * scale}px`;
        write(element("b", "", name), name.dataset.lead);
        element("span", "", name);
        this.writeNote(name);
      });
      if (this.look.show.attention && this.board?.has.temporal) {
        const foot = element("div", "foot", this.names);
        foot.style.left = `${layout.left(0) * scale + 2}px`;
        foot.style.top = `${(layout.foot + layout.thick) * scale}px`;
        write(foot, "attention, all leads");
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
