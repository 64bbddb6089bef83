// One alarm: what happened to it, step by step, and what it looked like.
"use strict";

window.bedside.parts.AlarmDetail = class {
  // A snapshot is stored ten seconds after the raise; until then it is asked for again.
  static EXPECTED_MS = 60_000;
  static AGAIN_MS = 3000;

  // actions(alarm, parent) writes the buttons that an alarm has, age(alarm) tells how long ago it was raised, ms.
  constructor(aside, actions, age) {
    this.aside = aside;
    this.actions = actions;
    this.age = age;
    this.alarm = null;
    this.picture = null;
    this.timer = 0;
    this.address = "";
  }

  show(alarm) {
    const {element, write, parts: {alarmWords: words}} = window.bedside;
    this.aside.hidden = alarm === null;
    if (alarm?.id !== this.alarm) this.begin(alarm);
    if (alarm === null) return;
    this.facts.replaceChildren();
    const quiet = alarm.ended || alarm.presence === "acknowledged" ? "acknowledged" : "";
    const head = element("header", `alarm ${alarm.priority} ${alarm.technical ? "technical" : ""} ${quiet}`, this.facts);
    write(element("span", "sign", head), words.sign(alarm));
    const what = element("div", "what", head);
    write(element("h3", "message", what), alarm.message);
    write(element("span", "kind", what), `${words.bed(alarm.bed)} · ${words.about(alarm)}`);
    this.actions(alarm, element("div", "actions", this.facts));
    const steps = element("ol", "steps", this.facts);
    for (const event of alarm.events) {
      const step = element("li", "", steps);
      write(element("time", "", step), words.clock(event.since / 1e6));
      write(element("span", "", step), words.step(event));
    }
  }

  // Another alarm, or none.
  begin(alarm) {
    const {element, write} = window.bedside;
    window.clearTimeout(this.timer);
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = "";
    this.alarm = alarm?.id ?? null;
    this.aside.replaceChildren();
    if (alarm === null) return;
    this.aside.dataset.alarm = alarm.id;
    this.facts = element("div", "facts", this.aside);
    this.picture = element("figure", "snapshot", this.aside);
    write(element("p", "id quiet", this.aside), `Rule ${alarm.rule}, alarm ${alarm.id}`);
    if (alarm.snapshot) this.draw(alarm);
    else write(element("p", "quiet", this.picture), "Technical alarms have no snapshot.");
  }

  async draw(alarm) {
    const {element, write, sentence, parts: {alarmWords: words}} = window.bedside;
    const path = `api/alarms/${encodeURIComponent(alarm.id)}/snapshot`;
    const say = (text, name) => {
      this.picture.replaceChildren();
      write(element("p", name, this.picture), text);
    };
    say("Drawing what it looked like …", "loading quiet");
    let picture, told;
    try {
      const answer = await fetch(`${path}.png`);
      if (answer.ok) picture = await answer.blob();
      else told = {status: answer.status, text: (await answer.json()).error};
    } catch {
      told = {status: 0, text: "the dashboard does not answer"};
    }
    if (this.alarm !== alarm.id) return;
    if (picture === undefined) {
      const expected = told.status === 404 && this.age(alarm) < window.bedside.parts.AlarmDetail.EXPECTED_MS;
      say(expected ? "The snapshot comes some ten seconds after the alarm …" : sentence(told.text), expected ? "loading quiet" : "quiet");
      if (expected || told.status === 0) {
        this.timer = window.setTimeout(() => this.draw(alarm), window.bedside.parts.AlarmDetail.AGAIN_MS);
      }
      return;
    }
    this.picture.replaceChildren();
    this.address = URL.createObjectURL(picture);
    const whole = element("a", "", this.picture);
    whole.href = `${path}.png`;
    whole.target = "_blank";
    whole.title = "Open in full size";
    const image = element("img", "", whole);
    image.src = this.address;
    image.alt = `ECG strip of ${words.bed(alarm.bed)} when the alarm was raised: ${alarm.message}`;
    const links = element("figcaption", "", this.picture);
    for (const [suffix, name, title] of [["pdf", "PDF", "One page A4, true to scale"], ["zip", "WFDB", "The samples with annotations, zipped"]]) {
      const link = element("a", "do", links);
      link.href = `${path}.${suffix}`;
      link.title = title;
      link.download = "";
      write(link, `Download ${name}`);
    }
  }
};
