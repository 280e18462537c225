// Which layer, of which maps, in how many modules.

import { element, options } from "../look/dom.js";
import { counted, reproducible } from "../look/words.js";

const METHODS = {
  l2: { text: "normalised", about: "most reproducible", title: "modules of pair-normalised maps, rows of unit length" },
  bits: { text: "binarised", about: "as in the papers", title: "modules of binarised maps" },
};
const NARROW = 960; // pixels: there the choices are folded, so that the modules are near the pictures

export class Choices {
  constructor(contents, layers, store) {
    Object.assign(this, { contents, layers, store });
    this.layer = options("Layer", contents.layers.map(({ name, size, channels }) => (
      { value: name, text: name, about: `${size.join("×")}, ${counted(channels, "channel")}` })), (layer) => this.choose({ layer }));
    const methods = [...new Set(contents.layers.flatMap((one) => Object.keys(one.methods)))];
    this.method = options("Maps", methods.map((value) => ({ value, ...METHODS[value] })), (method) => this.choose({ method }));
    const counts = [...new Set(contents.layers.flatMap((one) => Object.values(one.methods).flat().map((p) => p.modules.length)))];
    this.count = options("Number of modules", counts.sort((a, b) => a - b).map((value) => ({ value, text: String(value) })),
      (modules) => this.choose({ modules }));
    this.verdict = element("p", { class: "verdict" });
    this.chosen = element("summary");
    this.details = element("details", { open: true }, this.chosen, row("Layer", this.layer.group),
      element("div", { class: "pair" }, row("Maps", this.method.group), row("Modules", this.count.group)));
    this.panel = element("section", { class: "choices", "aria-label": "Layer, maps and number of modules" }, this.details, this.verdict);
  }

  // Folds the choices once where the page is narrow, and unfolds them where it is wide.
  fit(width) {
    const narrow = width < NARROW;
    if (narrow !== this.narrow) this.details.open = !narrow;
    this.narrow = narrow;
  }

  // What does not exist in the layer, the nearest that does takes the place of.
  choose(more) {
    const state = { ...this.store.state, ...more };
    const { methods } = this.contents.layers.find(({ name }) => name === state.layer);
    const names = Object.keys(methods);
    if (names.length && !methods[state.method]) state.method = names[0];
    const counts = (methods[state.method] ?? []).map(({ modules }) => modules.length);
    if (counts.length && !counts.includes(state.modules)) {
      state.modules = counts.reduce((best, count) => (
        Math.abs(count - state.modules) < Math.abs(best - state.modules) ? count : best));
    }
    this.store.change({ layer: state.layer, method: state.method, modules: state.modules });
  }

  show(state) {
    this.layer.show(state.layer);
    this.method.show(state.method);
    this.count.show(state.modules);
    const layer = this.layers.get(state.layer), partition = layer.partition(state.method, state.modules);
    const words = partition ? [`${METHODS[state.method].text} maps`, counted(state.modules, "module")] : [];
    this.chosen.textContent = [state.layer, ...words].join(" · ");
    const found = partition ? reproducible(partition.expected) : { level: "poor", text: "none were found in this layer" };
    const filled = partition?.modules.filter(({ channels }) => channels.length).length ?? 0;
    const empty = partition && filled < partition.modules.length ? `; ${filled} of ${partition.modules.length} have channels` : "";
    this.verdict.replaceChildren(element("span", { class: `level ${found.level}` }, `Modules: ${found.text}`),
      ` with another sample of ${counted(layer.pairs, "pair")}${empty}`);
  }
}

function row(label, group) {
  return element("div", { class: "row" }, element("span", { class: "label", "aria-hidden": "true" }, label), group);
}
