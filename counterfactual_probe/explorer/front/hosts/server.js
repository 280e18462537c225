// The page of a server on this machine, which computes.

import { Model } from "./model.js";
import { Queue } from "./queue.js";

// A program that was started again answers at another address, with a token of its own.
const MOVED = "the program that computes was started again. Open the address that it has printed.";

export class ServerModel extends Model {
  constructor(contents) {
    super({ contents });
    this.queue = new Queue((request) => this.compute(request));
  }

  send(request) {
    this.queue.add(request);
  }

  async compute(request) {
    this.tell("msg:custom", { ...request, ...(await answered(request)) }, []);
    this.queue.done();
  }
}

async function answered(request) {
  try {
    const { kind, sample, recipe } = request;
    const body = JSON.stringify(kind === "picture" ? { kind, sample } : { kind, recipe });
    const response = await fetch("answers", { method: "POST", headers: { "content-type": "application/json" }, body });
    if (response.status === 404) return { error: MOVED };
    if (!response.ok) return { error: await response.text() };
    const milliseconds = Number(response.headers.get("x-milliseconds"));
    return { pixels: new Float32Array(await response.arrayBuffer()), milliseconds };
  } catch {
    return { error: "the program that computes has ended. Start it again, and open the address that it prints." };
  }
}
