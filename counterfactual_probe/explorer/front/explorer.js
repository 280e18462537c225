// The explorer: one page for every host, which gives a model with contents and answers its requests.

import { element } from "./look/dom.js";
import { Layer } from "./look/layer.js";
import { counted, percent } from "./look/words.js";
import { Actions } from "./panels/actions.js";
import { Channels } from "./panels/channels.js";
import { Choices } from "./panels/choices.js";
import { Modules } from "./panels/modules.js";
import { Region } from "./panels/region.js";
import { Strength } from "./panels/strength.js";
import { Strip } from "./panels/strip.js";
import { Brush } from "./pictures/brush.js";
import { Figures } from "./pictures/figures.js";
import { Computer } from "./state/computer.js";
import { asJson, defaultState, fromJson, recipeOf } from "./state/state.js";
import { Store } from "./state/store.js";

// "address": where the state is kept and read, as hosts/address.js says.
export function render({ model, el, address }) {
  return new Explorer(model, el, address);
}

class Explorer {
  constructor(model, el, address) {
    const contents = model.get("contents");
    Object.assign(this, { model, el, address, contents, said: "" });
    this.status = element("p", { class: "status", role: "status" });
    this.pointed = element("p", { class: "pointed" });
    this.layers = new Map(contents.layers.map((given) => [given.name, new Layer(given)]));
    this.computer = new Computer(model, (error) => this.say(`Not computed: ${error}`));
    this.store = new Store(this.firstState());
    this.parts(contents);
    el.classList.add("explorer");
    el.replaceChildren(...this.layout(contents));
    this.store.listen((state) => this.show(state));
    this.show(this.store.state);
    address.follow((text) => this.follow(text));
    address.keys(el).addEventListener("keydown", (event) => this.actions.key(event));
  }

  // Of the link by which the page was opened, or the default, which the page then says.
  firstState() {
    const text = this.address.read();
    if (!text) return defaultState(this.contents);
    try {
      return fromJson(text, this.contents);
    } catch (error) {
      this.say(`The link holds no state of this explorer (${error.message}); this is the default one.`);
      return defaultState(this.contents);
    }
  }

  parts(contents) {
    const { store, layers } = this, { live } = contents;
    const point = (...map) => this.point(...map);
    this.brush = new Brush(contents.grid, (region, more) => {
      store.change({ region, inside: store.state.inside && region !== null }, "brush");
      if (!more) store.pause();
    });
    this.figures = new Figures(contents, this.brush);
    this.strip = new Strip(contents, store, (sample) => this.computer.picture(sample));
    this.choices = new Choices(contents, layers, store);
    this.modules = new Modules(layers, store, point, live);
    this.channels = new Channels(layers, store, point, live);
    this.region = new Region(contents, store, this.brush, live);
    this.strength = new Strength(store, live);
    this.actions = new Actions(contents, store, this.address, () => this.figures.hybrid, (text) => this.say(text));
  }

  layout(contents) {
    const head = element("header", {}, element("h1", {}, contents.name),
      element("p", { class: "lede" }, "Click a module: its channels in the base take the values they have in the source, and "
        + "all that follows is computed anew."),
      this.actions.panel);
    const limits = contents.live ? null : element("p", { class: "limits", role: "note" }, contents.why);
    const left = element("div", { class: "left" }, this.figures.group, element("div", { class: "below" }, this.status, this.pointed),
      this.strip.panel);
    const right = element("div", { class: "right" }, this.choices.panel, this.modules.panel, this.strength.panel,
      this.region.panel, this.channels.panel);
    const foot = element("footer", {}, contents.about);
    return [head, ...(limits ? [limits] : []), element("main", {}, left, right), foot];
  }

  // A link that is followed while the page is open.
  follow(text) {
    if (!text || text === asJson(this.store.state, this.contents)) return;
    this.said = "";
    const { contents } = this;
    try {
      this.store.change(fromJson(text, contents));
    } catch (error) {
      this.store.change(defaultState(contents));
      this.say(`The link holds no state of this explorer (${error.message}); this is the default one.`);
    }
  }

  show(state) {
    const layer = this.layers.get(state.layer), region = layer.regionOf(state.region, this.contents.grid);
    this.brush.show(state.region);
    for (const part of [this.strip, this.choices, this.region, this.strength, this.actions]) part.show(state);
    this.modules.show(state, region);
    this.channels.show(state, region);
    this.compute(state);
    this.address.write(asJson(state, this.contents));
  }

  async compute(state) {
    const { contents, computer, figures } = this, recipe = recipeOf(state, contents);
    for (const name of ["base", "source"]) {
      figures.note(name, `sample ${state[name]}`);
      const known = contents.samples.pictures[state[name]];
      if (known && this[`${name}Shown`] !== state[name]) {
        figures.showPicture(name, known);
        if (name === "base" && !this.begun) figures.showPicture("hybrid", known);
      }
      this[`${name}Shown`] = state[name];
    }
    this.begun = true;
    this.el.setAttribute("aria-busy", "true");
    const answer = await computer.hybrid(recipe);
    if (answer === undefined) return;
    if (answer === null) this.el.setAttribute("aria-busy", "false");
    if (answer === null) return;
    const [base, source] = await Promise.all([recipe.base, recipe.source].map((sample) => computer.picture(sample, true)));
    if (!base || state.base !== this.store.state.base || state.source !== this.store.state.source) return;
    const size = answer.size ?? contents.size; // pictures in place of a generator may be smaller than its images
    figures.show("base", base, size);
    if (source) figures.show("source", source, size);
    const changed = figures.showHybrid(answer.pixels, base, size, state.region, contents.grid);
    this.latest = { recipe, pixels: answer.pixels, milliseconds: answer.milliseconds };
    this.tell(recipe, changed, answer.milliseconds);
    this.el.setAttribute("aria-busy", "false");
  }

  tell({ units }, { mean, inside }, milliseconds) {
    const parts = Object.entries(units).map(([layer, channels]) => (
      `${channels.length} of ${counted(this.layers.get(layer).channels, "channel")} of ${layer}`));
    this.figures.note("hybrid", parts.length ? `${percent(mean)} changed` : "nothing is set yet");
    const where = inside === null ? "" : ` Inside the region, ${percent(inside)} of the range changed.`;
    const time = milliseconds ? ` ${Math.round(milliseconds)} ms.` : "";
    const set = parts.length ? `Set: ${parts.join(", ")}.${where}${time}` : "Nothing is set: the hybrid is the base.";
    this.status.textContent = [this.said, set].filter(Boolean).join(" ");
    this.said = "";
  }

  // Something that the next status line must not wipe away unseen.
  say(text) {
    this.said = text;
    this.status.textContent = text;
  }

  point(map, layer, text) {
    this.figures.showMap(map, layer?.height, layer?.width);
    this.pointed.textContent = map ? text : "";
  }
}
