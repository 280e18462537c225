// The four pictures, large: base, hybrid, source, and what changed.

import { canvas, element } from "../look/dom.js";
import { percent } from "../look/words.js";
import { differences, paintDifference, paintImage, paintMap } from "./painter.js";

const LEAST_FULL = 0.1; // of the range: smaller changes are not blown up to look large

export class Figures {
  constructor(contents, brush) {
    this.contents = contents;
    const [, height, width] = contents.size;
    this.overlay = canvas(1, 1, { class: "overlay", "aria-hidden": "true" });
    this.overlay.hidden = true;
    this.made = Object.fromEntries(["base", "hybrid", "source", "difference"].map((name) => {
      const picture = canvas(width, height, { role: "img", "aria-label": name, class: "picture" });
      const note = element("span", { class: "note" });
      const more = { base: [brush.surface, brush.toggle], difference: [this.overlay] }[name] ?? [];
      const frame = element("div", { class: "frame" }, picture, ...more);
      const title = element("strong", { class: "title" }, name[0].toUpperCase() + name.slice(1));
      return [name, { picture, note, title, turn: null,
        figure: element("figure", { class: name }, frame, element("figcaption", {}, title, note)) }];
    }));
    this.group = element("section", { class: "figures", "aria-label": "Pictures" },
      ...Object.values(this.made).map(({ figure }) => figure));
    this.group.style.setProperty("--ratio", `${width} / ${height}`);
  }

  show(name, pixels, size = this.contents.size) {
    this.made[name].turn = null; // what is still being decoded comes too late
    paintImage(this.made[name].picture, pixels, size, this.contents.range);
  }

  // Draws a picture that is an address of data, before anything is computed.
  async showPicture(name, address) {
    const image = new Image(), { picture } = this.made[name];
    this.made[name].turn = image;
    image.src = address;
    await image.decode();
    if (this.made[name].turn !== image) return;
    picture.width = image.naturalWidth;
    picture.height = image.naturalHeight;
    picture.getContext("2d").drawImage(image, 0, 0);
  }

  // The hybrid and its difference from the base; returns the mean change, in all and inside a region.
  showHybrid(hybrid, base, size, region, grid) {
    const { range } = this.contents, [channels, height, width] = size;
    const changes = differences(hybrid, base, channels, height * width, range[1] - range[0]);
    const most = changes.reduce((largest, change) => Math.max(largest, change), 0);
    const full = Math.max(LEAST_FULL, most);
    this.show("hybrid", hybrid, size);
    paintDifference(this.made.difference.picture, hybrid, base, size, range, full);
    const mean = changes.reduce((sum, change) => sum + change, 0) / changes.length;
    this.made.difference.note.textContent = most ? `yellow: ${percent(full)}` : "none";
    return { mean, inside: region ? meanInside(changes, size, region, grid) : null };
  }

  note(name, text) {
    this.made[name].note.textContent = text;
  }

  // A map of where something acts, in place of the difference; null takes it away.
  showMap(map, height, width) {
    const { title, note } = this.made.difference;
    this.overlay.hidden = map === null;
    title.textContent = map ? "Where it acts" : "Difference";
    note.hidden = map !== null;
    if (map) paintMap(this.overlay, map, height, width, true);
  }

  get hybrid() {
    return this.made.hybrid.picture;
  }
}

function meanInside(changes, [, height, width], region, [rows, columns]) {
  let sum = 0, count = 0;
  changes.forEach((change, i) => {
    const y = Math.floor((Math.floor(i / width) * rows) / height), x = Math.floor(((i % width) * columns) / width);
    if (region[y * columns + x]) { sum += change; count++; }
  });
  return count ? sum / count : 0;
}
