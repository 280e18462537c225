// The page as a single file: a worker computes with the program that the file carries.

import { Answers } from "../engine/answers.js";
import { Model } from "./model.js";
import { Precomputed } from "./precomputed.js";
import { Queue } from "./queue.js";

export class FileModel extends Model {
  // "program": the text of the program, empty if the file holds pictures instead; "script": this page's own script.
  constructor(contents, program, script) {
    super({ contents });
    this.queue = new Queue((request) => this.compute(request));
    if (program) this.open(program, script);
    else this.compute = this.looker(new Precomputed(contents));
  }

  send(request) {
    this.queue.add(request);
  }

  // A worker keeps the page responsive. Where the browser allows none, the page computes by itself.
  open(program, script) {
    const alone = () => {
      const answers = new Answers(program);
      this.compute = (request) => setTimeout(() => this.finish(answers.answer(request)), 0);
    };
    try {
      const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
      const worker = new Worker(address);
      worker.onmessage = ({ data }) => {
        this.opened ||= data.kind === "opened";
        this.finish(data);
      };
      worker.onerror = () => {
        if (this.opened) return;
        worker.terminate();
        alone();
        if (this.current) this.compute(this.current);
        else this.queue.done();
      };
      this.compute = (request) => {
        this.current = request;
        worker.postMessage(request);
      };
      this.queue.busy = true;
      worker.postMessage({ kind: "open", program });
    } catch {
      alone();
    }
  }

  looker(precomputed) {
    return (request) => precomputed.answer(request).then((answer) => this.finish(answer));
  }

  finish(answer) {
    if (answer.kind !== "opened" && answer.kind !== "open") this.tell("msg:custom", answer, []);
    if (answer.kind === "open") this.tell("msg:custom", { kind: "failed", error: answer.error }, []);
    this.queue.done();
  }
}
