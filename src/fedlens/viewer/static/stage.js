// One image on a canvas: grey values through window and level, a heat map over it, an outline, zoom and pan.

const MOST_ZOOM = 32;
const HEAT_SIDE = 512;
const OUTLINE = "rgb(64, 224, 208)";
const OPAQUE = 0xff000000;

function scratch(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** What each stored value looks like, 0 to 255, as DICOM's linear window has it. */
export function windowTable(bits, centre, span) {
  const table = new Uint8ClampedArray(2 ** bits);
  const wide = Math.max(span, 1);
  for (let value = 0; value < table.length; value++) table[value] = ((value - centre) / wide + 0.5) * 255;
  return table;
}

/** A map's values between its places: bilinear, from `size` x `size` to `width` x `height`. */
export function enlarge(values, size, width, height) {
  const result = new Uint8ClampedArray(width * height);
  const place = (index, count) => Math.min(Math.max(((index + 0.5) * size) / count - 0.5, 0), size - 1);
  for (let y = 0; y < height; y++) {
    const v = place(y, height);
    const top = Math.floor(v);
    const below = Math.min(top + 1, size - 1);
    for (let x = 0; x < width; x++) {
      const u = place(x, width);
      const left = Math.floor(u);
      const right = Math.min(left + 1, size - 1);
      const upper = values[top * size + left] * (1 - u + left) + values[top * size + right] * (u - left);
      const lower = values[below * size + left] * (1 - u + left) + values[below * size + right] * (u - left);
      result[y * width + x] = upper * (1 - v + top) + lower * (v - top);
    }
  }
  return result;
}

export class Stage {
  /** Draws into `box`'s canvas and tells its state in the box's data attributes; `colours` are needed for maps. */
  constructor(box) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.colours = this.image = this.picture = this.heat = null;
    this.polygons = [];
    this.opacity = 0.7;
    this.overlay = this.outlined = true;
    this.stale = false;
    this.view = { zoom: 1, x: 0, y: 0 };
    this.frames = 0;
    new ResizeObserver(() => this.draw()).observe(box);
  }

  /** Take an image: values, and `height`, `width`, `channels`, `bits`, `centre`, `span` to read them by. */
  setImage(values, image) {
    this.image = { ...image, values, range: 2 ** image.bits - 1 };
    this.picture = scratch(image.width, image.height);
    this.resetWindow();
  }

  /** Take a map, `size` x `size` bytes. */
  setMap(values, size) {
    const { width, height } = this.image;
    const scale = Math.min(1, HEAT_SIDE / Math.max(width, height));
    const wide = Math.max(1, Math.round(width * scale));
    const high = Math.max(1, Math.round(height * scale));
    const heat = enlarge(values, size, wide, high);
    const pixels = new ImageData(wide, high);
    for (let index = 0; index < heat.length; index++) {
      pixels.data.set(this.colours.subarray(3 * heat[index], 3 * heat[index] + 3), 4 * index);
      pixels.data[4 * index + 3] = heat[index];
    }
    this.heat = scratch(wide, high);
    this.heat.getContext("2d").putImageData(pixels, 0, 0);
    this.draw();
  }

  setOutline(polygons) {
    this.polygons = polygons;
    this.draw();
  }

  set(change) {
    Object.assign(this, change);
    this.draw();
  }

  setWindow(centre, span) {
    const { range } = this.image;
    this.centre = Math.min(Math.max(centre, -range), 2 * range);
    this.span = Math.min(Math.max(span, 1), 4 * range);
    this.stale = true;
    this.draw();
  }

  resetWindow() {
    this.setWindow(this.image.centre, this.image.span);
  }

  /** From stored values to a picture. */
  develop() {
    const { values, width, height, channels, bits } = this.image;
    const pixels = new ImageData(width, height);
    const words = new Uint32Array(pixels.data.buffer);
    const table = windowTable(bits, this.centre, this.span);
    const [red, green, blue] = [0, 8, 16].map((shift) => Uint32Array.from(table, (shade) => shade << shift));
    if (channels === 1) {
      const grey = red.map((shade, value) => OPAQUE | shade | green[value] | blue[value]);
      for (let index = 0; index < words.length; index++) words[index] = grey[values[index]];
    } else {
      for (let index = 0, place = 0; index < words.length; index++, place += 3) {
        words[index] = OPAQUE | red[values[place]] | green[values[place + 1]] | blue[values[place + 2]];
      }
    }
    this.picture.getContext("2d").putImageData(pixels, 0, 0);
    this.stale = false;
  }

  /** Zoom by a factor; the place at (x, y) of the canvas, in CSS pixels, stays where it is. */
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    if (!this.image) return;
    const { view, canvas } = this;
    const zoom = Math.min(Math.max(view.zoom * factor, 1), MOST_ZOOM);
    const real = zoom / view.zoom;
    const right = x - canvas.clientWidth / 2;
    const down = y - canvas.clientHeight / 2;
    this.view = { zoom, x: right - (right - view.x) * real, y: down - (down - view.y) * real };
    this.draw();
  }

  pan(right, down) {
    this.view.x += right;
    this.view.y += down;
    this.draw();
  }

  reset() {
    this.view = { zoom: 1, x: 0, y: 0 };
    if (this.image) this.resetWindow();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.picture) this.paint();
    });
  }

  /** CSS pixels for each image pixel at zoom 1. */
  get fit() {
    return Math.min(
      this.canvas.clientWidth / this.image.width,
      this.canvas.clientHeight / this.image.height,
    );
  }

  paint() {
    if (this.stale) this.develop();
    const { canvas, context, view } = this;
    const { width, height } = this.image;
    const dense = window.devicePixelRatio || 1;
    const wide = Math.round(canvas.clientWidth * dense);
    const high = Math.round(canvas.clientHeight * dense);
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    const scale = this.fit * view.zoom;
    // No further than until the image's edge is in the middle.
    view.x = Math.min(Math.max(view.x, (-width * scale) / 2), (width * scale) / 2);
    view.y = Math.min(Math.max(view.y, (-height * scale) / 2), (height * scale) / 2);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, wide, high);
    const whole = scale * dense;
    context.setTransform(
      whole, 0, 0, whole,
      wide / 2 + view.x * dense - (width * whole) / 2,
      high / 2 + view.y * dense - (height * whole) / 2,
    );
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, 0, 0);
    if (this.overlay && this.heat) {
      context.globalAlpha = this.opacity;
      context.drawImage(this.heat, 0, 0, width, height);
      context.globalAlpha = 1;
    }
    if (this.outlined) this.trace(whole / dense);
    this.tell();
  }

  trace(scale) {
    const { width, height } = this.image;
    const path = new Path2D();
    for (const polygon of this.polygons) {
      polygon.forEach(([x, y], index) => path[index ? "lineTo" : "moveTo"](x * width, y * height));
      path.closePath();
    }
    for (const [style, thick] of [["rgb(0 0 0 / 60%)", 4], [OUTLINE, 2]]) {
      this.context.strokeStyle = style;
      this.context.lineWidth = thick / scale;
      this.context.stroke(path);
    }
  }

  /** State that people read below the image, and tests. */
  tell() {
    this.frames += 1;
    Object.assign(this.box.dataset, {
      zoom: this.view.zoom.toFixed(3),
      x: Math.round(this.view.x),
      y: Math.round(this.view.y),
      opacity: this.opacity.toFixed(2),
      overlay: this.overlay ? "on" : "off",
      outline: this.outlined && this.polygons.length ? "on" : "off",
      centre: Math.round(this.centre),
      span: Math.round(this.span),
      frames: this.frames,
    });
    this.box.dispatchEvent(new CustomEvent("drawn"));
  }
}
