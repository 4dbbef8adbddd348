// Mouse and fingers on a stage: zoom, pan, window and level.

// Pixels of a drag that double the window, or move it by its own width.
const WINDOW_TRAVEL = 300;
const WHEEL_STEP = 0.0015;

function middle(points) {
  const [a, b] = points;
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, far: Math.hypot(a.x - b.x, a.y - b.y) };
}

/** Let a stage be moved by pointers. */
export function bindGestures(stage) {
  const { canvas, box } = stage;
  const pointers = new Map();

  function at(event) {
    const edge = canvas.getBoundingClientRect();
    return { x: event.clientX - edge.left, y: event.clientY - edge.top };
  }

  function drag(event, before, now) {
    if (event.shiftKey || event.buttons & 2) {
      const step = stage.image.span / WINDOW_TRAVEL;
      stage.setWindow(stage.centre - (now.y - before.y) * step, stage.span + (now.x - before.x) * step);
    } else {
      stage.pan(now.x - before.x, now.y - before.y);
    }
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (!stage.image) return;
    pointers.set(event.pointerId, at(event));
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const earlier = [...pointers.values()];
    pointers.set(event.pointerId, at(event));
    if (pointers.size === 1) {
      drag(event, before, at(event));
    } else if (pointers.size === 2) {
      const [from, to] = [middle(earlier), middle([...pointers.values()])];
      stage.pan(to.x - from.x, to.y - from.y);
      if (from.far > 0) stage.zoom(to.far / from.far, to.x, to.y);
    }
    // While the whole image is seen, a finger moves the page.
    box.classList.toggle("close", stage.view.zoom > 1);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => stage.reset());
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!stage.image) return;
      event.preventDefault();
      const place = at(event);
      // Some mice count lines instead of pixels.
      const turned = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * 30 : event.deltaY;
      stage.zoom(Math.exp(-turned * WHEEL_STEP), place.x, place.y);
      box.classList.toggle("close", stage.view.zoom > 1);
    },
    { passive: false },
  );
}
