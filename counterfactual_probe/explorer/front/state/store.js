// The state now, the states before, and who wants to know of changes.

const MOST = 200; // steps back

export class Store {
  constructor(state) {
    this.state = state;
    this.before = [];
    this.after = [];
    this.listeners = [];
    this.key = null;
  }

  // Changes with the same key, one right after the other, are one step: a slider that is drawn, a stroke of the brush.
  change(more, key = null) {
    if (key === null || key !== this.key) {
      this.before = [...this.before, this.state].slice(-MOST);
      this.after = [];
    }
    this.key = key;
    this.state = { ...this.state, ...more };
    this.tell();
  }

  // The next change is a step of its own.
  pause() {
    this.key = null;
  }

  undo() {
    if (!this.before.length) return;
    this.after = [...this.after, this.state];
    this.state = this.before.at(-1);
    this.before = this.before.slice(0, -1);
    this.key = null;
    this.tell();
  }

  redo() {
    if (!this.after.length) return;
    this.before = [...this.before, this.state];
    this.state = this.after.at(-1);
    this.after = this.after.slice(0, -1);
    this.key = null;
    this.tell();
  }

  listen(listener) {
    this.listeners.push(listener);
  }

  tell() {
    for (const listener of this.listeners) listener(this.state);
  }
}
