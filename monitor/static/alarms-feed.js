// Alarms as the interface for programs tells them: what is open, what was, and each transition as it comes.
"use strict";

window.bedside.parts.AlarmFeed = class {
  // Far more than anybody looks through; the oldest that have ended go first.
  static MOST = 1000;
  static RETRY_MS = 2000;
  // No alarm is told as late as this.
  static OTHER_MS = 600_000;
  static URGENCY = {high: 3, medium: 2, low: 1, info: 0};

  // changed() is called whenever something has.
  constructor(changed) {
    this.changed = changed;
    this.alarms = new Map();
    this.state = "loading";
    this.trouble = "";
    this.ahead = new Map();
    this.source = null;
    this.timer = 0;
    this.wanted = false;
  }

  open() {
    this.wanted = true;
    this.load();
  }

  close() {
    this.wanted = false;
    window.clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  async load() {
    this.source?.close();
    try {
      const answer = await fetch("api/alarms?recent=1000", {cache: "no-store"});
      const told = await answer.json();
      if (!answer.ok) throw new Error(told.error);
      if (!this.wanted) return;
      this.alarms.clear();
      for (const event of told.recent.reverse()) this.take(event);
      for (const event of told.open) this.take(event);
      const open = new Set(told.open.map((event) => event.alarm));
      // One that is said to be on and is not open: its end was never told, as when a worker dies with its bed.
      for (const alarm of this.alarms.values()) alarm.lost = !open.has(alarm.id) && !alarm.ended;
      for (const [bed, now] of Object.entries(told.now)) this.ahead.set(bed, now / 1e6 - Date.now());
      this.state = "here";
      this.trouble = "";
      this.follow(told.position);
    } catch (error) {
      if (!this.wanted) return;
      this.fail(error instanceof TypeError ? "the dashboard does not answer" : error.message);
    }
    this.changed();
  }

  follow(position) {
    const source = new EventSource(`api/alarms/stream?since=${position}`);
    this.source = source;
    source.addEventListener("message", (message) => {
      const event = JSON.parse(message.data);
      if (event.rule === "events-missed") {
        this.load();
        return;
      }
      this.learn(event);
      this.take(event);
      this.heard();
      this.changed();
    });
    source.addEventListener("heartbeat", () => this.heard());
    source.addEventListener("open", () => this.heard());
    source.addEventListener("error", () => {
      // The browser comes again by itself, behind what it saw last; unless it was refused.
      if (source.readyState === EventSource.CLOSED) this.fail("the alarms cannot be followed");
      else this.trouble = "The connection is lost: trying again";
      this.changed();
    });
  }

  // As it comes, its bed's clock shows about this: of a bed that is new, or plays another recording now.
  learn(event) {
    const ahead = event.since / 1e6 - Date.now();
    const known = this.ahead.get(event.bed);
    if (known === undefined || Math.abs(ahead - known) > window.bedside.parts.AlarmFeed.OTHER_MS) this.ahead.set(event.bed, ahead);
  }

  heard() {
    if (this.trouble === "") return;
    this.trouble = "";
    this.changed();
  }

  fail(why) {
    this.trouble = window.bedside.sentence(`${why}; trying again`);
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.load(), window.bedside.parts.AlarmFeed.RETRY_MS);
  }

  take(event) {
    let alarm = this.alarms.get(event.alarm);
    if (alarm === undefined) {
      alarm = {id: event.alarm, bed: event.bed, kind: event.kind, rule: event.rule, events: [], lost: false};
      this.alarms.set(event.alarm, alarm);
      this.forget();
    }
    const number = Number(event.event.slice(event.event.lastIndexOf("-") + 1)) || 0;
    if (alarm.events.some((known) => known.event === event.event)) return;
    alarm.events.push({...event, number});
    alarm.events.sort((one, other) => one.number - other.number);
    alarm.lost = false;
    Object.assign(alarm, window.bedside.parts.AlarmFeed.summed(alarm.events));
  }

  // What its transitions say of an alarm.
  static summed(events) {
    const [first, last] = [events[0], events[events.length - 1]];
    const naming = events.filter((event) => event.presence === "on" && event.escalation === 0);
    // A latched alarm that is acknowledged is over; one that a pause has ended was not acknowledged.
    const seen = events.findLast((event) => event.presence === "acknowledged"
      || (event.presence === "off" && event.message === `acknowledged by ${event.who}`));
    const ended = last.presence === "off";
    return {
      priority: last.priority,
      technical: last.kind === "technical",
      presence: last.presence,
      escalation: last.escalation,
      message: (naming.at(-1) ?? first).message,
      onset: first.onset_t / 1e6,
      raised: first.number === 0 ? first.since / 1e6 : null,
      who: seen === undefined ? "" : seen.who,
      seen: seen === undefined ? null : seen.since / 1e6,
      ended,
      end: ended ? last.since / 1e6 : null,
      why: ended ? last.message : "",
      snapshot: last.snapshot,
    };
  }

  forget() {
    if (this.alarms.size <= window.bedside.parts.AlarmFeed.MOST) return;
    for (const [id, alarm] of this.alarms) {
      if (alarm.ended || alarm.lost) {
        this.alarms.delete(id);
        return;
      }
    }
  }

  isOpen(alarm) {
    return !alarm.ended && !alarm.lost;
  }

  // The bed's own time now, ms: replayed recordings may be years old.
  now(bed) {
    return Date.now() + (this.ahead.get(bed) ?? 0);
  }

  // As the list of beds has them: the most urgent first, then the oldest.
  order(one, other) {
    const urgency = window.bedside.parts.AlarmFeed.URGENCY;
    return urgency[other.priority] - urgency[one.priority]
      || (one.presence === "acknowledged") - (other.presence === "acknowledged")
      || one.technical - other.technical
      || one.onset - other.onset;
  }
};
