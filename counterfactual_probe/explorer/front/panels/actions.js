// Undo, a link to the state, the picture as a file, and the Python lines that make it.

import { button, element, unique } from "../look/dom.js";
import { pythonLines } from "../state/python.js";
import { asJson } from "../state/state.js";
import { Save } from "./save.js";

export class Actions {
  constructor(contents, store, address, hybrid, say) {
    Object.assign(this, { contents, store, address, say });
    this.undo = button("Undo", { class: "quiet", title: "Ctrl+Z", onclick: () => store.undo() });
    this.redo = button("Redo", { class: "quiet", title: "Ctrl+Shift+Z", onclick: () => store.redo() });
    this.text = element("textarea", { readonly: true, rows: "14", "aria-label": "Text to copy", spellcheck: "false" });
    this.title = element("h2", { id: unique("title") });
    this.note = element("p", { class: "note" });
    this.dialog = element("dialog", { "aria-labelledby": this.title.id }, this.title, this.note, this.text,
      element("div", { class: "options" }, button("Copy", { class: "option", onclick: () => this.copy() }),
        button("Close", { class: "quiet", onclick: () => this.dialog.close() })));
    this.saving = new Save(contents, store, hybrid, say);
    this.panel = element("div", { class: "actions" }, this.undo, this.redo,
      button("Link", { class: "quiet",
        onclick: () => this.offer(address.title, address.link(asJson(store.state, contents)), address.reach()) }),
      button("Python", { class: "quiet", onclick: () => this.offer("The same in Python", pythonLines(store.state, contents)) }),
      this.saving.open, this.dialog, this.saving.dialog);
  }

  offer(title, text, note = "") {
    this.title.textContent = title;
    this.note.textContent = note;
    this.text.value = text;
    this.dialog.showModal();
    this.text.select();
    this.text.scrollTop = 0;
  }

  async copy() {
    this.text.select();
    try {
      await navigator.clipboard.writeText(this.text.value);
      this.say(["Copied.", this.note.textContent].filter(Boolean).join(" "), true);
      this.dialog.close();
    } catch {
      this.say("The browser does not let pages copy; press Ctrl+C.");
    }
  }

  key(event) {
    const asked = this.dialog.open || this.saving.dialog.open;
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || asked) return;
    event.preventDefault();
    if (event.shiftKey) this.store.redo();
    else this.store.undo();
  }

  show() {
    this.undo.disabled = !this.store.before.length;
    this.redo.disabled = !this.store.after.length;
  }
}
