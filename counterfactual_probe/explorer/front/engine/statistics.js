// Operations that sum over many numbers: linear maps, norms, means.

import { multiply, pack } from "./matrix.js";

const packedWeights = new WeakMap();

export function linear(operation, [x, weight, bias]) {
  const [outputs, inputs] = weight.shape;
  if (!packedWeights.has(weight)) packedWeights.set(weight, pack(weight.data, outputs, inputs));
  const rows = x.data.length / inputs;
  const data = new Float32Array(rows * outputs);
  for (let row = 0; row < rows; row++) {
    const made = multiply(packedWeights.get(weight), x.data.subarray(row * inputs, (row + 1) * inputs), 1);
    if (bias) for (let i = 0; i < outputs; i++) made[i] += bias.data[i];
    data.set(made, row * outputs);
  }
  return { data, shape: operation.shape };
}

// Group and instance norms over consecutive channels, and layer norms over the last dimensions: all over runs of
// "span" consecutive numbers. Weights are one for each channel, or one for each place of a run.
export function norm(operation, [x, weight, bias]) {
  const { span, epsilon, each } = operation;
  const data = new Float32Array(x.data.length);
  const size = each === "channel" ? x.data.length / x.shape[1] : 1;
  for (let start = 0; start < data.length; start += span) {
    let sum = 0, squares = 0;
    for (let i = start; i < start + span; i++) sum += x.data[i];
    const mean = sum / span;
    for (let i = start; i < start + span; i++) squares += (x.data[i] - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / span + epsilon);
    for (let i = start; i < start + span; i++) {
      const place = each === "channel" ? Math.floor(i / size) : i - start;
      data[i] = (x.data[i] - mean) * scale * (weight ? weight.data[place] : 1) + (bias ? bias.data[place] : 0);
    }
  }
  return { data, shape: operation.shape };
}

// The mean over some dimensions, or the sum.
export function mean(operation, [x]) {
  const { dims, shape } = operation;
  const sums = new Float64Array(shape.reduce((a, b) => a * b, 1));
  const kept = x.shape.map((size, d) => (dims.includes(d) ? 1 : size));
  const index = new Array(kept.length).fill(0);
  const strides = [];
  for (let d = kept.length - 1, size = 1; d >= 0; size *= kept[d--]) strides[d] = kept[d] === 1 ? 0 : size;
  for (let i = 0, at = 0; i < x.data.length; i++) {
    sums[at] += x.data[i];
    for (let d = kept.length - 1; d >= 0; d--) {
      at += strides[d];
      if (++index[d] < x.shape[d]) break;
      at -= strides[d] * x.shape[d];
      index[d] = 0;
    }
  }
  const count = operation.sum ? 1 : x.data.length / sums.length;
  return { data: Float32Array.from(sums, (value) => value / count), shape };
}

export function averagePool(operation, [x]) {
  const { kernel, stride, shape } = operation;
  const [, channels, height, width] = shape, [, , rows, columns] = x.shape;
  const data = new Float32Array(channels * height * width);
  for (let channel = 0, i = 0; channel < channels; channel++) {
    for (let y = 0; y < height; y++) for (let column = 0; column < width; column++, i++) {
      let sum = 0;
      for (let a = 0; a < kernel[0]; a++) for (let b = 0; b < kernel[1]; b++) {
        sum += x.data[(channel * rows + y * stride[0] + a) * columns + column * stride[1] + b];
      }
      data[i] = sum / (kernel[0] * kernel[1]);
    }
  }
  return { data, shape };
}
