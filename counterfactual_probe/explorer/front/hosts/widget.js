// The explorer in a notebook: anywidget gives the model, whose messages Python answers.

import { Model } from "./model.js";
import { Queue } from "./queue.js";

export class WidgetModel extends Model {
  constructor(widget) {
    super({ contents: widget.get("contents") });
    this.queue = new Queue(({ urgent, ...request }) => widget.send(request));
    this.answered = (answer, buffers) => {
      this.tell("msg:custom", answer, buffers);
      this.queue.done();
    };
    widget.on("msg:custom", this.answered);
    this.end = () => widget.off("msg:custom", this.answered);
  }

  send(request) {
    this.queue.add(request);
  }
}
