// Modules as a list of checkboxes: one that is checked has all its channels set to the source's values.

import { moduleColour } from "../look/colours.js";
import { canvas, element, unique } from "../look/dom.js";
import { confidence, counted, percent } from "../look/words.js";
import { paintMap } from "../pictures/painter.js";
import { withUnits } from "../state/state.js";

const HARDLY = 0.1; // of what it does where it acts most

export class Modules {
  // "point": called with a module's map while the pointer or the focus is on it, and with null after.
  constructor(layers, store, point, live) {
    Object.assign(this, { layers, store, point, live });
    this.of = element("span", { class: "note" });
    this.list = element("div", { class: "chips", role: "group", "aria-label": "Modules of the layer" });
    this.panel = element("section", { "aria-label": "Modules" },
      element("div", { class: "head" }, element("h2", {}, "Modules"), this.of), this.list);
    this.key = null;
  }

  show(state, region) {
    const layer = this.layers.get(state.layer), partition = layer.partition(state.method, state.modules);
    const key = [state.layer, state.method, state.modules].join();
    if (key !== this.key) this.make(layer, partition);
    this.key = key;
    const chosen = new Set(state.units[state.layer] ?? []);
    for (const { module, chip, box } of this.chips) {
      const set = module.channels.filter((channel) => chosen.has(channel)).length, all = set === module.channels.length;
      chip.dataset.set = set === 0 ? "none" : all ? "all" : "some";
      box.checked = all;
      box.indeterminate = set > 0 && !all;
      this.action(chip, layer, module, region);
    }
  }

  make(layer, partition) {
    const modules = partition?.modules.filter(({ channels }) => channels.length) ?? [];
    this.of.replaceChildren(`of ${layer.name}`, element("span", { class: "narrow" }, ": check one to set it"));
    this.chips = modules.map((module) => this.chip(layer, module, partition.expected));
    this.list.replaceChildren(...(modules.length ? this.chips.map(({ chip }) => chip)
      : [element("p", { class: "hint" }, "No modules were found in this layer; its channels can be set one by one.")]));
  }

  chip(layer, module, ari) {
    const sure = confidence(module.confidence, ari), picture = canvas(1, 1, { class: "map", "aria-hidden": "true" });
    paintMap(picture, module.map, layer.height, layer.width);
    const bar = element("span", { class: `bar ${sure.level}`, "aria-hidden": "true" });
    bar.style.setProperty("--share", module.confidence ?? 0);
    const [name, about, here] = ["name", "sure", "here"].map((text) => unique(text));
    const over = () => this.point(module.map, layer, `${module.name}: ${sure.text}`), out = () => this.point(null);
    const box = element("input", { type: "checkbox", "aria-labelledby": name, "aria-describedby": `${about} ${here}`,
      onchange: () => this.toggle(layer.name, module), onfocus: over, onblur: out });
    const chip = element("label", { class: `chip ${sure.level}`, onpointerenter: over, onpointerleave: out }, box, picture,
      element("span", { class: "about" }, element("span", { class: "name", id: name }, module.name),
        element("span", { class: "sure", id: about }, `${counted(module.channels.length, "channel")} · ${sure.text}`), bar,
        element("span", { class: "here", id: here })));
    chip.style.setProperty("--colour", moduleColour(module.number));
    return { module, chip, box };
  }

  // What it does in the region, and how little that is of what it does where it acts most.
  action(chip, layer, module, region) {
    const here = layer.action(module.map, region), text = chip.querySelector(".here");
    if (!region) {
      text.textContent = `changes ${percent(here)} of the range`;
      chip.dataset.hardly = "false";
      return;
    }
    const share = module.map.peak > 0 ? here / module.map.peak : 0;
    chip.dataset.hardly = String(share < HARDLY);
    text.textContent = `${share < HARDLY ? "hardly acts here: " : "here "}${percent(here)}, ${percent(share)} of its peak`;
  }

  toggle(layer, module) {
    const { state } = this.store, chosen = new Set(state.units[layer] ?? []);
    const all = module.channels.every((channel) => chosen.has(channel));
    if (!this.live) {
      // A file without a generator holds one module at a time.
      this.store.change({ units: all ? {} : { [layer]: module.channels } });
      return;
    }
    for (const channel of module.channels) all ? chosen.delete(channel) : chosen.add(channel);
    this.store.change({ units: withUnits(state, layer, chosen).units });
  }
}
