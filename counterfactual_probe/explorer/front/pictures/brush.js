// The brush: a region on the base picture, by pointer, by finger or by keys.

import { button, canvas } from "../look/dom.js";
import { outlined, ring } from "./outline.js";

export const SIZES = { least: 4, usual: 11, most: 40 }; // across, in percent of the picture's longer side
const CELL = 8; // pixels of the surface
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

export class Brush {
  // "change": called with the new region (values on the grid, or null) and whether the stroke goes on; "touched": called
  // when a finger is put on the picture to no effect.
  constructor([height, width], change, touched) {
    Object.assign(this, { height, width, change, size: SIZES.usual, erasing: false, values: null });
    Object.assign(this, { cursor: null, last: null, over: null, fingers: false });
    this.surface = canvas(width * CELL, height * CELL, {
      class: "brush", tabindex: "0", role: "application",
      "aria-label": "Region on the base picture. Arrow keys move, space paints, delete clears.",
    });
    // A finger scrolls the page, unless it is to draw.
    this.toggle = button("Draw", { class: "option draw", "aria-pressed": "false", title: "draw a region with a finger",
      onclick: () => this.setFingers(!this.fingers) });
    const { surface } = this;
    surface.addEventListener("pointerdown", (event) => this.start(event));
    surface.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) surface.addEventListener(name, () => this.stop());
    surface.addEventListener("pointerleave", () => this.hover(null));
    surface.addEventListener("click", (event) => { if (this.scrolls(event)) touched(); });
    surface.addEventListener("keydown", (event) => this.key(event));
    surface.addEventListener("blur", () => { this.cursor = null; this.draw(); });
  }

  setFingers(fingers) {
    this.fingers = fingers;
    this.surface.dataset.fingers = String(fingers);
    this.toggle.setAttribute("aria-pressed", String(fingers));
  }

  scrolls({ pointerType }) {
    return pointerType === "touch" && !this.fingers;
  }

  start(event) {
    if (event.button !== 0 || !event.isPrimary || this.scrolls(event)) return;
    event.preventDefault();
    this.surface.setPointerCapture(event.pointerId);
    this.last = this.place(event);
    this.mark(this.last);
    this.tell(true);
  }

  move(event) {
    const to = this.place(event);
    if (!this.last) {
      this.hover(event.pointerType === "touch" ? null : to);
      return;
    }
    const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - this.last[0], to[1] - this.last[1]) * 2));
    for (let i = 1; i <= steps; i++) {
      this.mark([0, 1].map((d) => this.last[d] + ((to[d] - this.last[d]) * i) / steps));
    }
    this.last = this.over = to;
    this.tell(true);
  }

  stop() {
    if (!this.last) return;
    this.last = null;
    this.tell(false);
  }

  // Where the brush would paint.
  hover(place) {
    this.over = place;
    this.draw();
  }

  showSize(shown) {
    this.hover(shown ? [this.height / 2, this.width / 2] : null);
  }

  place(event) {
    const box = this.surface.getBoundingClientRect();
    return [((event.clientY - box.top) / box.height) * this.height, ((event.clientX - box.left) / box.width) * this.width];
  }

  get radius() {
    return Math.max(0.75, (this.size / 200) * Math.max(this.height, this.width));
  }

  mark([row, column]) {
    const values = this.values ? Uint8Array.from(this.values) : new Uint8Array(this.height * this.width);
    for (let y = 0; y < this.height; y++) for (let x = 0; x < this.width; x++) {
      if (Math.hypot(y + 0.5 - row, x + 0.5 - column) <= this.radius) values[y * this.width + x] = this.erasing ? 0 : 1;
    }
    this.values = values;
  }

  tell(more) {
    this.change(this.values?.some(Boolean) ? this.values : null, more);
  }

  key(event) {
    const step = ARROWS[event.key];
    this.cursor ??= [Math.floor(this.height / 2), Math.floor(this.width / 2)];
    if (step) {
      const most = [this.height - 1, this.width - 1];
      this.cursor = this.cursor.map((at, d) => Math.min(most[d], Math.max(0, at + step[d])));
      this.draw();
    } else if (event.key === " ") {
      this.mark(this.cursor.map((at) => at + 0.5));
      this.tell(false);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.change(null, false);
    } else return;
    event.preventDefault();
  }

  show(values) {
    this.values = values;
    this.draw();
  }

  draw() {
    const context = this.surface.getContext("2d");
    context.clearRect(0, 0, this.surface.width, this.surface.height);
    if (this.values) outlined(context, this.values, this.height, this.width, CELL);
    const at = this.over ?? this.cursor?.map((place) => place + 0.5);
    if (at) ring(context, at.map((place) => place * CELL), this.radius * CELL, this.erasing);
  }
}
