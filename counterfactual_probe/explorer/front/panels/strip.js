// The samples to choose base and source from.

import { button, canvas, element } from "../look/dom.js";
import { paintImage } from "../pictures/painter.js";

export class Strip {
  // "picture": (sample) -> a promise of its pixels.
  constructor(contents, store, picture) {
    Object.assign(this, { contents, store, picture, role: "base", cells: new Map(), key: "" });
    this.roles = ["base", "source"].map((role) => button("", { class: `option ${role}`, "aria-label": `Choose ${role}`,
      title: "which of the two a click on a sample chooses; with Shift, a click chooses the other", onclick: () => this.setRole(role) },
      element("span", { class: "wide" }, "Choose "), role));
    const shuffle = button("Shuffle", { class: "quiet", title: "other samples; base, source and pinned ones stay", onclick: () => this.shuffle() });
    const swap = button("Swap", { class: "quiet", title: "base and source change places",
      onclick: () => store.change({ base: store.state.source, source: store.state.base }) });
    this.list = element("div", { class: "samples", role: "group", "aria-label": "Samples" });
    this.panel = element("section", { class: "strip", "aria-label": "Samples" },
      element("div", { class: "head" }, element("div", { class: "options", role: "group", "aria-label": "A click on a sample" }, ...this.roles),
        swap, shuffle),
      this.list);
    this.setRole("base");
  }

  setRole(role) {
    this.role = role;
    this.roles.forEach((one, i) => one.setAttribute("aria-pressed", String(["base", "source"][i] === role)));
  }

  choose(sample, other) {
    const role = other ? { base: "source", source: "base" }[this.role] : this.role;
    this.store.change({ [role]: sample });
  }

  // Other samples in place of all that are neither pinned nor in use.
  shuffle() {
    const { state } = this.store, kept = new Set([...state.pinned, state.base, state.source]);
    const free = Array.from({ length: this.contents.samples.count }, (_, i) => i).filter((i) => !kept.has(i) && !state.strip.includes(i));
    const others = free.length ? free : state.strip.filter((i) => !kept.has(i));
    const strip = state.strip.map((sample) => {
      if (kept.has(sample) || !others.length) return sample;
      return others.splice(Math.floor(Math.random() * others.length), 1)[0];
    });
    if (free.length) this.store.change({ strip });
    else this.anotherPair();
  }

  // Where the file holds no further samples, two others of them are base and source, as far as these are not pinned.
  anotherPair() {
    const { strip, pinned, base, source } = this.store.state, pair = { base, source };
    for (const role of ["base", "source"].filter((one) => !pinned.includes(pair[one]))) {
      const others = strip.filter((sample) => !pinned.includes(sample) && sample !== pair.base && sample !== pair.source);
      if (others.length) pair[role] = others[Math.floor(Math.random() * others.length)];
    }
    this.store.change(pair);
  }

  pin(sample) {
    const { pinned } = this.store.state;
    this.store.change({ pinned: pinned.includes(sample) ? pinned.filter((one) => one !== sample) : [...pinned, sample] });
  }

  show({ strip, base, source, pinned }) {
    if (strip.join() !== this.key) {
      this.key = strip.join();
      this.cells = new Map(strip.map((sample) => [sample, this.cells.get(sample) ?? this.cell(sample)]));
      this.list.replaceChildren(...[...this.cells.values()].map(({ holder }) => holder));
    }
    for (const [sample, { choose, pin, role }] of this.cells) {
      const roles = [sample === base ? "base" : "", sample === source ? "source" : ""].filter(Boolean).join(" and ");
      role.textContent = roles;
      role.dataset.role = choose.dataset.role = roles;
      choose.setAttribute("aria-label", `sample ${sample}${roles ? `, ${roles}` : ""}`);
      pin.setAttribute("aria-pressed", String(pinned.includes(sample)));
    }
  }

  cell(sample) {
    const [, height, width] = this.contents.size, picture = canvas(width, height, { "aria-hidden": "true" });
    const role = element("span", { class: "role", "aria-hidden": "true" });
    const choose = button("", { class: "sample", onclick: (event) => this.choose(sample, event.shiftKey) }, picture, role);
    const pin = button("", { class: "pin", "aria-label": `keep sample ${sample} when shuffling`, title: "keep when shuffling",
      onclick: () => this.pin(sample) });
    this.draw(sample, picture);
    return { holder: element("div", { class: "holder" }, choose, pin), choose, pin, role };
  }

  async draw(sample, target) {
    const known = this.contents.samples.pictures[sample];
    if (!known) {
      const made = await this.picture(sample);
      if (made) paintImage(target, made, this.contents.size, this.contents.range);
      return;
    }
    const image = new Image();
    image.src = known;
    await image.decode();
    target.width = image.naturalWidth;
    target.height = image.naturalHeight;
    target.getContext("2d").drawImage(image, 0, 0);
  }
}
