// The region: parts of the image by name, the brush and its size, and whether changes stay inside.

import { bytesOf } from "../engine/numbers.js";
import { valuesOf } from "../engine/masks.js";
import { button, element, unique } from "../look/dom.js";
import { SIZES } from "../pictures/brush.js";

export class Region {
  constructor(contents, store, brush, live) {
    Object.assign(this, { store, brush });
    const count = contents.grid[0] * contents.grid[1];
    this.named = contents.regions.map(({ name, bits }) => {
      const values = valuesOf(bytesOf(bits), count);
      return { values, part: button(name, { class: "option", onclick: () => this.choose(values) }) };
    });
    this.erase = button("Erase", { class: "option", "aria-pressed": "false", onclick: () => this.setErasing(!brush.erasing) });
    this.clear = button("Clear", { class: "quiet", onclick: () => store.change({ region: null, inside: false }) });
    this.inside = element("input", { type: "checkbox", id: unique("inside"), disabled: !live,
      onchange: () => store.change({ inside: this.inside.checked }) });
    this.inside.locked = !live;
    this.panel = element("section", { "aria-label": "Region" },
      element("div", { class: "head" }, element("h2", {}, "Region"), element("span", { class: "note" }, "draw on the base, or choose"),
        this.clear),
      element("div", { class: "options", role: "group", "aria-label": "Parts of the image" }, ...this.named.map(({ part }) => part)),
      element("div", { class: "tools", role: "group", "aria-label": "Brush" }, ...this.size(), this.erase),
      element("label", { class: "check", for: this.inside.id }, this.inside, "Change only inside the region"));
  }

  // While the size is being set, the picture shows it.
  size() {
    const { brush } = this, id = unique("size"), hide = () => brush.showSize(false);
    const slider = element("input", { type: "range", id, min: SIZES.least, max: SIZES.most, step: 0.5, value: SIZES.usual,
      "aria-valuetext": `${SIZES.usual} % of the picture`, onblur: hide, onchange: hide,
      oninput: () => {
        brush.size = Number(slider.value);
        slider.setAttribute("aria-valuetext", `${slider.value} % of the picture`);
        brush.showSize(true);
      } });
    return [element("label", { for: id, class: "label" }, "Brush size"), slider];
  }

  setErasing(erasing) {
    this.brush.erasing = erasing;
    this.erase.setAttribute("aria-pressed", String(erasing));
  }

  choose(values) {
    const same = this.store.state.region?.join() === values.join();
    this.store.change(same ? { region: null, inside: false } : { region: values });
  }

  show({ region, inside }) {
    const key = region?.join();
    for (const { values, part } of this.named) part.setAttribute("aria-pressed", String(key === values.join()));
    this.clear.disabled = !region;
    this.inside.checked = inside;
    this.inside.disabled = this.inside.locked || !region;
    this.erase.disabled = !region;
    if (!region && this.brush.erasing) this.setErasing(false);
  }
}
