// The hybrid as a file: in its own size, and enlarged.

import { button, canvas, element, unique } from "../look/dom.js";

const LARGE = 512; // pixels of the longer side, at least

export class Save {
  constructor(contents, store, hybrid, say) {
    Object.assign(this, { contents, store, hybrid, say });
    this.title = element("h2", { id: unique("title") }, "Save the hybrid");
    this.sizes = element("div", { class: "options" });
    this.note = element("p", { class: "note" });
    this.dialog = element("dialog", { "aria-labelledby": this.title.id }, this.title, this.sizes, this.note,
      button("Close", { class: "quiet", onclick: () => this.dialog.close() }));
    this.open = button("Save picture", { class: "quiet", onclick: () => this.offer() });
  }

  offer() {
    const { width, height } = this.hybrid(), times = Math.ceil(LARGE / Math.max(width, height));
    const offered = (factor, about) => button(`${width * factor}×${height * factor}`, { class: "option",
      onclick: () => this.save(factor) }, element("small", {}, about));
    this.sizes.replaceChildren(offered(1, "pixel by pixel"), ...(times > 1 ? [offered(times, "enlarged")] : []));
    this.note.textContent = times > 1 ? "The enlarged picture is smoothed, as on this page; measure on the other one." : "";
    this.dialog.showModal();
  }

  save(factor) {
    const picture = this.hybrid(), { base, source } = this.store.state;
    const name = `${this.contents.file}-${base}-${source}-hybrid${factor > 1 ? `-${picture.width * factor}` : ""}.png`;
    this.dialog.close();
    enlarged(picture, factor).toBlob((blob) => {
      const address = URL.createObjectURL(blob);
      element("a", { href: address, download: name }).click();
      this.say(`Saved as ${name}.`, true);
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
  }
}

function enlarged(picture, factor) {
  if (factor === 1) return picture;
  const made = canvas(picture.width * factor, picture.height * factor), context = made.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, made.width, made.height);
  return made;
}
