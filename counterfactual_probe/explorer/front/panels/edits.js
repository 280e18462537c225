// What is set, in all layers: a chip for each layer with edits, and the way back to none.

import { button, element } from "../look/dom.js";
import { withUnits } from "../state/state.js";

const NOTHING = { units: {}, strength: 1, region: null, inside: false };

export class Edits {
  // "look": called with the name of a layer that is to be shown.
  constructor(layers, store, look) {
    Object.assign(this, { layers, store, look, key: null });
    this.list = element("div", { class: "options" });
    this.reset = button("Reset all", { class: "quiet", title: "nothing set in any layer, strength 1, no region; Undo brings it back",
      onclick: () => store.change(NOTHING) });
    this.panel = element("section", { class: "edits", "aria-label": "What is set" }, this.list, this.reset);
  }

  show(state) {
    const key = JSON.stringify([state.layer, state.units]);
    if (key !== this.key) this.make(state);
    this.key = key;
    this.reset.disabled = !Object.keys(state.units).length && state.strength === 1 && !state.region;
  }

  make({ layer, units }) {
    const focused = this.list.contains(document.activeElement);
    const names = [...this.layers.keys()].filter((name) => units[name]?.length);
    const chips = names.map((name) => this.chip(name, units[name].length, name === layer));
    this.list.replaceChildren(...(chips.length ? chips
      : [element("span", { class: "hint" }, "Nothing is set: the hybrid is the base.")]));
    if (focused) (this.list.querySelector("button") ?? this.reset).focus(); // what had the focus is gone
  }

  chip(name, count, shown) {
    const { channels } = this.layers.get(name);
    const see = button(name, { class: "option", "aria-current": shown ? "true" : null, title: `show layer ${name}`,
      onclick: () => this.look(name) }, " ", element("small", {}, `${count} of ${channels}`, element("span", { class: "wide" }, channels === 1 ? " channel" : " channels")));
    const back = button("×", { class: "quiet", "aria-label": `take back what is set in ${name}`, title: "take back",
      onclick: () => this.store.change({ units: withUnits(this.store.state, name, []).units }) });
    return element("span", { class: "edit" }, see, back);
  }
}
