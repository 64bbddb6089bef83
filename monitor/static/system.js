// The system view: workers, streams, the Redis server and the dashboard itself, asked for every second while it is
// shown. What is to be said of a worker, and how much it matters, comes from the server in words.
"use strict";

window.bedside.register("system", (() => {
  const {element, write, restyle} = window.bedside;
  const byId = (id) => document.getElementById(id);
  const EVERY_MS = 1000;
  const STAGES = [
    ["queue", "queue", "From a chunk's entry into the system until a worker takes it"],
    ["prepare", "prepare", "Filter, resampling, signal quality, beats"],
    ["wait", "wait", "For others to share a run of the model"],
    ["inference", "model", "The model's run"],
    ["publish", "publish", "Until the finding is handed to the server"],
    ["total", "total", "From a chunk's entry until the finding is out"],
  ];
  const SIGNS = {ok: "✓", warning: "!!", alarm: "!!!"};
  // Bars are logarithmic: after an outage some windows took a thousand times as long as the rest.
  const SHORTEST_MS = 0.1;
  const DECADES = 5;
  const PRIORITIES = ["high", "medium", "low", "info"];
  let timer = 0;
  let entered = false;
  let told = "";

  // Makes a parent have so many children, each made once.
  function children(parent, count, make) {
    while (parent.children.length > count) parent.lastChild.remove();
    while (parent.children.length < count) make(parent);
    return parent.children;
  }

  function number(value, digits = 0) {
    return value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
  }

  function duration(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
  }

  function megabytes(value) {
    if (value === null) return "–";
    return value < 1024 ? `${number(value)} MB` : `${number(value / 1024, 1)} GB`;
  }

  const seconds = (value) => (value === null ? "–" : value < 10 ? `${number(value, 1)} s` : duration(value));
  const ms = (value) => (value < 999.5 ? number(value, value < 9.95 ? 1 : 0) : `${number(value / 1000, value < 9950 ? 1 : 0)} s`);
  const several = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;

  function time(when_ms) {
    return new Date(when_ms).toLocaleTimeString("en-GB");
  }

  // -- workers

  function makeWorker(body) {
    const row = element("tr", "", body);
    const state = element("div", "", element("td", "sys-state", row));
    element("b", "", state);
    element("span", "", state);
    const name = element("td", "sys-name", row);
    element("strong", "", name);
    element("small", "", name);
    for (let place = 0; place < 5; place += 1) element("td", "num", row);
    for (let place = 0; place < STAGES.length; place += 1) {
      const cell = element("td", "sys-latency", row);
      const bar = element("div", "", cell);
      element("i", "sys-p99", bar);
      element("i", "sys-p50", bar);
      element("span", "", cell);
    }
    for (let place = 0; place < 2; place += 1) element("td", "num", row);
    const model = element("td", "sys-model", row);
    element("span", "", model);
    element("small", "", model);
  }

  function partitions(numbers) {
    const runs = [];
    for (const one of numbers) {
      const last = runs.at(-1);
      if (last !== undefined && last[1] === one - 1) last[1] = one;
      else runs.push([one, one]);
    }
    return runs.map(([first, last]) => (first === last ? first : `${first}–${last}`)).join(", ");
  }

  function width(spent_ms) {
    const share = Math.log10(Math.max(spent_ms, SHORTEST_MS) / SHORTEST_MS) / DECADES;
    return `${Math.min(100, 100 * share).toFixed(1)}%`;
  }

  function writeLatencies(cells, stages) {
    STAGES.forEach(([stage], place) => {
      const [bar, text] = cells[place].children;
      const spent = stages?.[stage];
      write(text, spent ? `${ms(spent[0])} / ${ms(spent[1])}` : "–");
      [1, 0].forEach((which, child) => {
        bar.children[child].style.width = spent ? width(spent[which]) : "0";
      });
    });
  }

  function writeWorker(row, worker, now_ms) {
    const {status} = worker;
    const gone = worker.state === "silent";
    const [state, name, beds, behind, errors, windows, chunks, ...rest] = row.children;
    const [cpu, memory, model] = rest.splice(STAGES.length);
    row.dataset.worker = worker.name;
    restyle(row, `sys-${worker.level}${gone ? " sys-gone" : ""}`);
    const [sign, says] = state.firstChild.children;
    write(sign, SIGNS[worker.level]);
    // A number stays with its unit.
    write(says, worker.says.replace(/(\d) (s|min|h)\b/g, "$1\u00a0$2"));
    write(name.firstChild, worker.name);
    name.title = worker.name;
    const up = duration((now_ms - worker.since_ms) / 1000);
    write(name.lastChild, gone ? `since ${time(worker.since_ms)}` : `up for ${up}`);
    write(beds, status ? number(status.beds) : "–");
    const held = status?.partitions ?? [];
    beds.title = held.length ? `Partitions ${partitions(held)}` : "Holds no partition";
    write(behind, status ? seconds(status.behind_s) : "–");
    const kinds = Object.entries(status?.errors ?? {});
    write(errors, status ? number(kinds.reduce((sum, [, count]) => sum + count, 0)) : "–");
    const lines = kinds.filter(([, count]) => count > 0).map(([kind, count]) => `${kind}: ${count}`);
    if (status?.warning) lines.push(`${time(status.warning.at / 1e6)} ${status.warning.text}`);
    errors.title = lines.join("\n");
    write(windows, status ? number(status.windows_per_s, 1) : "–");
    write(chunks, status ? number(status.chunks_per_s, 1) : "–");
    writeLatencies(rest, status?.stages);
    write(cpu, status ? `${number(100 * status.cpu)} %` : "–");
    write(memory, status ? megabytes(status.rss_mb ?? null) : "–");
    write(model.firstChild, status?.model ?? "–");
    write(model.lastChild, status ? `${status.backend} ${status.precision}` : "");
    model.title = status?.fallback ?? "";
    model.classList.toggle("sys-fallback", Boolean(status?.fallback));
  }

  function writeWorkers(report) {
    const {workers} = report;
    const alive = workers.filter((worker) => worker.state !== "silent");
    const beds = alive.reduce((sum, worker) => sum + (worker.status?.beds ?? 0), 0);
    const windows = alive.reduce((sum, worker) => sum + (worker.status?.windows_per_s ?? 0), 0);
    const silent = workers.length - alive.length;
    const counts = [several(alive.length, "worker") + (silent ? `, ${silent} silent` : "")];
    counts.push(several(beds, "bed"), `${number(windows, 1)} windows/s`);
    write(byId("sys-count"), workers.length ? counts.join(" · ") : "");
    byId("sys-none").hidden = workers.length > 0;
    document.querySelector("#sys-workers .sys-wide").hidden = workers.length === 0;
    const rows = children(byId("sys-rows"), workers.length, makeWorker);
    workers.forEach((worker, place) => writeWorker(rows[place], worker, report.at_ms));
  }

  // -- the rest

  function writeProblems(all) {
    // A worker's own state stands in its row.
    const problems = all.filter((problem) => problem.worker === null);
    const lines = children(byId("sys-problems"), problems.length, (list) => {
      const line = element("li", "", list);
      element("b", "", line);
      element("span", "", line);
    });
    problems.forEach((problem, place) => {
      restyle(lines[place], `sys-${problem.level}`);
      write(lines[place].children[0], SIGNS[problem.level]);
      write(lines[place].children[1], problem.text);
    });
  }

  function writeTable(body, lines) {
    const rows = children(body, lines.length, (parent) => {
      const row = element("tr", "", parent);
      element("th", "", row).scope = "row";
      for (let place = 1; place < lines[0].length; place += 1) element("td", "num", row);
    });
    lines.forEach((line, place) => line.forEach((text, column) => write(rows[place].children[column], text)));
  }

  function writeList(list, pairs) {
    const nodes = children(list, 2 * pairs.length, (parent) => {
      element("dt", "", parent);
      element("dd", "", parent);
    });
    pairs.forEach(([what, value], place) => {
      write(nodes[2 * place], what);
      write(nodes[2 * place + 1], value);
    });
  }

  function writeRedis(redis) {
    write(byId("sys-version"), redis.version);
    const share = redis.max_mb ? redis.used_mb / redis.max_mb : null;
    const limit = share === null ? "used, without a limit" : `of ${megabytes(redis.max_mb)} (${number(100 * share)} %)`;
    write(byId("sys-memory"), `${megabytes(redis.used_mb)} ${limit}`);
    const meter = byId("sys-meter");
    meter.hidden = share === null;
    meter.setAttribute("aria-label", share === null ? "" : `${number(100 * share)} % of the memory is used`);
    restyle(meter, share > 0.95 ? "sys-alarm" : share > 0.8 ? "sys-warning" : "");
    meter.firstElementChild.style.width = `${Math.min(100, 100 * (share ?? 0))}%`;
    writeList(byId("sys-redis"), [
      ["At the limit", redis.policy === "noeviction" ? "refuses to write (noeviction)" : `throws away (${redis.policy})`],
      ["Thrown away", several(redis.evicted, "key")],
      ["Connections", number(redis.clients)],
      ["Append-only file", redis.append_only_file ? "yes" : "no: alarms are gone when it stops"],
    ]);
  }

  function writeDashboard(dashboard) {
    writeList(byId("sys-dashboard"), [
      ["Behind the streams", dashboard.pump_lag_s === null ? "has just started" : seconds(dashboard.pump_lag_s)],
      ["Open pages", number(dashboard.sessions)],
      ["Programs following", number(dashboard.followers)],
      ["Beds known", number(dashboard.beds)],
      ["Messages not read", number(dashboard.malformed)],
      ["CPU", `${number(100 * dashboard.cpu)} %`],
      ["Memory", megabytes(dashboard.rss_mb)],
    ]);
  }

  function writePartitions(report) {
    const cells = children(byId("sys-partitions"), report.partitions.length, (list) => {
      const cell = element("li", "", list);
      element("b", "", cell);
      element("span", "", cell);
    });
    report.partitions.forEach((partition, place) => {
      const {worker, lag_s, entries} = partition;
      const idle = entries === 0;
      restyle(cells[place], idle ? "sys-idle" : worker === null || lag_s > 5 ? "sys-warning" : "");
      write(cells[place].children[0], String(partition.partition));
      write(cells[place].children[1], idle ? "empty" : worker === null ? "nobody" : seconds(lag_s));
      cells[place].title = `${several(entries, "chunk")}, ${worker === null ? "no worker" : worker}`;
    });
  }

  function writeReport(report) {
    told = time(report.at_ms);
    restyle(byId("sys-all"), "");
    byId("sys-stale").hidden = true;
    writeProblems(report.problems);
    writeWorkers(report);
    const {open, last_hour} = report.alarms;
    const alarms = byId("sys-alarms").tBodies[0];
    writeTable(alarms, PRIORITIES.map((name) => [name, number(open[name]), number(last_hour[name])]));
    writeRedis(report.redis);
    writeDashboard(report.dashboard);
    writePartitions(report);
    const topics = report.topics.map(({topic, entries, newest_s}) => [topic, number(entries), seconds(newest_s)]);
    writeTable(byId("sys-topics").tBodies[0], topics);
  }

  function writeLoss(why) {
    const stale = byId("sys-stale");
    stale.hidden = false;
    write(stale, told ? `${why}. What you see is as of ${told}.` : `${why}. Trying again every second.`);
    restyle(byId("sys-all"), told ? "sys-old" : "sys-loading");
  }

  async function ask() {
    try {
      const answer = await fetch("api/system", {cache: "no-store"});
      const report = await answer.json();
      if (answer.ok) writeReport(report);
      else writeLoss("The Redis server does not answer");
    } catch {
      writeLoss("The dashboard does not answer");
    }
    if (entered) timer = window.setTimeout(ask, EVERY_MS);
  }

  return {
    title: "System",
    key: "y",
    start() {
      for (const [, title, text] of STAGES) {
        const cell = element("th", "sys-stage", byId("sys-stages"));
        cell.scope = "col";
        cell.title = text;
        write(cell, title);
      }
    },
    enter() {
      entered = true;
      ask();
    },
    leave() {
      entered = false;
      window.clearTimeout(timer);
    },
  };
})());
