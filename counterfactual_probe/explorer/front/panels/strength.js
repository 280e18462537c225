// How far the channels go from the base's values (0) to the source's (1), and beyond.

import { element, unique } from "../look/dom.js";
import { STRENGTHS } from "../state/state.js";

const MARKS = [[-1, "away"], [0, "base"], [1, "source"], [2, "beyond"]];

export class Strength {
  constructor(store, live) {
    const [id, list] = [unique("strength"), unique("strengths")];
    this.slider = element("input", { type: "range", id, min: STRENGTHS.least, max: STRENGTHS.most, step: 0.05,
      list, disabled: !live,
      oninput: () => store.change({ strength: Number(this.slider.value) }, "strength"),
      onchange: () => store.pause() });
    this.number = element("span", { class: "number", "aria-hidden": "true" });
    const snaps = element("datalist", { id: list }, ...MARKS.map(([value]) => element("option", { value })));
    const marks = element("span", { class: "marks", "aria-hidden": "true" }, ...MARKS.map((mark) => marked(...mark)));
    this.panel = element("section", { class: "strength", "aria-label": "Strength" },
      element("label", { for: id }, "Strength"), this.slider, this.number, snaps, marks);
  }

  show({ strength }) {
    this.slider.value = strength;
    this.slider.setAttribute("aria-valuetext", `${strength.toFixed(2)}: ${meaning(strength)}`);
    this.number.textContent = strength.toFixed(2);
  }
}

function marked(value, text) {
  const made = element("span", {}, String(value).replace("-", "−"), element("span", { class: value < 0 || value > 1 ? "wide" : null }, ` ${text}`));
  made.style.setProperty("--at", (value - STRENGTHS.least) / (STRENGTHS.most - STRENGTHS.least));
  return made;
}

function meaning(strength) {
  if (strength === 0 || strength === 1) return strength ? "the source’s values" : "the base’s values";
  return strength < 0 ? "away from the source" : strength > 1 ? "beyond the source" : "between base and source";
}
