// A host that answers each request by a function: pages that other programs make, such as Gradio's.

import { floatsOf } from "../engine/numbers.js";
import { Model } from "./model.js";
import { Queue } from "./queue.js";

export class AskingModel extends Model {
  // "ask": (request) -> a promise of {pixels (base64 of float32), milliseconds} or of {error}.
  constructor(contents, ask) {
    super({ contents });
    this.queue = new Queue(async (request) => {
      const answer = await ask(request).catch(() => ({ error: "the program that computes does not answer" }));
      const { pixels, ...rest } = answer;
      this.tell("msg:custom", { ...request, ...rest, ...(pixels ? { pixels: floatsOf(pixels, "float32") } : {}) }, []);
      this.queue.done();
    });
  }

  send(request) {
    this.queue.add(request);
  }
}
