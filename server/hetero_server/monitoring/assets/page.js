// Asks the server how its run stands, every two seconds, and shows it. Whatever comes from clients
// is set as text, never as markup.

import { chart } from "./chart.js";

const PERIOD_MS = 2000;
const PATIENCE_MS = 5000;
const GONE = new Set(["STALE", "LEFT", "EVICTED"]);
const STATES = {
  REGISTERED: "○ waiting",
  TRAINING: "● training",
  SYNCING: "◐ syncing",
  STALE: "✕ connection lost",
  LEFT: "– has left",
  EVICTED: "✕ sent away",
};
const PHASES = {
  WAITING: "waiting for clients",
  TRAINING: "training",
  CLOSING: "aggregating",
  EVALUATING: "evaluating",
  FINISHED: "finished",
  SERVING: "answering predictions",
};
const NONE = "–";

const percent = (share) => (share === null ? NONE : `${(100 * share).toFixed(1)} %`);
const count = (number) => number.toLocaleString("en");
const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString([], { hour12: false });

function duration(seconds) {
  if (seconds === null) return NONE;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const COLUMNS = [
  ["client", (m) => m.client_id],
  ["cut layer", (m) => m.cut_layer],
  ["state", (m) => STATES[m.state] ?? m.state],
  ["images", (m) => count(m.shard_size)],
  ["trained", (m) => count(m.samples)],
  ["images/s", (m) => (m.samples_per_second === null ? NONE : m.samples_per_second.toFixed(1))],
  ["received", (m) => megabytes(m.bytes_received)],
  ["sent", (m) => megabytes(m.bytes_sent)],
  ["last seen", (m) => (m.silent_seconds === null ? NONE : `${duration(m.silent_seconds)} ago`)],
  ["exit", (m) => percent(m.exit_accuracy)],
  ["server", (m) => percent(m.server_accuracy)],
  ["at threshold", (m) => percent(m.threshold_accuracy)],
  ["offloaded", (m) => percent(m.offload_share)],
];

const byId = (id) => document.getElementById(id);

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function mean(members, field) {
  const told = members.map((member) => member[field]).filter((value) => value !== null);
  return told.length ? told.reduce((sum, value) => sum + value, 0) / told.length : null;
}

function showFacts(status) {
  const { members } = status;
  const here = members.filter((member) => !GONE.has(member.state)).length;
  const rate = members
    .filter((member) => !GONE.has(member.state))
    .reduce((sum, member) => sum + (member.samples_per_second ?? 0), 0);
  const done = status.phase === "FINISHED" ? status.rounds : status.round;
  byId("progress").value = status.phase === "SERVING" ? 1 : done / status.rounds;
  const facts = [
    ["phase", PHASES[status.phase] ?? status.phase],
    ["round", `${count(Math.min(status.round + 1, status.rounds))} of ${count(status.rounds)}`],
    ["time left", duration(status.seconds_left)],
    ["clients here", `${here} of ${members.length}`],
    ["images/s", rate.toFixed(1)],
    ["exits", percent(mean(members, "exit_accuracy"))],
    ["server", percent(mean(members, "server_accuracy"))],
    ["offloaded", percent(mean(members, "offload_share"))],
    ["images answered", count(status.answered)],
    ["saved", status.saved_seconds === null ? NONE : `${duration(status.saved_seconds)} ago`],
  ];
  byId("facts").replaceChildren(
    ...facts.map(([name, value]) => {
      const pair = document.createElement("div");
      pair.append(element("dt", name), element("dd", value, { "data-fact": name }));
      return pair;
    }),
  );
}

function showClients(members) {
  byId("clients-empty").hidden = members.length > 0;
  byId("clients").hidden = members.length === 0;
  const heading = document.createElement("tr");
  heading.append(...COLUMNS.map(([name]) => element("th", name, { scope: "col" })));
  byId("clients").tHead.replaceChildren(heading);
  byId("clients").tBodies[0].replaceChildren(
    ...members.map((member) => {
      const row = document.createElement("tr");
      row.dataset.client = member.client_id;
      row.dataset.state = member.state;
      row.classList.toggle("is-gone", GONE.has(member.state));
      row.append(
        ...COLUMNS.map(([name, value]) => element("td", value(member), { "data-name": name })),
      );
      return row;
    }),
  );
}

function showEvents(events) {
  byId("events").replaceChildren(
    ...[...events].reverse().map((event) => {
      const item = document.createElement("li");
      item.dataset.kind = event.kind;
      const when = new Date(1000 * event.time).toISOString();
      item.append(element("time", clock(event.time), { datetime: when }), element("span", event.text));
      return item;
    }),
  );
}

// One curve over all clients, and one per cut layer: what the device can answer with.
function curves(points, server, exit, scale) {
  const cuts = [...new Set(points.flatMap((point) => Object.keys(point.cuts)))].sort((a, b) => a - b);
  const pick = (values, field) => (values?.[field] === undefined ? null : scale * values[field]);
  return {
    x: points.map((point) => point.round + 1),
    series: [
      { label: "server", values: points.map((point) => pick(point.all, server)) },
      ...cuts.map((cut) => ({
        label: `exit, cut ${cut}`,
        values: points.map((point) => pick(point.cuts[cut], exit)),
      })),
    ],
  };
}

const accuracy = chart(byId("accuracy"), byId("accuracy-empty"));
const loss = chart(byId("loss"), byId("loss-empty"));

function show(status) {
  document.querySelector("main").hidden = false;
  document.title = `${status.round + 1}/${status.rounds} · Hetero-SplitEE`;
  byId("about").textContent =
    `${status.run_id} · ${status.model} · ${status.strategy} · version ${status.version}`;
  showFacts(status);
  accuracy.show(curves(status.accuracies, "server_accuracy", "exit_accuracy", 100));
  loss.show(curves(status.losses, "server_loss", "exit_loss", 1));
  showClients(status.members);
  showEvents(status.events);
}

function showLost(why, since) {
  document.body.classList.add("is-lost");
  byId("lost").hidden = false;
  byId("lost").textContent = since
    ? `The server has not answered since ${clock(since / 1000)} (${why}). Below is what it said then.`
    : `The server does not answer (${why}).`;
}

function showFound() {
  document.body.classList.remove("is-lost");
  byId("lost").hidden = true;
}

let lastAnswer = null;

async function ask() {
  try {
    const answer = await fetch("api/status", { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
    lastAnswer = Date.now();
    showFound();
  } catch (error) {
    showLost(error.name === "TimeoutError" ? "no answer in time" : error.message, lastAnswer);
  }
  setTimeout(ask, PERIOD_MS);
}

ask();
