// Undo, a link to the state, the picture as a file, and the Python lines that make it.

import { button, element } from "../look/dom.js";
import { pythonLines } from "../state/python.js";
import { asJson } from "../state/state.js";

export class Actions {
  constructor(contents, store, hybrid, say) {
    Object.assign(this, { contents, store, hybrid, say });
    this.undo = button("Undo", { class: "quiet", title: "Ctrl+Z", onclick: () => store.undo() });
    this.redo = button("Redo", { class: "quiet", title: "Ctrl+Shift+Z", onclick: () => store.redo() });
    this.text = element("textarea", { readonly: true, rows: "14", "aria-label": "Text to copy", spellcheck: "false" });
    this.title = element("h2", { id: "dialog-title" });
    this.dialog = element("dialog", { "aria-labelledby": "dialog-title" }, this.title, this.text,
      element("div", { class: "head" }, button("Copy", { class: "option", onclick: () => this.copy() }),
        button("Close", { class: "quiet", onclick: () => this.dialog.close() })));
    this.panel = element("div", { class: "actions" }, this.undo, this.redo,
      button("Link", { class: "quiet", onclick: () => this.offer("A link to what you see", this.link()) }),
      button("Python", { class: "quiet", onclick: () => this.offer("The same in Python", pythonLines(store.state, contents)) }),
      button("Save picture", { class: "quiet", onclick: () => this.save() }), this.dialog);
    document.addEventListener("keydown", (event) => this.key(event));
  }

  link() {
    const address = new URL(location.href);
    address.hash = encodeURIComponent(asJson(this.store.state, this.contents));
    return address.href;
  }

  offer(title, text) {
    this.title.textContent = title;
    this.text.value = text;
    this.dialog.showModal();
    this.text.select();
  }

  async copy() {
    this.text.select();
    try {
      await navigator.clipboard.writeText(this.text.value);
      this.say("Copied.");
      this.dialog.close();
    } catch {
      this.say("The browser does not let pages copy; press Ctrl+C.");
    }
  }

  save() {
    this.hybrid().toBlob((blob) => {
      const address = URL.createObjectURL(blob);
      element("a", { href: address, download: `${this.contents.file}-hybrid.png` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
  }

  key(event) {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || this.dialog.open) return;
    event.preventDefault();
    if (event.shiftKey) this.store.redo();
    else this.store.undo();
  }

  show() {
    this.undo.disabled = !this.store.before.length;
    this.redo.disabled = !this.store.after.length;
  }
}
