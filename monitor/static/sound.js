// Alarm sounds in the manner of IEC 60601-1-8: bursts of pulses by priority, again and again while an alarm of it is
// there that nobody has acknowledged. Only the most urgent priority is heard. Off until somebody switches it on:
// browsers let no page make a sound before.
"use strict";

(() => {
  const {bind, follow, write} = window.bedside;
  // Seconds: length of a pulse, and the start of each in its burst. High: ten pulses, five and five, each five
  // with a longer rest after the third; medium: three; low: two, slow. `rest` lies between bursts.
  const five = [0, 0.25, 0.5, 1.0, 1.25];
  const BURSTS = {
    high: {pitch: 880, length: 0.15, pulses: [...five, ...five.map((at) => at + 2)], rest: 4},
    medium: {pitch: 660, length: 0.2, pulses: [0, 0.4, 0.8], rest: 9},
    low: {pitch: 440, length: 0.2, pulses: [0, 0.4], rest: 20},
  };
  // Four harmonics and more, so that a place can be told, and one that is masked does not hide the rest.
  const HARMONICS = [0, 1, 0.7, 0.5, 0.35, 0.25];
  const VOLUME = 0.3, RISE_S = 0.02;
  const PAUSE_MS = 120_000, LOOK_MS = 200;
  const KEPT = "bedside-sound";
  const sounds = {high: 0, medium: 0, low: 0};
  const byId = (id) => document.getElementById(id);
  let mode = "off";
  let until = 0;
  let wanted = "";
  let context = null;
  let playing = null;

  function keep() {
    window.localStorage.setItem(KEPT, mode === "paused" ? String(until) : mode);
  }

  function recall() {
    const kept = window.localStorage.getItem(KEPT) ?? "off";
    until = Number(kept) || 0;
    mode = until > 0 ? "paused" : kept === "on" ? "on" : "off";
  }

  function hush() {
    playing?.output.disconnect();
    playing = null;
  }

  function play(level) {
    const {pitch, length, pulses, rest} = BURSTS[level];
    const output = context.createGain();
    output.connect(context.destination);
    const wave = context.createPeriodicWave(new Float32Array(HARMONICS.length), Float32Array.from(HARMONICS));
    const begin = context.currentTime + 0.05;
    for (const at of pulses) {
      const [tone, gain] = [context.createOscillator(), context.createGain()];
      tone.setPeriodicWave(wave);
      tone.frequency.value = pitch;
      gain.gain.setValueAtTime(0, begin + at);
      gain.gain.linearRampToValueAtTime(VOLUME, begin + at + RISE_S);
      gain.gain.setValueAtTime(VOLUME, begin + at + length - RISE_S);
      gain.gain.linearRampToValueAtTime(0, begin + at + length);
      tone.connect(gain).connect(output);
      tone.start(begin + at);
      tone.stop(begin + at + length);
    }
    sounds[level] += 1;
    playing = {level, output, next: begin + pulses.at(-1) + length + rest};
  }

  function look() {
    if (mode === "paused" && Date.now() >= until) {
      mode = "on";
      keep();
    }
    // A page that has lost its server shows the past, whatever it was told last.
    const level = document.body.classList.contains("lost") ? "high" : wanted;
    const heard = mode === "on" && context?.state === "running" && level in BURSTS;
    if (!heard || (playing !== null && playing.level !== level)) hush();
    if (heard && (playing === null || context.currentTime >= playing.next)) play(level);
    tell();
  }

  function tell() {
    const button = byId("sound");
    const waiting = mode === "on" && context?.state !== "running";
    const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
    const words = {
      off: "Sound off",
      on: waiting ? "Sound: click to hear" : "Sound on",
      paused: `Sound paused ${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`,
    };
    button.className = waiting ? "waiting" : mode;
    write(button.querySelector("span"), words[mode]);
    const next = {off: "switch it on", on: "pause it for 2 min", paused: "switch it off"};
    button.title = `Alarm sound: ${next[mode]} (s)`;
  }

  function wake() {
    if (mode === "off") return;
    context ??= new AudioContext();
    if (context.state === "suspended") context.resume().then(look);
  }

  // Off, on, paused, off …
  function change() {
    if (mode === "off") mode = "on";
    else if (mode === "paused") mode = "off";
    else {
      mode = "paused";
      until = Date.now() + PAUSE_MS;
    }
    keep();
    wake();
    look();
  }

  recall();
  bind("s", "alarm sound: on, paused for 2 min, off", change);
  follow(({sound = ""}) => {
    wanted = sound;
    look();
  });
  document.addEventListener("DOMContentLoaded", () => {
    byId("sound").addEventListener("click", change);
    // A sound that was on before needs the first touch of this page.
    for (const touch of ["pointerdown", "keydown"]) document.addEventListener(touch, wake);
    tell();
    window.setInterval(look, LOOK_MS);
  });
  Object.assign(window.bedside, {sounds, bursts: BURSTS});
})();
