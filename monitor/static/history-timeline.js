// The line of time: what is recorded, alarms, the signal in little, the score where it is known, and where we are.
// A click goes there, dragging and the wheel move the line, the wheel with Ctrl makes it longer or shorter.
"use strict";

window.bedside.parts.Timeline = (() => {
  const {parts} = window.bedside;
  const MINUTE = 60_000;
  const SHORTEST = MINUTE;
  const LONGEST = 24 * 60 * MINUTE;
  // Of monitor/history/archive.py.
  const ENVELOPE_MS = 900_000;
  const DRAGGED_PX = 4;
  // Rows, CSS pixels from the top: alarms by priority, the signal, the score, the times.
  const [ALARMS, LANE, SIGNAL, SCORE, TIMES, HIGH] = [4, 9, 36, 68, 100, 116];
  const LANES = ["high", "medium", "low", "info"];
  const STEPS_S = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600];
  const LABEL_PX = 110;
  const WAIT_MS = 250;

  return class Timeline {
    // `onMoment(at)` is called when somebody goes to a moment, `onRange()` when the line has moved.
    constructor(box, {onMoment, onRange}) {
      this.box = box;
      this.onMoment = onMoment;
      this.onRange = onRange;
      this.canvas = document.createElement("canvas");
      box.append(this.canvas);
      this.overview = null;
      this.alarms = [];
      this.windows = new Map();
      // The model's own, and the one that was in force where we are.
      this.threshold = null;
      this.held = null;
      this.from = 0;
      this.span = 5 * MINUTE;
      this.at = 0;
      this.page = [0, 0];
      this.lead = "";
      this.scored = false;
      this.envelope = null;
      this.stale = true;
      this.timer = 0;
      new ResizeObserver(() => { this.stale = true; }).observe(box);
      this.listen();
    }

    set(changes) {
      Object.assign(this, changes);
      this.stale = true;
    }

    // Shows a span, which is kept to what there is; around the middle unless told where it begins.
    look(span, from = this.from + (this.span - span) / 2) {
      const {overview} = this;
      this.span = Math.min(LONGEST, Math.max(SHORTEST, span));
      const [first, last] = overview === null ? [from, from + this.span] : [overview.from, overview.to];
      const room = this.span * 0.05;
      this.from = Math.max(first - room, Math.min(from, last + room - this.span));
      // All there is, in the middle.
      if (last - first < this.span * 0.9) this.from = (first + last - this.span) / 2;
      this.stale = true;
      this.onRange();
    }

    // Has a moment on the line, with some room around it.
    follow(at, middle = false) {
      this.at = at;
      this.stale = true;
      const [low, high] = [this.from + this.span * 0.02, this.from + this.span * 0.98];
      if (middle) this.look(this.span, at - this.span / 2);
      else if (at < low || at > high) this.look(this.span, at - this.span * (at < low ? 0.9 : 0.1));
    }

    x(at) {
      return ((at - this.from) / this.span) * this.box.clientWidth;
    }

    moment(x) {
      return this.from + (x / this.box.clientWidth) * this.span;
    }

    listen() {
      const {box} = this;
      let pressed = null;
      box.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        pressed = {x: event.offsetX, from: this.from, moved: false};
        box.setPointerCapture(event.pointerId);
      });
      box.addEventListener("pointermove", (event) => {
        if (pressed === null) {
          box.title = this.hint(event.offsetX, event.offsetY);
          return;
        }
        const by = event.offsetX - pressed.x;
        if (Math.abs(by) > DRAGGED_PX) pressed.moved = true;
        if (pressed.moved) this.look(this.span, pressed.from - (by / box.clientWidth) * this.span);
        box.classList.toggle("dragged", pressed.moved);
      });
      box.addEventListener("pointerup", (event) => {
        if (pressed !== null && !pressed.moved) this.click(event.offsetX, event.offsetY);
        pressed = null;
        box.classList.remove("dragged");
      });
      box.addEventListener("pointercancel", () => { pressed = null; });
      box.addEventListener("wheel", (event) => {
        event.preventDefault();
        const by = Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : event.deltaY;
        if (event.ctrlKey) {
          const under = this.moment(event.offsetX);
          const span = Math.min(LONGEST, Math.max(SHORTEST, this.span * (by > 0 ? 1.25 : 0.8)));
          this.look(span, under - (event.offsetX / box.clientWidth) * span);
        } else {
          this.look(this.span, this.from + Math.sign(by) * this.span * 0.1);
        }
      }, {passive: false});
    }

    click(x, y) {
      const alarm = this.alarmAt(x, y);
      this.onMoment(alarm === undefined ? this.moment(x) : alarm.onset, alarm);
    }

    alarmAt(x, y) {
      if (y >= SIGNAL) return undefined;
      const lane = LANES[Math.min(LANES.length - 1, Math.floor((y - ALARMS) / LANE))];
      const near = ({onset, over, priority}) => priority === lane && x >= this.x(onset) - 4 && x <= Math.max(this.x(over ?? this.overview.to), this.x(onset) + 6) + 2;
      return this.alarms.findLast(near) ?? this.alarms.findLast((alarm) => Math.abs(x - this.x(alarm.onset)) < 6);
    }

    hint(x, y) {
      const alarm = this.alarmAt(x, y);
      const {alarmWords: words} = parts;
      return alarm === undefined ? words.clock(this.moment(x)) : `${words.clock(alarm.onset)} ${alarm.message}`;
    }

    // Draws it, if it has changed. Called in each frame.
    draw() {
      if (!this.stale || this.overview === null) return;
      this.stale = false;
      const {box, canvas} = this;
      const dots = window.devicePixelRatio;
      const wide = box.clientWidth;
      canvas.width = Math.round(wide * dots);
      canvas.height = Math.round(HIGH * dots);
      canvas.style.width = `${wide}px`;
      canvas.style.height = `${HIGH}px`;
      const context = canvas.getContext("2d");
      context.scale(dots, dots);
      const styles = window.getComputedStyle(box);
      const ink = (name) => styles.getPropertyValue(`--${name}`).trim();
      this.drawRecorded(context, ink);
      this.drawEnvelope(context, ink);
      this.drawScore(context, ink, wide);
      this.drawTimes(context, ink, wide);
      this.drawAlarms(context, ink, wide);
      this.drawNames(context, ink, wide);
      this.drawPlace(context, ink);
    }

    drawRecorded(context, ink) {
      for (const [start, end] of this.overview.stretches) {
        const [left, right] = [this.x(start), Math.max(this.x(end), this.x(start) + 1)];
        context.fillStyle = ink("well");
        context.fillRect(left, SIGNAL, right - left, SCORE - SIGNAL - 4);
        context.fillRect(left, SCORE, right - left, TIMES - SCORE);
        // In the foot of the row, where nothing else is drawn.
        context.fillStyle = ink("off");
        context.fillRect(left, SCORE - 6, right - left, 2);
      }
    }

    drawEnvelope(context, ink) {
      const {envelope} = this;
      if (envelope === null || this.span > ENVELOPE_MS) return;
      const values = [...envelope.low, ...envelope.high].filter((value) => value !== null).sort((a, b) => a - b);
      if (values.length === 0) return;
      const at = (part) => values[Math.floor(part * (values.length - 1))];
      const [low, high] = [at(0.01), Math.max(at(0.995), at(0.01) + 200)];
      const y = (value) => Math.min(SCORE - 7, Math.max(SIGNAL, SCORE - 7 - ((value - low) / (high - low)) * (SCORE - SIGNAL - 8)));
      context.fillStyle = ink("slate");
      const n = envelope.low.length;
      for (let place = 0; place < n; place += 1) {
        if (envelope.low[place] === null) continue;
        const left = this.x(envelope.from + (place / n) * (envelope.to - envelope.from));
        const wide = Math.max(0.8, this.x(envelope.from + ((place + 1) / n) * (envelope.to - envelope.from)) - left);
        const top = y(envelope.high[place]);
        context.fillRect(left, top, wide, Math.max(1, y(envelope.low[place]) - top));
      }
    }

    drawScore(context, ink, wide) {
      const shown = [...this.windows.entries()].filter(([at]) => at >= this.from - 2000 && at <= this.from + this.span + 2000).sort(([a], [b]) => a - b);
      context.font = "11px system-ui, sans-serif";
      context.textBaseline = "middle";
      if (shown.length === 0 || this.threshold === null) {
        this.scored = false;
        return;
      }
      this.scored = true;
      const scores = shown.map(([, [score]]) => score);
      const low = Math.min(0, ...scores);
      const high = Math.max(1.3 * Math.max(...shown.map(([, [, , threshold]]) => threshold)), ...scores);
      const y = (score) => TIMES - 2 - ((score - low) / (high - low)) * (TIMES - SCORE - 4);
      context.strokeStyle = ink("slate");
      context.setLineDash([4, 3]);
      context.lineWidth = 1;
      context.beginPath();
      // In steps: operators change it.
      let last = null;
      for (const [at, [, , threshold]] of shown) {
        const [x, level] = [Math.min(wide, Math.max(0, this.x(at))), y(threshold)];
        if (last === null) context.moveTo(x, level);
        else if (threshold !== last) context.lineTo(x, y(last));
        context.lineTo(x, level);
        last = threshold;
      }
      context.stroke();
      context.setLineDash([]);
      context.lineWidth = 1.6;
      let before = null;
      for (const [at, [score, over]] of shown) {
        const point = [this.x(at), y(score)];
        if (before !== null && at - before.at < 3000) {
          context.strokeStyle = over || before.over ? ink("expected") : "#e08a00";
          context.beginPath();
          context.moveTo(...before.point);
          context.lineTo(...point);
          context.stroke();
        }
        before = {at, over, point};
      }
    }

    drawTimes(context, ink, wide) {
      const {alarmWords: words} = parts;
      const step = 1000 * (STEPS_S.find((seconds) => ((seconds * 1000) / this.span) * wide >= LABEL_PX) ?? STEPS_S.at(-1));
      const offset = Number(document.body.dataset.utcOffset) * 1000;
      context.textBaseline = "bottom";
      context.font = "12px system-ui, sans-serif";
      for (let at = Math.ceil((this.from + offset) / step) * step - offset; at <= this.from + this.span; at += step) {
        const x = this.x(at);
        context.fillStyle = ink("rule");
        context.fillRect(Math.round(x), SIGNAL, 1, HIGH - SIGNAL);
        context.fillStyle = ink("slate");
        const time = words.time(at);
        context.fillText(step >= MINUTE ? time.slice(0, 5) : time, x + 4, HIGH - 1);
      }
    }

    drawAlarms(context, ink, wide) {
      for (const alarm of this.alarms) {
        const lane = LANES.indexOf(alarm.priority);
        const [left, right] = [this.x(alarm.onset), this.x(alarm.end ?? this.overview.to)];
        if (right < -4 || left > wide + 4) continue;
        const y = ALARMS + Math.min(lane, 2) * LANE;
        context.fillStyle = context.strokeStyle = ink(alarm.priority === "info" ? "off" : alarm.priority);
        // Technical ones as an outline: not to be told apart by colour alone.
        const over = this.x(alarm.over ?? this.overview.to);
        const box = [left, y + 1, Math.max(4, over - left), LANE - 2];
        // Latched, until somebody answers.
        context.fillRect(over, y + LANE / 2 - 0.5, Math.max(0, right - over), 1);
        if (alarm.technical) {
          context.lineWidth = 1.5;
          context.strokeRect(...box);
        } else {
          context.fillRect(...box);
        }
      }
      if (this.chosen !== undefined) {
        context.fillStyle = ink("ink");
        const x = this.x(this.chosen.onset);
        context.beginPath();
        context.moveTo(x - 4, 0);
        context.lineTo(x + 4, 0);
        context.lineTo(x, 4);
        context.fill();
      }
    }

    // What the rows are.
    drawNames(context, ink, wide) {
      context.font = "11px system-ui, sans-serif";
      context.textBaseline = "top";
      const name = (text, x, y) => {
        const long = context.measureText(text).width;
        context.fillStyle = ink("panel");
        context.globalAlpha = 0.8;
        context.fillRect(x - 2, y - 1, long + 4, 13);
        context.globalAlpha = 1;
        context.fillStyle = ink("slate");
        context.fillText(text, x, y);
      };
      name("alarms", 5, ALARMS);
      name(this.span > ENVELOPE_MS ? "recorded" : this.lead, 5, SIGNAL);
      name(this.scored ? "score" : "score: where it was looked at", 5, SCORE);
      if (this.scored) {
        const held = this.held ?? this.threshold;
        const words_ = held === this.threshold ? `threshold ${held.toFixed(1)}` : `threshold ${held.toFixed(1)}, set for the bed`;
        name(words_, wide - 10 - context.measureText(words_).width, SCORE);
      }
    }

    drawPlace(context, ink) {
      const [left, right] = this.page.map((at) => this.x(at));
      context.strokeStyle = context.fillStyle = ink("accent");
      context.globalAlpha = 0.16;
      context.fillRect(left, SIGNAL - 2, Math.max(2, right - left), TIMES - SIGNAL + 2);
      context.globalAlpha = 1;
      const x = this.x(this.at);
      context.fillRect(x - 1, 0, 2, HIGH);
    }

    // Fetches the signal in little of what is shown, when the line has come to rest.
    refresh(fetch) {
      window.clearTimeout(this.timer);
      if (this.overview === null || this.span > ENVELOPE_MS) {
        this.envelope = null;
        return;
      }
      this.timer = window.setTimeout(async () => {
        const asked = {from: this.from, to: this.from + this.span};
        const found = await fetch(asked.from, asked.to, Math.round(this.box.clientWidth));
        if (found !== null && asked.from === this.from) this.set({envelope: {...asked, ...found}});
      }, WAIT_MS);
    }
  };
})();
