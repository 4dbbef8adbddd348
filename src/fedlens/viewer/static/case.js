// One case: image, map and outline on the stage, its controls, keys, and the parts that come later.

import { bindGestures } from "./gestures.js";
import { bindKeys, follow } from "./keys.js";
import { Stage } from "./stage.js";
import { takeFiles } from "./upload.js";

const KEPT = "fedlens.view";
const ZOOM_STEP = 1.25;
const PAN_STEP = 40;

const box = document.querySelector(".stage");
const here = `/case/${box.dataset.case}`;
const message = box.querySelector(".message");
const control = (id) => document.getElementById(id);

async function get(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.problem || `Refused (${answer.status}).`);
}

function remembered() {
  return JSON.parse(sessionStorage.getItem(KEPT) || "{}");
}

function remember(change) {
  sessionStorage.setItem(KEPT, JSON.stringify({ ...remembered(), ...change }));
}

async function showImage(stage) {
  const answer = await get(`${here}/pixels`);
  const image = JSON.parse(answer.headers.get("X-Image"));
  const bytes = await answer.arrayBuffer();
  stage.setImage(image.bits === 16 ? new Uint16Array(bytes) : new Uint8Array(bytes), image);
}

let asked = 0;

async function showMap(stage) {
  const method = control("method").value;
  const label = control("map-label").value;
  if (!method || !label) return;
  const mine = ++asked;
  box.dataset.map = "waiting";
  try {
    const answer = await get(`${here}/map/${encodeURIComponent(method)}?label=${encodeURIComponent(label)}`);
    const map = JSON.parse(answer.headers.get("X-Map"));
    const values = new Uint8Array(await answer.arrayBuffer());
    // A later choice may have been answered before this one.
    if (mine !== asked) return;
    stage.setMap(values, map.size);
    Object.assign(box.dataset, { map: "ready", method, label: map.label });
    message.textContent = map.empty ? `Nothing in the image speaks for ${map.label}.` : "";
  } catch (error) {
    if (mine === asked) {
      box.dataset.map = "failed";
      message.textContent = error.message;
    }
  }
}

async function showOutline(stage) {
  const { polygons } = await (await get(`${here}/outline`)).json();
  control("outlined").hidden = !polygons.length;
  stage.setOutline(polygons);
}

function bindControls(stage) {
  const opacity = control("opacity");
  const overlay = control("overlay");
  const method = control("method");
  const kept = remembered();
  opacity.value = kept.opacity ?? opacity.value;
  overlay.checked = kept.overlay ?? true;
  if ([...method.options].some((option) => option.value === kept.method)) method.value = kept.method;
  const apply = () => stage.set({ opacity: opacity.value / 100, overlay: overlay.checked });
  apply();
  opacity.addEventListener("input", () => {
    overlay.checked = true;
    remember({ opacity: Number(opacity.value), overlay: true });
    apply();
  });
  overlay.addEventListener("change", () => {
    remember({ overlay: overlay.checked });
    apply();
  });
  method.addEventListener("change", () => {
    remember({ method: method.value });
    showMap(stage);
  });
  control("map-label").addEventListener("change", () => showMap(stage));
  control("outline").addEventListener("change", (event) => stage.set({ outlined: event.target.checked }));
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => zoom[button.dataset.zoom](stage));
  }
}

const zoom = {
  in: (stage) => stage.zoom(ZOOM_STEP),
  out: (stage) => stage.zoom(1 / ZOOM_STEP),
  reset: (stage) => stage.reset(),
};

// Sliders of brightness and contrast: 50 is how the image came; to either side by its own window, or by its range.
function bindWindow(stage) {
  const level = control("level");
  const span = control("span");
  const change = () => {
    const { centre, span: first } = stage.image;
    stage.setWindow(centre - ((level.value - 50) / 50) * first, first * 4 ** ((50 - span.value) / 50));
  };
  level.addEventListener("input", change);
  span.addEventListener("input", change);
  box.addEventListener("drawn", () => {
    const { centre, span: first, offset, scale } = stage.image;
    if (document.activeElement !== level) level.value = 50 - ((stage.centre - centre) / first) * 50;
    if (document.activeElement !== span) span.value = 50 - (Math.log(stage.span / first) / Math.log(4)) * 50;
    const middle = Math.round(stage.centre * scale + offset);
    const half = Math.round(Math.abs(stage.span * scale) / 2);
    control("window").value = `Window ${middle} ± ${half}, zoom ${stage.view.zoom.toFixed(1)}`;
    box.classList.toggle("close", stage.view.zoom > 1);
  });
}

function bindCaseKeys(stage) {
  const slide = (step) => {
    const opacity = control("opacity");
    opacity.value = Number(opacity.value) + step;
    opacity.dispatchEvent(new Event("input"));
  };
  const choose = (id, next) => {
    control(id).checked = true;
    control(id).dispatchEvent(new Event("change", { bubbles: true }));
    (document.querySelector(next) ?? control(id)).focus();
  };
  bindKeys({
    j: () => follow(".along [rel=next]"),
    k: () => follow(".along [rel=prev]"),
    o: () => control("overlay").click(),
    ArrowLeft: () => slide(-5),
    ArrowRight: () => slide(5),
    "+": () => zoom.in(stage),
    "=": () => zoom.in(stage),
    "-": () => zoom.out(stage),
    0: () => zoom.reset(stage),
    "Shift ArrowLeft": () => stage.pan(PAN_STEP, 0),
    "Shift ArrowRight": () => stage.pan(-PAN_STEP, 0),
    "Shift ArrowUp": () => stage.pan(0, PAN_STEP),
    "Shift ArrowDown": () => stage.pan(0, -PAN_STEP),
    a: () => choose("agree", "[data-review] [value=stay]"),
    d: () => choose("disagree", "#label"),
    "/": () => {
      const list = new URL(document.querySelector("[data-list]").href);
      list.hash = "text";
      location.assign(list);
    },
  });
}

function bindReview() {
  const instead = document.querySelector("[data-instead]");
  if (!instead) return;
  const show = () => {
    instead.hidden = !control("disagree").checked;
  };
  document.querySelector("[data-review]").addEventListener("change", show);
  show();
}

async function fillParts() {
  for (const part of document.querySelectorAll("[data-part]")) {
    const answer = await fetch(part.dataset.part).catch(() => null);
    if (answer?.ok) part.innerHTML = await answer.text();
    else part.textContent = "They cannot be shown now.";
    part.dataset.state = answer?.ok ? "ready" : "failed";
  }
}

async function start() {
  const stage = new Stage(box);
  bindReview();
  bindControls(stage);
  bindCaseKeys(stage);
  takeFiles();
  try {
    const [colours] = await Promise.all([get("/colours"), showImage(stage)]);
    stage.colours = new Uint8Array(await colours.arrayBuffer());
  } catch (error) {
    box.dataset.state = "failed";
    message.textContent = error.message;
    return;
  }
  document.querySelector("[data-tools]").hidden = false;
  bindWindow(stage);
  bindGestures(stage);
  await Promise.all([showMap(stage), showOutline(stage)]);
  box.dataset.state = "ready";
  await fillParts();
}

start();
