// How far the channels go from the base's values (0) to the source's (1), and beyond.

import { element, unique } from "../look/dom.js";
import { STRENGTHS } from "../state/state.js";

export class Strength {
  constructor(store, live) {
    const [id, list] = [unique("strength"), unique("strengths")];
    this.slider = element("input", { type: "range", id, min: STRENGTHS.least, max: STRENGTHS.most, step: 0.05,
      list, disabled: !live,
      oninput: () => store.change({ strength: Number(this.slider.value) }, "strength"),
      onchange: () => store.pause() });
    this.number = element("span", { class: "number", "aria-hidden": "true" });
    const marks = element("datalist", { id: list }, ...[0, 1].map((value) => element("option", { value })));
    this.panel = element("section", { class: "strength", "aria-label": "Strength" },
      element("label", { for: id }, "Strength"), this.slider, this.number, marks,
      element("span", { class: "ends", "aria-hidden": "true" }, element("span", {}, "base"), element("span", {}, "source")));
  }

  show({ strength }) {
    this.slider.value = strength;
    this.number.textContent = strength.toFixed(2);
  }
}
