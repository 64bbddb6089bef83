// Analyse a recording: takes files, sends them, shows how far the analysis is, and what came out.
"use strict";

window.bedside.register("analyse", (() => {
  const {element, write, restyle} = window.bedside;
  const byId = (id) => document.getElementById(id);
  const POLL_MS = 500;
  // Pixels that a report is wide.
  const REPORT_PX = 1270;
  const DOWNLOADS = [
    ["report.html", "Page"],
    ["picture.png", "Picture"],
    ["result.json", "JSON"],
    ["record.zip", "WFDB with annotations"],
    ["arrays.npz", "Arrays"],
  ];
  const ORDER = ["high", "medium", "low", "info"];
  const SIGNS = {high: "***", medium: "**", low: "*", info: "i"};
  // Jobs by id; a job that is being sent has a share of its bytes, too.
  const jobs = new Map();
  let shown = "";
  let reported = "";
  let timer = null;
  let visible = false;
  // Of all files of a recording; the server says it.
  let uploadBytes = Infinity;

  const time = (seconds) => {
    if (seconds === null || seconds === undefined) return "end";
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    const rest = String(Math.floor(seconds % 60)).padStart(2, "0");
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes}:${rest}`;
    return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
  };

  async function ask(path, options = {}) {
    let answer;
    try {
      answer = await fetch(path, {cache: "no-store", ...options});
    } catch {
      throw new Error("the dashboard does not answer");
    }
    return understood(answer.status, await answer.text().catch(() => ""));
  }

  // What stands before the server may answer in its place, and then in no JSON.
  function understood(status, text) {
    let body = null;
    try {
      body = JSON.parse(text);
    } catch {
      if (status === 413) throw new Error("refused (413): the proxy takes no file of this size");
    }
    if (status < 300 && body !== null) return body;
    throw new Error(body?.error ?? (status < 300 ? "what answers is not the dashboard" : `refused (${status})`));
  }

  function refuse(text) {
    byId("refused").hidden = !text;
    write(byId("refused"), text);
  }

  // XMLHttpRequest, because fetch does not say how much has been sent.
  function send(job, file, sent) {
    return new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      request.open("PUT", `api/analyses/${job.id}/files/${encodeURIComponent(file.name)}`);
      request.upload.addEventListener("progress", (event) => sent(event.loaded));
      request.addEventListener("error", () => failed(new Error("the connection broke while the file was sent")));
      request.addEventListener("load", () => {
        try {
          done(understood(request.status, request.responseText));
        } catch (error) {
          failed(error);
        }
      });
      request.send(file);
    });
  }

  async function take(list) {
    const files = [...list];
    if (files.length === 0) return;
    refuse("");
    const total = files.reduce((sum, file) => sum + file.size, 0) || 1;
    if (total > uploadBytes) {
      const mib = (bytes, round) => `${round(bytes / 2 ** 20)} MiB`;
      refuse(`${files[0].name}: ${mib(total, Math.ceil)} are too much, ${mib(uploadBytes, Math.floor)} at most;`
        + " use `bedside analyze` for it");
      return;
    }
    let job;
    try {
      job = await ask("api/analyses", {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({
          files: files.map((file) => file.name),
          model: byId("with").value,
          fs: Number(byId("fs").value) || null,
          leads: byId("names").value,
        }),
      });
      jobs.set(job.id, job);
      choose(job.id);
      let before = 0;
      for (const file of files) {
        job = await send(job, file, (loaded) => note({...job, sent: (before + loaded) / total}));
        before += file.size;
      }
      note(job);
      poll();
    } catch (error) {
      refuse(error.message);
      if (job !== undefined) {
        jobs.delete(job.id);
        fetch(`api/analyses/${job.id}`, {method: "DELETE"}).catch(() => {});
        if (shown === job.id) choose("");
        writeJobs();
      }
    }
  }

  function note(job) {
    jobs.set(job.id, job);
    writeJobs();
    if (job.id === shown) writeResult(job);
  }

  const open = (job) => ["uploading", "waiting", "running"].includes(job.state);

  async function poll() {
    window.clearTimeout(timer);
    if (!visible) return;
    for (const job of [...jobs.values()].filter((one) => open(one) && one.state !== "uploading")) {
      try {
        note(await ask(`api/analyses/${job.id}`));
      } catch (error) {
        note({...job, state: "failed", error: error.message});
      }
    }
    if ([...jobs.values()].some(open)) timer = window.setTimeout(poll, POLL_MS);
  }

  function inShort(job) {
    if (job.state === "done") return job.analysis.statement.headline;
    if (job.state === "uploading") return `sending, ${Math.round(100 * (job.sent ?? 0))} %`;
    if (job.state === "waiting") return "waits for its turn";
    if (job.state === "running") {
      return job.progress === null ? "reading…" : `analysing, ${Math.round(100 * job.progress)} %`;
    }
    return job.error;
  }

  function writeJobs() {
    const list = byId("jobs");
    const wanted = [...jobs.values()].reverse();
    while (list.children.length > wanted.length) list.lastChild.remove();
    wanted.forEach((job, place) => {
      const button = list.children[place] ?? element("button", "job", list);
      if (button.children.length === 0) {
        button.type = "button";
        element("span", "name", button);
        element("span", "model quiet", button);
        element("span", "what", button);
        button.addEventListener("click", () => choose(button.dataset.job));
      }
      button.dataset.job = job.id;
      restyle(button, `job ${job.state}`);
      button.setAttribute("aria-current", String(job.id === shown));
      const [name, model, what] = button.children;
      write(name, job.name);
      // Operators see those of others, too.
      const whose = job.who === document.body.dataset.user ? null : job.who;
      write(model, [job.analysis.model, whose].filter(Boolean).join(" · "));
      write(what, inShort(job));
      what.title = inShort(job);
    });
    byId("nojobs").hidden = wanted.length > 0;
  }

  function choose(id) {
    shown = id;
    const job = jobs.get(id);
    byId("nothing").hidden = job !== undefined;
    byId("result").hidden = job === undefined;
    if (job !== undefined) writeResult(job);
    writeJobs();
  }

  function writeResult(job) {
    const done = job.state === "done";
    restyle(byId("result"), job.state);
    write(byId("subject"), job.name);
    const far = byId("far");
    far.hidden = !open(job);
    const share = job.state === "uploading" ? job.sent : job.progress;
    if (share === null || share === undefined) far.removeAttribute("value");
    else far.value = share;
    const statement = done ? job.analysis.statement : null;
    write(byId("words"), statement?.headline ?? inShort(job));
    restyle(byId("words"), statement?.priority ?? "");
    const sentences = byId("sentences");
    sentences.replaceChildren();
    for (const sentence of statement?.sentences ?? []) write(element("li", "", sentences), sentence);
    writeFigures(done ? job.analysis : null);
    writeAlarms(done ? job.analysis.alarms : []);
    const downloads = byId("downloads");
    downloads.replaceChildren();
    if (done) {
      const page = element("a", "download", downloads);
      page.href = `api/analyses/${job.id}/report.html`;
      page.target = "_blank";
      write(page, "Open in a tab");
    }
    for (const [file, title] of DOWNLOADS) {
      if (!job.results.includes(file)) continue;
      const link = element("a", "download", downloads);
      link.href = `api/analyses/${job.id}/${file}?download=1`;
      write(link, title);
    }
    const report = byId("report");
    report.hidden = !done;
    const address = done ? `api/analyses/${job.id}/report.html` : "about:blank";
    if (reported !== address) {
      reported = address;
      report.src = address;
    }
  }

  function writeFigures(analysis) {
    const list = byId("figures");
    list.replaceChildren();
    if (analysis === null) return;
    const over = analysis.windows.filter((window) => window.anomalous).length;
    const rate = analysis.heart_rate_bpm;
    const figures = [
      ["Length", time(analysis.duration_s)],
      ["Leads", `${analysis.leads.length}: ${analysis.leads.join(" ")}`],
      ["Sampling frequency", `${analysis.fs} Hz`],
      ["Heart rate, median", rate === null ? "not known" : `${Math.round(rate)} bpm`],
      ["Beats", String(analysis.beats_s.length)],
      ["Score, threshold", analysis.record_score === null
        ? "not scored" : `${analysis.record_score.toFixed(2)}, ${analysis.threshold.toFixed(2)}`],
      ["Windows over the alarm threshold", `${over} of ${analysis.windows.length}`],
      ["Model", analysis.model],
    ];
    for (const [name, value] of figures) {
      const pair = element("div", "", list);
      write(pair.appendChild(document.createElement("dt")), name);
      write(pair.appendChild(document.createElement("dd")), value);
    }
  }

  function writeAlarms(alarms) {
    byId("foundbox").hidden = alarms.length === 0;
    const body = byId("found").tBodies[0];
    body.replaceChildren();
    const urgent = [...alarms].sort((a, b) => ORDER.indexOf(a.priority) - ORDER.indexOf(b.priority));
    for (const alarm of urgent) {
      const line = body.insertRow();
      write(element("td", "message", line), alarm.message ?? alarm.code);
      write(line.insertCell(), `${SIGNS[alarm.priority] ?? ""} ${alarm.priority}`);
      write(line.insertCell(), time(alarm.onset_s));
      write(line.insertCell(), time(alarm.end_s));
    }
  }

  async function discard() {
    const id = shown;
    try {
      await ask(`api/analyses/${id}`, {method: "DELETE"});
    } catch (error) {
      refuse(error.message);
    }
    jobs.delete(id);
    choose(jobs.size > 0 ? [...jobs.keys()].at(-1) : "");
  }

  async function enter() {
    visible = true;
    try {
      const {analyses, models, upload_bytes: most} = await ask("api/analyses");
      uploadBytes = most;
      const known = byId("with");
      for (const model of models.slice(known.options.length - 1)) known.add(new Option(model, model));
      for (const job of [...analyses].reverse()) if (!jobs.has(job.id) || !open(jobs.get(job.id))) jobs.set(job.id, job);
      if (shown === "" && analyses.length > 0) choose(analyses[0].id);
      writeJobs();
    } catch (error) {
      refuse(error.message);
    }
    poll();
  }

  function start() {
    const drop = byId("drop");
    byId("choose").addEventListener("click", () => byId("files").click());
    byId("files").addEventListener("change", (event) => {
      take(event.target.files);
      event.target.value = "";
    });
    drop.addEventListener("submit", (event) => event.preventDefault());
    // Anywhere in the view: a file dropped beside the box would replace the page.
    const view = byId("view-analyse");
    view.addEventListener("dragover", (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
    view.addEventListener("dragleave", () => drop.classList.remove("over"));
    view.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      take(event.dataTransfer.files);
    });
    byId("discard").addEventListener("click", discard);
    const sheet = byId("sheet");
    new ResizeObserver(() => {
      sheet.style.setProperty("--scale", Math.min(1, sheet.clientWidth / REPORT_PX).toFixed(3));
    }).observe(sheet);
  }

  return {title: "Analyse", key: "u", start, enter, leave: () => { visible = false; }};
})());
