// Keeps the study's page up to date: asks what has changed, and puts only that in its place.
"use strict";

const OFTEN = 2000, SELDOM = 15000;
const MINUTE = 60, HOUR = 3600, DAY = 86400;

const page = document.getElementById("study");
const said = document.getElementById("study-said");
const lost = document.getElementById("study-lost");
// What the server sent of each part: the page itself may have opened folds and local times since.
const served = new Map(parts(page).map((part) => [part.id, part.outerHTML]));
let tag = page.dataset.tag, timer = 0, asking = false;

function parts(root) {
  return [...root.querySelectorAll("[data-part]")];
}

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const then = new Date(time.dateTime);
    const text = "ago" in time.dataset ? ago(then) : clock(then);
    if (time.textContent !== text) time.textContent = text;
    time.title = then.toLocaleString();
  }
}

function ago(then) {
  const seconds = Math.max(0, Math.round((Date.now() - then) / 1000));
  if (seconds < 2 * MINUTE) return `${seconds} s ago`;
  if (seconds < 2 * HOUR) return `${Math.floor(seconds / MINUTE)} min ago`;
  return seconds < DAY ? `${Math.floor(seconds / HOUR)} h ago` : `on ${clock(then)}`;
}

function clock(then) {
  const today = new Date().toDateString() === then.toDateString();
  const time = { hour: "2-digit", minute: "2-digit" };
  return then.toLocaleString([], today ? time : { day: "numeric", month: "short", year: "numeric", ...time });
}

// What a reader did to a part, to be done again to what comes in its place.
function touched(part) {
  const scrolled = [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
  const open = new Set([...part.querySelectorAll("details[open]")].map(foldName));
  return { scrolled, open };
}

function touchAgain(part, { scrolled, open }) {
  for (const fold of part.querySelectorAll("details")) fold.open = open.has(foldName(fold));
  part.querySelectorAll(".scroll").forEach((box, place) => { box.scrollLeft = scrolled[place] ?? 0; });
}

function foldName(fold) {
  return fold.id || fold.querySelector("summary").textContent;
}

// Where the focus is in a part, as a path that leads to the same place in the new one.
function focusPath(part) {
  if (!part.contains(document.activeElement)) return null;
  const all = [...part.querySelectorAll("a, summary, .scroll")];
  return { id: document.activeElement.id, place: all.indexOf(document.activeElement) };
}

function focusAgain(part, path) {
  if (!path) return;
  const target = path.id ? document.getElementById(path.id) : part.querySelectorAll("a, summary, .scroll")[path.place];
  (target ?? part).focus({ preventScroll: true });
}

function drop(part) {
  // Nobody is to be left at the top of the page because what they were at has gone.
  if (part.contains(document.activeElement)) document.getElementById("main").focus({ preventScroll: true });
  served.delete(part.id);
  part.remove();
}

function swap(html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const wanted = parts(fresh.content);
  const anchor = parts(page).find((part) => part.getBoundingClientRect().bottom > 0);
  const before = anchor ? anchor.getBoundingClientRect().top : 0;
  const names = new Set(wanted.map((part) => part.id));
  for (const part of parts(page)) if (!names.has(part.id)) drop(part);
  let last = null;
  for (const part of wanted) {
    const text = part.outerHTML;
    let here = document.getElementById(part.id);
    if (!here) {
      last ? last.after(part) : page.prepend(part);
      here = part;
    } else if (served.get(part.id) !== text) {
      const path = focusPath(here), kept = touched(here);
      here.replaceWith(part);
      touchAgain(part, kept);
      focusAgain(part, path);
      here = part;
    }
    served.set(part.id, text);
    last = here;
  }
  localTimes(page);
  const after = anchor && document.getElementById(anchor.id);
  // What lies above may have grown; what is being read stays where it is.
  if (after && window.scrollY > 0) window.scrollBy({ top: after.getBoundingClientRect().top - before, behavior: "instant" });
}

function announce(earlier) {
  const now = document.getElementById("study-head").dataset.said;
  if (now !== earlier) said.textContent = now;
}

function tell(problem) {
  if (lost.textContent !== problem) lost.textContent = problem;
}

async function ask() {
  const answer = await fetch(page.dataset.live, { headers: { "If-None-Match": tag }, cache: "no-store" });
  if (answer.status === 304) return tell("");
  if (answer.status === 401 || answer.redirected) return tell("You have been logged out. Log in again to go on.");
  if (!answer.ok) return tell((await answer.json().catch(() => ({}))).problem ?? "The viewer cannot read the study at the moment.");
  const html = await answer.text();
  tag = answer.headers.get("ETag") ?? "";
  const earlier = document.getElementById("study-head").dataset.said;
  swap(html);
  announce(earlier);
  tell("");
}

async function poll() {
  if (asking) return;
  asking = true;
  try {
    await ask();
  } catch {
    tell("The viewer does not answer. This page goes on asking.");
  } finally {
    asking = false;
  }
  plan();
}

function plan() {
  clearTimeout(timer);
  if (document.hidden) return;
  const state = document.getElementById("study-head").dataset.state;
  timer = setTimeout(poll, ["running", "waiting"].includes(state) ? OFTEN : SELDOM);
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
setInterval(() => { if (!document.hidden) localTimes(page); }, 1000);
localTimes(page);
plan();
