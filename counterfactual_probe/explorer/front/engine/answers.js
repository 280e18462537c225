// What the interpreter is asked, in a worker or in the page itself: one request, one answer.

import { Program } from "./program.js";

export class Answers {
  constructor(text) {
    this.program = new Program(JSON.parse(text));
  }

  // {kind: "picture", sample} or {kind: "hybrid", recipe} -> the same with pixels, and how long it took.
  answer(request) {
    const start = performance.now();
    const pixels = request.kind === "hybrid"
      ? this.program.hybrid(request.recipe)
      : this.program.picture(request.sample);
    return { ...request, pixels: Float32Array.from(pixels), milliseconds: performance.now() - start };
  }
}

// In a worker: the first message is the program, all others are requests.
export function serve(scope) {
  let answers = null;
  scope.onmessage = ({ data }) => {
    try {
      if (data.kind === "open") {
        answers = new Answers(data.program);
        scope.postMessage({ kind: "opened" });
        return;
      }
      const answer = answers.answer(data);
      scope.postMessage(answer, [answer.pixels.buffer]);
    } catch (error) {
      scope.postMessage({ ...data, program: undefined, error: String(error?.message ?? error) });
    }
  };
}
