// When a sample is due on the screen. Samples come in chunks, by default five a second; drawn as they come, a
// trace would jump. So the position moves evenly, as far behind the newest sample as it must: one chunk, for a
// chunk has to last until the next one comes, and the usual jitter of the way. A chunk that comes later than
// usual holds the trace up for as long, which no one sees; to wait for the latest would keep all of them late.
"use strict";

window.bedside.parts.Playout = (() => {
  // Five seconds of default chunks: long enough to meet the jitter of a busy machine, short enough to come back to
  // live soon after it has calmed down.
  const REMEMBERED = 25;
  // Of the chunks, those that are in time.
  const USUAL = 0.8;
  // What comes later than this, compared with the earliest, is a backlog, not jitter.
  const JITTER_MAX_MS = 100;
  // A position that is off by more than this jumps to live; one that is off by less runs faster or slower by up to a
  // tenth, which no one sees.
  const JUMP_MS = 1000;
  const SLEW = 0.1;
  // Before the first chunk has been seen to come: a usual one, and some jitter.
  const FIRST_MS = 250;

  function usual(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const value = sorted[Math.min(sorted.length - 1, Math.floor(USUAL * sorted.length))];
    return Math.min(value, sorted[0] + JITTER_MAX_MS);
  }

  return class Playout {
    // `rate`: positions a second; 0 for a feed that comes as fast as it can, which is shown at its newest sample.
    constructor(rate) {
      this.rate = rate / 1000;
      this.stop = 0;
      this.place = null;
      this.at = 0;
      // Of the last packets: when it was sent, less the time of its last sample; how long it was on its way, by two
      // clocks that differ by an unknown constant; how long it lasts.
      this.sent = [];
      this.transit = [];
      this.lasting = [];
    }

    // Takes note of a packet that ends at `stop`; times in ms, each by its own machine's clock.
    hear(arrivedMs, sentMs, stop) {
      if (this.place === null) {
        this.place = stop - FIRST_MS * this.rate;
        this.at = arrivedMs;
      } else if (this.rate > 0) {
        this.sent.push(sentMs - stop / this.rate);
        this.lasting.push((stop - this.stop) / this.rate);
      }
      this.transit.push(arrivedMs - sentMs);
      for (const past of [this.sent, this.transit, this.lasting]) if (past.length > REMEMBERED) past.shift();
      this.stop = stop;
    }

    // How long a packet that came in at this time was longer on its way than the fastest, ms.
    overdue(arrivedMs, sentMs) {
      return this.transit.length > 0 ? arrivedMs - sentMs - Math.min(...this.transit) : 0;
    }

    // The position up to which the trace is due, exclusive; it never goes back.
    position(nowMs) {
      if (this.place === null || this.rate === 0) return this.stop;
      const elapsed = Math.max(0, nowMs - this.at) * this.rate;
      let place = this.place + elapsed;
      if (this.sent.length > 0) {
        const lasting = [...this.lasting].sort((a, b) => a - b)[this.lasting.length >> 1];
        const due = (nowMs - usual(this.transit) - usual(this.sent) - lasting) * this.rate;
        const ahead = due - place;
        if (Math.abs(ahead) > JUMP_MS * this.rate) place = Math.max(this.place, due);
        else place += Math.min(Math.max(ahead, -SLEW * elapsed), SLEW * elapsed);
      }
      this.place = Math.min(place, this.stop);
      this.at = nowMs;
      return this.place;
    }
  };
})();
