// Pixels of samples and hybrids, from whatever host computes them.

const KEPT = 64; // pictures

export class Computer {
  constructor(model, failed) {
    this.model = model;
    this.waiting = new Map(); // of requests, by number
    this.pictures = new Map(); // promises, by sample
    this.number = 0;
    this.latest = 0;
    model.on("msg:custom", (answer, buffers) => {
      const tell = this.waiting.get(answer.id);
      this.waiting.delete(answer.id);
      if (answer.error !== undefined) failed(answer.error);
      const pixels = answer.pixels ?? (buffers?.[0] ? floats(buffers[0]) : null);
      tell?.(answer.error === undefined ? { ...answer, pixels } : null);
    });
  }

  ask(request) {
    const id = ++this.number;
    return new Promise((tell) => {
      this.waiting.set(id, tell);
      this.model.send({ ...request, id });
    });
  }

  // null if it could not be computed.
  picture(sample, urgent = false) {
    if (!this.pictures.has(sample)) {
      this.pictures.set(sample, this.ask({ kind: "picture", sample, urgent }).then((answer) => answer?.pixels ?? null));
      if (this.pictures.size > KEPT) this.pictures.delete(this.pictures.keys().next().value);
    }
    return this.pictures.get(sample);
  }

  // undefined if a newer one has been asked for meanwhile, null if it could not be computed.
  async hybrid(recipe) {
    const mine = ++this.latest;
    this.asked = mine;
    // The one before is not wanted any more, and hosts do not answer it if it still waits.
    this.waiting.get(this.before)?.(undefined);
    this.waiting.delete(this.before);
    this.before = this.number + 1;
    const answer = await this.ask({ kind: "hybrid", recipe });
    if (mine !== this.latest) return undefined;
    this.given = answer;
    return answer;
  }

  // Whether nothing newer than this answer has been asked for since.
  isLatest(answer) {
    return this.given === answer && this.asked === this.latest;
  }

  // What is being computed is not wanted any more.
  outdate() {
    this.latest++;
  }
}

const floats = (buffer) => (buffer instanceof DataView
  ? new Float32Array(buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength))
  : new Float32Array(buffer));
