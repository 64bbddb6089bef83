// Which model judges a bed, and from which score on its windows count as unusual. Both are asked of the bed's worker,
// in a person's name, and are recorded.
"use strict";

window.bedside.parts.judging = (() => {
  const {element, write} = window.bedside;
  const byId = (id) => document.getElementById(id);
  const NAMES = {cae: "CAE", "vae-bilstm": "VAE-BiLSTM", "vae-bilstm-mha": "VAE-BiLSTM-MHA"};
  // Scores are standard deviations of normal windows, more or less: thresholds lie between these, or reach as far as
  // the one in force.
  const [LOWEST, HIGHEST] = [0, 10];
  let bed = "";
  let settings = null;

  const path = (what = "") => `api/beds/${encodeURIComponent(bed)}${what}`;
  const number = (value) => value.toFixed(2).replace("-", "−");
  const tell = (text) => write(byId("judging-told"), text);

  function origin() {
    const {threshold_from: from, said} = settings;
    const by = said[from === "baseline" ? "baseline" : "threshold"]?.who;
    if (from === "model") return "the model's own";
    return `${from === "baseline" ? "from this patient's baseline, confirmed" : "set"}${by ? ` by ${by}` : ""}`;
  }

  function writeModels(models) {
    const list = byId("models");
    list.replaceChildren();
    for (const model of models) {
      const line = element("label", "model", list);
      const choice = element("input", "", line);
      choice.type = "radio";
      choice.name = "model";
      choice.value = model.name;
      choice.checked = model.name === settings.model;
      const words = element("span", "", line);
      write(element("b", "", words), NAMES[model.architecture] ?? model.architecture);
      write(element("span", "quiet", words), ` ${model.name}${model.name === settings.own_model ? ", the worker's own" : ""}`);
    }
    // A model that was not shipped is the worker's, or nobody's.
    if (!models.some((model) => model.name === settings.model)) {
      write(element("p", "quiet", list), `In use: ${settings.model}, a model of your own.`);
    }
    list.onchange = () => {
      byId("use-model").disabled = list.querySelector(":checked")?.value === settings.model;
    };
    byId("use-model").disabled = true;
  }

  function writeThreshold() {
    const slider = byId("threshold");
    const {threshold, stored_threshold: stored} = settings;
    slider.min = String(Math.min(LOWEST, threshold, stored));
    slider.max = String(Math.max(HIGHEST, threshold, stored));
    slider.value = String(threshold);
    write(byId("threshold-origin"), `In force: ${number(threshold)}, ${origin()}.`);
    write(byId("reset-threshold"), `Reset to ${number(stored)}`);
    byId("reset-threshold").disabled = settings.threshold_from === "model";
    moved();
  }

  function moved() {
    const wanted = Number(byId("threshold").value);
    write(byId("threshold-wanted"), number(wanted));
    byId("set-threshold").disabled = Math.abs(wanted - settings.threshold) < 0.005;
    const {stored_threshold: stored} = settings;
    const effect = wanted > stored + 0.005 ? "Higher: more that is unusual goes unnoticed." : "Lower: more false alarms.";
    write(byId("threshold-effect"), Math.abs(wanted - stored) < 0.005 ? "" : effect);
  }

  async function get(address) {
    const answer = await fetch(address, {cache: "no-store"});
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error);
    return body;
  }

  async function read() {
    byId("judging-body").hidden = true;
    tell("Asking the worker …");
    try {
      const [now, models] = await Promise.all([get(path()), get("api/models")]);
      settings = now;
      writeModels(models);
      writeThreshold();
      byId("judging-body").hidden = false;
      const reason = window.bedside.barred();
      for (const group of byId("judging-body").querySelectorAll("fieldset")) group.disabled = reason !== "";
      tell(reason);
    } catch (error) {
      tell(error instanceof TypeError ? "The dashboard does not answer." : error.message);
    }
  }

  async function change(what, value) {
    const done = await window.bedside.ask(path(`/${what}`), {value}, tell);
    if (done === null) return;
    await read();
    // The message may begin with the name of a model, which is written small.
    tell(done.message ? `Done: ${done.message}.` : "Done.");
  }

  function open(name) {
    bed = name;
    write(byId("judging-title"), `Model and threshold of ${name}`);
    byId("judging").showModal();
    read();
  }

  function start() {
    byId("threshold").addEventListener("input", moved);
    byId("set-threshold").addEventListener("click", () => change("threshold", Number(byId("threshold").value)));
    byId("reset-threshold").addEventListener("click", () => change("threshold", null));
    byId("use-model").addEventListener("click", () => {
      const chosen = byId("models").querySelector(":checked").value;
      change("model", chosen === settings.own_model ? null : chosen);
    });
    byId("judging-close").addEventListener("click", () => byId("judging").close());
  }

  return {start, open};
})();
