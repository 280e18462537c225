// Requests of a page, one at a time: the newest hybrid goes first and replaces one that still waits; then what is urgent.

export class Queue {
  // "run": called with a request; call "done" when its answer is there.
  constructor(run) {
    this.run = run;
    this.busy = false;
    this.hybrid = null;
    this.others = [];
  }

  add(request) {
    if (request.kind === "hybrid") this.hybrid = request;
    else if (request.urgent) this.others.unshift(request);
    else this.others.push(request);
    this.next();
  }

  done() {
    this.busy = false;
    this.next();
  }

  next() {
    if (this.busy) return;
    const request = this.hybrid ?? this.others.shift();
    if (request === undefined) return;
    if (request === this.hybrid) this.hybrid = null;
    this.busy = true;
    this.run(request);
  }
}
