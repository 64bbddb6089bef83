// What is said of alarms, and when: the words that the panel's parts share.
"use strict";

window.bedside.parts.alarmWords = (() => {
  const SIGNS = {
    physiological: {high: "***", medium: "**", low: "*", info: "i"},
    technical: {high: "!!!", medium: "!!", low: "!", info: "i"},
  };
  const EVERY_BED = "*";
  const AGAIN = "told again: not acknowledged in time";

  // By the clock on the wall where the dashboard runs.
  function wall(ms) {
    return new Date(ms + Number(document.body.dataset.utcOffset) * 1000).toISOString();
  }

  // With the date if it is another day.
  function clock(ms) {
    const shown = wall(ms);
    const time = shown.slice(11, 19);
    return shown.slice(0, 10) === wall(Date.now()).slice(0, 10) ? time : `${shown.slice(0, 10)} ${time}`;
  }

  // Without the date: where it is plain from what stands around it.
  const time = (ms) => wall(ms).slice(11, 19);

  function duration(ms) {
    const whole = Math.max(0, Math.floor(ms / 1000));
    const two = (number) => String(number).padStart(2, "0");
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
  }

  function presence(alarm) {
    if (alarm.lost) return "its end was not told";
    if (alarm.ended) return "ended";
    if (alarm.presence === "acknowledged") return `acknowledged by ${alarm.who || "somebody"} at ${clock(alarm.seen)}`;
    const parts = alarm.presence === "latched" ? ["condition over, latched until acknowledged"] : [];
    return [...parts, ...(alarm.escalation > 0 ? [AGAIN] : [])].join(" · ");
  }

  // What one transition says.
  function step(event) {
    const by = event.who === "" ? "" : ` by ${event.who}`;
    if (event.presence === "acknowledged") return `acknowledged${by}`;
    if (event.presence === "off") return `ended${event.message ? `: ${event.message}` : by}`;
    if (event.escalation > 0) return AGAIN;
    if (event.presence === "latched") return `condition over: ${event.message}`;
    return `${event.number === 0 ? "raised" : "raised again"}: ${event.message}`;
  }

  return {
    EVERY_BED, wall, clock, time, duration, presence, step,
    sign: (alarm) => SIGNS[alarm.kind][alarm.priority],
    bed: (name) => (name === EVERY_BED ? "all beds" : name),
    about: (alarm) => [`${alarm.priority} priority`, alarm.kind, presence(alarm)].filter(Boolean).join(" · "),
  };
})();
