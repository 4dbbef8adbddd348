// The list of cases: keys, files, and how many cases still wait.

import { bindKeys } from "./keys.js";
import { takeFiles } from "./upload.js";

const links = [...document.querySelectorAll(".rows .open")];

function move(step) {
  const now = links.indexOf(document.activeElement);
  const next = now < 0 ? (step > 0 ? 0 : links.length - 1) : now + step;
  links[Math.min(Math.max(next, 0), links.length - 1)]?.focus();
}

function search() {
  const text = document.getElementById("text");
  text.focus();
  text.select();
}

bindKeys({ j: () => move(1), k: () => move(-1), "/": search });
takeFiles();
if (location.hash === "#text") search();

const waiting = document.getElementById("waiting");

async function look() {
  const answer = await fetch("/waiting").catch(() => null);
  if (!answer?.ok) return;
  const left = (await answer.json()).waiting;
  waiting.dataset.waiting = left;
  if (left) {
    waiting.textContent = `${left.toLocaleString("en")} not judged yet`;
    setTimeout(look, 3000);
    return;
  }
  const again = document.createElement("a");
  again.href = location.href;
  again.textContent = "All are judged: show the list again";
  waiting.replaceChildren(again);
}

if (waiting) setTimeout(look, 3000);
