// What is known of one feed: rings of its traces and of what the model says, addressed by bucket (see
// monitor/bed/sweep.py, which fills them). A bucket has one or two points of each lead.
"use strict";

window.bedside.parts.Board = (() => {
  const NONE = -32768;

  return class Board {
    constructor({leads, fs, size, points, held}) {
      Object.assign(this, {leads, points, held});
      // Buckets in a second of the feed.
      this.rate = fs / size;
      this.size = size;
      this.start = 0;
      this.stop = 0;
      const traces = () => leads.map(() => new Int16Array(held * points).fill(NONE));
      const shades = () => leads.map(() => new Uint8Array(held));
      this.trace = traces();
      this.expected = traces();
      this.spread = traces();
      this.error = shades();
      this.attention = shades();
      this.temporal = [new Uint8Array(held)];
      this.poor = shades();
      this.beats = new Set();
      this.has = {expected: false, spread: false, attention: false, temporal: false};
      this.errorMost = 0;
      this.errorUnit = "";
    }

    // Takes a packet; returns the ranges of buckets in which something older has changed.
    take(packet) {
      const changed = [];
      if (packet.trace !== undefined) {
        if (this.stop === 0) this.start = this.stop = packet.start;
        this.clear(packet.start + this.put(this.trace, packet.start, packet.trace, this.points));
      }
      if (packet.expected !== undefined) {
        const n = this.put(this.expected, packet.from, packet.expected, this.points);
        this.put(this.error, packet.from, packet.error, 1);
        for (const [name, points] of [["spread", this.points], ["attention", 1], ["temporal", 1]]) {
          this.has[name] = packet[name] !== undefined;
          if (this.has[name]) this.put(this[name], packet.from, packet[name], points);
        }
        this.has.expected = true;
        this.errorMost = packet.error_most;
        this.errorUnit = packet.error_unit;
        changed.push([packet.from, packet.from + n]);
      }
      for (const [from, to, leads] of packet.seconds ?? []) {
        for (const lead of leads) this.mark(this.poor[lead], from, to);
        if (leads.length > 0) changed.push([from, to]);
      }
      for (const beat of packet.beats ?? []) {
        this.beats.add(beat);
        changed.push([beat, beat + 1]);
      }
      for (const beat of this.beats) if (beat < this.start) this.beats.delete(beat);
      return changed;
    }

    // Where a bucket lies in a ring of one value a bucket.
    place(bucket) {
      return ((bucket % this.held) + this.held) % this.held;
    }

    // Writes rows that lie one after the other in `array`; returns for how many buckets.
    put(rings, from, array, points) {
      // Bokeh's arrays have a shape, and do not take parts of themselves.
      const values = new rings[0].constructor(array.buffer, array.byteOffset, array.length);
      const n = values.length / rings.length / points;
      rings.forEach((ring, row) => {
        for (let done = 0; done < n;) {
          const at = this.place(from + done);
          const some = Math.min(n - done, this.held - at);
          const begin = (row * n + done) * points;
          ring.set(values.subarray(begin, begin + some * points), at * points);
          done += some;
        }
      });
      return n;
    }

    // Makes room up to a bucket: what the rings still have of a time long past is no longer true.
    clear(stop) {
      for (let bucket = this.stop; bucket < stop; bucket += 1) {
        const at = this.place(bucket);
        for (const rings of [this.expected, this.spread]) {
          for (const ring of rings) ring.fill(NONE, at * this.points, (at + 1) * this.points);
        }
        for (const rings of [this.error, this.attention, this.temporal, this.poor]) {
          for (const ring of rings) ring[at] = 0;
        }
      }
      this.stop = Math.max(this.stop, stop);
      this.start = Math.max(this.start, this.stop - this.held);
    }

    mark(ring, from, to) {
      for (let bucket = Math.max(from, this.start); bucket < Math.min(to, this.stop); bucket += 1) {
        ring[this.place(bucket)] = 1;
      }
    }

    // How many points of the leads are there, the fewest of any: for tests.
    least(name) {
      return Math.min(...this[name].map((ring) => ring.reduce((n, value) => n + (value !== NONE), 0)));
    }
  };
})();
