// Channels, by how much they act in the region or in the whole image: each can be set alone.

import { moduleColour } from "../look/colours.js";
import { button, element } from "../look/dom.js";
import { CONFIDENT, confidence, counted, percent } from "../look/words.js";
import { withUnits } from "../state/state.js";

const AT_ONCE = 96; // layers may have thousands

export class Channels {
  constructor(layers, store, point, live) {
    Object.assign(this, { layers, store, point, live, shown: AT_ONCE, layer: null });
    this.order = element("span", { class: "note" });
    this.list = element("div", { class: "channels", role: "group", "aria-label": "Channels" });
    this.more = button("", { class: "quiet", onclick: () => { this.shown += 4 * AT_ONCE; this.again(); } });
    this.panel = element("section", { "aria-label": "Channels" },
      element("div", { class: "head" }, element("h2", {}, "Channels"), this.order), legend(), this.list, this.more);
  }

  show(state, region) {
    const layer = this.layers.get(state.layer);
    if (layer !== this.layer) this.shown = AT_ONCE;
    Object.assign(this, { layer, state, region });
    const partition = layer.partition(state.method, state.modules);
    const ranked = layer.ranked(region), most = ranked[0]?.action || 1;
    const chosen = new Set(state.units[state.layer] ?? []);
    this.order.textContent = region ? "by how much they act in the region" : "by how much they act in the image";
    const cells = ranked.slice(0, this.shown).map(({ channel, action }, rank) => (
      this.fill(this.list.children[rank] ?? this.cell(), channel, action, most, partition, chosen)));
    while (this.list.children.length > cells.length) this.list.lastChild.remove();
    for (const cell of cells) if (!cell.parentNode) this.list.append(cell);
    const hidden = layer.channels - cells.length;
    this.more.hidden = hidden <= 0;
    this.more.textContent = `Show more of the other ${counted(hidden, "channel")}`;
  }

  again() {
    this.show(this.state, this.region);
  }

  // Cells stay where they are and change what they show, so that the focus stays as well.
  cell() {
    const over = (event) => this.hover(Number(event.currentTarget.dataset.channel));
    return button("", {
      class: "cell", "aria-disabled": this.live ? null : "true",
      onclick: (event) => this.toggle(Number(event.currentTarget.dataset.channel)),
      onpointerenter: over, onfocus: over, onpointerleave: () => this.point(null), onblur: () => this.point(null),
    });
  }

  fill(cell, channel, action, most, partition, chosen) {
    const label = partition?.labels[channel] ?? -1, sure = partition?.confidence?.[channel] ?? null;
    const set = chosen.has(channel);
    cell.dataset.channel = channel;
    cell.textContent = String(channel);
    cell.setAttribute("aria-pressed", String(set));
    cell.setAttribute("aria-label", `channel ${channel}, ${this.words(channel, action, partition)}`);
    cell.classList.toggle("unsure", sure !== null && sure < CONFIDENT);
    cell.style.setProperty("--colour", moduleColour(label));
    cell.style.setProperty("--share", (action / most).toFixed(3));
    return cell;
  }

  words(channel, action, partition) {
    const label = partition?.labels[channel] ?? -1;
    const of = label < 0 ? "in no module" : `in ${partition.modules[label].name}`;
    const sure = label < 0 ? "" : `, ${confidence(partition.confidence?.[channel] ?? null, partition.expected).text}`;
    const error = this.layer.errors[channel];
    const range = error === null ? "" : ` ± ${percent(action * error)}`;
    return `${of}${sure}; changes ${percent(action)}${range} of the range ${this.region ? "here" : "on average"}`;
  }

  hover(channel) {
    const partition = this.layer.partition(this.state.method, this.state.modules);
    const map = this.layer.maps[channel], action = this.layer.action(map, this.region);
    this.point(map, this.layer, `Channel ${channel} ${this.words(channel, action, partition)}`);
  }

  toggle(channel) {
    if (!this.live) return;
    const { state } = this.store, chosen = new Set(state.units[state.layer] ?? []);
    if (!chosen.delete(channel)) chosen.add(channel);
    this.store.change({ units: withUnits(state, state.layer, chosen).units });
  }
}

function legend() {
  const look = (name, text) => element("li", {}, element("span", { class: `swatch ${name}`, "aria-hidden": "true" }), text);
  return element("ul", { class: "legend" }, look("of", "above: its module"), look("acts", "below: how much it acts"),
    look("unsure", `dashed: module unsure (below ${CONFIDENT})`), look("chosen", "filled: set"));
}
