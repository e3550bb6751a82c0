"use strict";
// Shows pairs of videos, keeps the votes in this browser, and gives them as a file of JSON lines.
// The page knows videos by their tokens alone; which system made which stands in the key, which is not here.
const study = JSON.parse(document.getElementById("study").textContent);
const at = (id) => document.getElementById(id);
const sides = { left: at("left"), right: at("right") };
let rater = "";
let votes = [];
let trial = null;
let started = {};
let shownAt = 0;
let kept = true;

// A generator of numbers in [0, 1) that is the same for the same text: the order of a rater survives a reload.
function numbers(text) {
  let state = 2166136261;
  for (const letter of text) state = Math.imul(state ^ letter.codePointAt(0), 16777619) >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (let i = 0; i < 16; i++) next();
  return next;
}

function trialsOf(name) {
  const next = numbers(study.id + "/" + name);
  const trials = study.pairs.map((pair) => {
    const swapped = next() < 0.5;
    const [left, right] = swapped ? [pair.clips[1], pair.clips[0]] : pair.clips;
    return { pair: pair.id, caption: pair.caption, left, right };
  });
  for (let i = trials.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [trials[i], trials[j]] = [trials[j], trials[i]];
  }
  return trials;
}

const storeName = () => `mpjax/study/${study.id}/${rater}`;

function load() {
  try {
    return JSON.parse(localStorage.getItem(storeName()) || "[]");
  } catch {
    return [];
  }
}

function save() {
  try {
    localStorage.setItem(storeName(), JSON.stringify(votes));
  } catch {
    kept = false;
  }
  at("notice").textContent = kept ? "" : "This browser keeps nothing: download your votes before you close the page.";
  at("download").disabled = votes.length === 0;
  at("undo").disabled = votes.length === 0;
}

function show() {
  const done = new Set(votes.map((vote) => vote.pair));
  const trials = trialsOf(rater).slice(0, study.votes_per_rater || study.pairs.length);
  trial = trials.find((each) => !done.has(each.pair)) || null;
  const left = trials.filter((each) => !done.has(each.pair)).length;
  at("progress").textContent = `${trials.length - left} of ${trials.length} pairs`;
  at("trial").hidden = trial === null;
  at("end").hidden = trial !== null;
  save();
  if (trial === null) {
    for (const side of Object.values(sides)) side.removeAttribute("src");
    return;
  }
  at("caption").textContent = trial.caption;
  started = {};
  enable(false);
  shownAt = Date.now();
  for (const [name, side] of Object.entries(sides)) {
    side.src = `videos/${trial[name]}`;
    side.load();
  }
  replay();
}

function replay() {
  for (const side of Object.values(sides)) {
    side.currentTime = 0;
    side.play().catch(() => {}); // the controls remain where a browser refuses to start by itself
  }
}

function enable(on) {
  for (const button of document.querySelectorAll("button[data-choice]")) button.disabled = !on;
}

function vote(choice) {
  if (trial === null || !(started.left && started.right)) return;
  votes.push({
    study: study.id,
    rater,
    pair: trial.pair,
    left: trial.left,
    right: trial.right,
    choice,
    seconds: (Date.now() - shownAt) / 1000,
    at: new Date().toISOString(),
  });
  show();
}

function download() {
  const text = votes.map((each) => JSON.stringify(each) + "\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  link.download = `votes-${study.id}-${rater.replace(/[^\w-]+/g, "_")}.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

for (const [name, side] of Object.entries(sides)) {
  side.addEventListener("playing", () => {
    started[name] = true;
    enable(started.left && started.right);
  });
  side.addEventListener("error", () => {
    if (trial === null) return;
    at("notice").textContent = `The ${name} video, videos/${trial[name]}, cannot be played here; ` +
      "try another browser, or tell the person who gave you this page.";
  });
}
at("start").addEventListener("submit", (event) => {
  event.preventDefault();
  rater = at("rater").value.trim();
  if (!rater) return;
  at("start").hidden = true;
  at("work").hidden = false;
  votes = load();
  show();
});
for (const button of document.querySelectorAll("button[data-choice]")) {
  button.addEventListener("click", () => vote(button.dataset.choice));
}
at("replay").addEventListener("click", replay);
at("download").addEventListener("click", download);
at("undo").addEventListener("click", () => {
  votes.pop();
  show();
});
document.addEventListener("keydown", (event) => {
  if (at("work").hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const choice = { 1: "left", 2: "right", 0: "tie" }[event.key];
  if (choice) vote(choice);
  if (event.key === "r") replay();
});
