// The explorer: one page for every host, which gives a model with contents and answers its requests.

import { element } from "./look/dom.js";
import { Layer } from "./look/layer.js";
import { percent } from "./look/words.js";
import { Actions } from "./panels/actions.js";
import { Channels } from "./panels/channels.js";
import { Choices } from "./panels/choices.js";
import { Edits } from "./panels/edits.js";
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
    new ResizeObserver(([{ contentRect }]) => this.choices.fit(contentRect.width)).observe(el);
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
    }, () => this.say("To draw a region with a finger, press Draw on the picture.", true));
    this.figures = new Figures(contents, this.brush);
    this.strip = new Strip(contents, store, (sample) => this.computer.picture(sample));
    this.choices = new Choices(contents, layers, store);
    this.edits = new Edits(layers, store, (layer) => this.choices.choose({ layer }));
    this.modules = new Modules(layers, store, point, live);
    this.channels = new Channels(layers, store, point, live);
    this.region = new Region(contents, store, this.brush, live);
    this.strength = new Strength(store, live);
    this.actions = new Actions(contents, store, this.address, () => this.figures.hybrid, (...said) => this.say(...said));
  }

  layout(contents) {
    const limits = contents.live ? null : element("p", { class: "limits", role: "note" }, contents.why);
    const head = element("header", {}, element("h1", {}, contents.name),
      element("p", { class: "lede" }, "Check a module: its channels in the base take the values they have in the "
        + "source, and all that follows is computed anew."),
      this.actions.panel, limits);
    const left = element("div", { class: "left" }, this.figures.group, element("div", { class: "below" }, this.status, this.pointed),
      this.edits.panel, this.strip.panel);
    const right = element("div", { class: "right" }, this.choices.panel, this.modules.panel, this.strength.panel,
      this.region.panel, this.channels.panel);
    const foot = element("footer", {}, contents.about);
    return [head, element("main", {}, left, right), foot];
  }

  // A link that is followed while the page is open.
  follow(text) {
    if (!text || text === this.text) return;
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
    for (const part of [this.strip, this.edits, this.choices, this.region, this.strength, this.actions]) part.show(state);
    this.modules.show(state, region);
    this.channels.show(state, region);
    this.compute(state);
    this.address.write(this.text);
  }

  // The state, as links hold it.
  get text() {
    return asJson(this.store.state, this.contents);
  }

  async compute(state) {
    const { contents, computer, figures } = this, recipe = recipeOf(state, contents), key = JSON.stringify(recipe);
    if (this.latest?.key === key) {
      // The region alone has changed, or what was asked for meanwhile has been taken back.
      computer.outdate();
      this.draw(state);
      return;
    }
    this.preview(state);
    this.el.setAttribute("aria-busy", "true");
    const answer = await computer.hybrid(recipe);
    if (answer === undefined) return;
    const [base, source] = answer === null ? [null, null]
      : await Promise.all([recipe.base, recipe.source].map((sample) => computer.picture(sample, true)));
    if (!computer.isLatest(answer)) return;
    if (base && source) {
      const size = answer.size ?? contents.size; // pictures in place of a generator may be smaller than its images
      this.latest = { key, recipe, pixels: answer.pixels, base, source, size, milliseconds: answer.milliseconds };
      this.draw(this.store.state);
    }
    this.el.setAttribute("aria-busy", "false");
  }

  // What is known of base and source before anything is computed.
  preview({ base, source }) {
    const { pictures } = this.contents.samples;
    for (const [name, sample] of [["base", base], ["source", source]]) {
      if (this.previewed?.[name] === sample) continue;
      this.figures.note(name, `sample ${sample}`);
      if (pictures[sample]) this.figures.showPicture(name, pictures[sample]);
    }
    if (!this.previewed && pictures[base]) this.figures.showPicture("hybrid", pictures[base]);
    this.previewed = { base, source };
  }

  draw({ region }) {
    const { latest, figures, contents } = this, { recipe, size } = latest;
    for (const name of ["base", "source"]) {
      figures.show(name, latest[name], size);
      figures.note(name, `sample ${recipe[name]}`);
    }
    this.previewed = { base: recipe.base, source: recipe.source };
    const changed = figures.showHybrid(latest.pixels, latest.base, size, region, contents.grid);
    this.tell(recipe, changed);
    this.el.setAttribute("aria-busy", "false");
  }

  tell({ units }, { mean, inside }) {
    const set = Object.keys(units).length > 0;
    this.figures.note("hybrid", set ? `${percent(mean)} changed` : "as the base");
    const where = inside === null ? "" : ` Inside the region, ${percent(inside)} of the range changed.`;
    const changed = set ? `Changed by ${percent(mean)} of the image’s range.${where}` : "";
    this.status.textContent = [this.said, changed].filter(Boolean).join(" ");
    this.said = "";
  }

  // Something that the next status line must not wipe away unseen, unless it is of no more than this moment.
  say(text, brief = false) {
    this.said = brief ? "" : text;
    this.status.textContent = text;
  }

  point(map, layer, text) {
    this.figures.showMap(map, layer?.height, layer?.width);
    this.pointed.textContent = map ? text : "";
  }
}
