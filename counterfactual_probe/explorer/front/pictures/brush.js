// The brush: a region on the base picture, by pointer or by keys.

import { canvas } from "../look/dom.js";

const RADIUS = 0.055; // of the picture's side
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

export class Brush {
  // "change": called with the new region (values on the grid, or null) and whether the stroke goes on.
  constructor([height, width], change) {
    Object.assign(this, { height, width, change, erasing: false, values: null, cursor: null, last: null });
    this.surface = canvas(width * 8, height * 8, {
      class: "brush", tabindex: "0", role: "application",
      "aria-label": "Region on the base picture. Arrow keys move, space paints, delete clears.",
    });
    this.surface.addEventListener("pointerdown", (event) => this.start(event));
    this.surface.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) this.surface.addEventListener(name, () => this.stop());
    this.surface.addEventListener("keydown", (event) => this.key(event));
    this.surface.addEventListener("blur", () => { this.cursor = null; this.draw(); });
  }

  start(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.surface.setPointerCapture(event.pointerId);
    this.last = this.place(event);
    this.paint(this.last);
  }

  move(event) {
    if (!this.last) return;
    const to = this.place(event), steps = Math.max(1, Math.ceil(Math.hypot(to[0] - this.last[0], to[1] - this.last[1]) * 2));
    for (let i = 1; i <= steps; i++) {
      this.mark([0, 1].map((d) => this.last[d] + ((to[d] - this.last[d]) * i) / steps));
    }
    this.last = to;
    this.tell(true);
  }

  stop() {
    if (!this.last) return;
    this.last = null;
    this.tell(false);
  }

  place(event) {
    const box = this.surface.getBoundingClientRect();
    return [((event.clientY - box.top) / box.height) * this.height, ((event.clientX - box.left) / box.width) * this.width];
  }

  paint(place) {
    this.mark(place);
    this.tell(true);
  }

  mark([row, column]) {
    const radius = Math.max(0.75, RADIUS * Math.max(this.height, this.width));
    const values = this.values ? Uint8Array.from(this.values) : new Uint8Array(this.height * this.width);
    for (let y = 0; y < this.height; y++) for (let x = 0; x < this.width; x++) {
      if (Math.hypot(y + 0.5 - row, x + 0.5 - column) <= radius) values[y * this.width + x] = this.erasing ? 0 : 1;
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

  // Everything outside is veiled, and the region has an outline in black and white, which shows on any picture.
  draw() {
    const context = this.surface.getContext("2d"), cell = 8;
    context.clearRect(0, 0, this.surface.width, this.surface.height);
    if (this.values) {
      const inside = (y, x) => y >= 0 && x >= 0 && y < this.height && x < this.width && this.values[y * this.width + x];
      context.fillStyle = "rgb(0 0 0 / .38)";
      for (const [colour, wide] of [["#000", 4], ["#fff", 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = wide;
        context.beginPath();
        for (let y = 0; y < this.height; y++) for (let x = 0; x < this.width; x++) {
          if (!inside(y, x)) {
            if (wide === 4) context.fillRect(x * cell, y * cell, cell, cell);
            continue;
          }
          if (!inside(y - 1, x)) line(context, x * cell, y * cell, cell, 0);
          if (!inside(y + 1, x)) line(context, x * cell, (y + 1) * cell, cell, 0);
          if (!inside(y, x - 1)) line(context, x * cell, y * cell, 0, cell);
          if (!inside(y, x + 1)) line(context, (x + 1) * cell, y * cell, 0, cell);
        }
        context.stroke();
      }
    }
    if (this.cursor) {
      context.strokeStyle = "#fff";
      context.lineWidth = 2;
      context.strokeRect(this.cursor[1] * cell - 1, this.cursor[0] * cell - 1, cell + 2, cell + 2);
      context.strokeStyle = "#000";
      context.strokeRect(this.cursor[1] * cell - 3, this.cursor[0] * cell - 3, cell + 6, cell + 6);
    }
  }
}

function line(context, x, y, right, down) {
  context.moveTo(x, y);
  context.lineTo(x + right, y + down);
}
