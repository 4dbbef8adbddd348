// Single keys of a page, and the dialog that lists them and switches them off.

const STORED = "fedlens.keys";

function typing(target) {
  if (target.isContentEditable || target.tagName === "TEXTAREA") return true;
  return target.tagName === "INPUT" && !["checkbox", "radio", "range", "file", "submit"].includes(target.type);
}

// A slider, a list of choices and a group of radio buttons need the arrows for themselves.
function steering(target) {
  return ["SELECT", "INPUT"].includes(target.tagName);
}

/** Bind keys; `bindings` maps a key's name to what it does. */
export function bindKeys(bindings) {
  const help = document.getElementById("help");
  const on = document.getElementById("keys-on");
  on.checked = localStorage.getItem(STORED) !== "off";
  on.addEventListener("change", () => localStorage.setItem(STORED, on.checked ? "on" : "off"));
  for (const button of document.querySelectorAll("[data-help]")) {
    button.hidden = false;
    button.addEventListener("click", () => help.showModal());
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || help.open || typing(event.target)) return;
    if (event.key.startsWith("Arrow") && steering(event.target)) return;
    if (event.target.tagName === "SELECT" || !on.checked) return;
    const name = event.shiftKey && event.key.startsWith("Arrow") ? `Shift ${event.key}` : event.key;
    const action = name === "?" ? () => help.showModal() : bindings[name];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Follow the first link that matches, if there is one. */
export function follow(selector) {
  document.querySelector(selector)?.click();
}
