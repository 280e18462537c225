// Convolutions of one image (1, channels, height, width): ordinary, transposed and in polyphase form.

import { multiply, pack } from "./matrix.js";

// Kernels are packed once; a constant is one object for as long as the program lives.
const packedKernels = new WeakMap();

function packed(weight, make) {
  if (!packedKernels.has(weight)) packedKernels.set(weight, make());
  return packedKernels.get(weight);
}

export function convolution(operation, [x, weight, bias]) {
  const step = operation.transposed ? transposed : ordinary;
  const [, , height, width] = operation.shape;
  const result = grouped(operation, x, weight, step);
  if (bias) addBias(result, bias.data, height * width);
  return { data: result, shape: operation.shape };
}

// Groups of channels, one after the other; nearly always there is one.
function grouped(operation, x, weight, step) {
  const { groups, shape } = operation;
  const size = x.shape[2] * x.shape[3], channels = x.shape[1] / groups;
  const kernels = packed(weight, () => Array.from({ length: groups }, (_, g) => kernelOf(operation, weight, g)));
  if (groups === 1) return step(operation, x.data, x.shape, kernels[0]);
  const result = new Float32Array(shape[1] * shape[2] * shape[3]);
  for (let g = 0; g < groups; g++) {
    const part = x.data.subarray(g * channels * size, (g + 1) * channels * size);
    const made = step(operation, part, [1, channels, x.shape[2], x.shape[3]], kernels[g]);
    result.set(made, g * made.length);
  }
  return result;
}

function kernelOf({ groups, transposed: across }, weight, group) {
  const [first, ...rest] = weight.shape;
  const rows = first / groups, inner = rest.reduce((a, b) => a * b, 1);
  const part = weight.data.subarray(group * rows * inner, (group + 1) * rows * inner);
  const [height, width] = weight.shape.slice(2);
  // Of a transposed convolution the rows are inputs, and each gives a patch of the output.
  const matrix = across ? pack(part, inner, rows, true) : pack(part, rows, inner);
  return { matrix, height, width };
}

function ordinary({ stride, padding, dilation, shape }, data, [, channels, height, width], kernel) {
  const [, , outHeight, outWidth] = shape;
  const direct = kernel.height * kernel.width === 1 && stride[0] * stride[1] === 1 && padding[0] + padding[1] === 0;
  if (direct) return multiply(kernel.matrix, data, height * width);
  const places = outHeight * outWidth;
  const patches = new Float32Array(channels * kernel.height * kernel.width * places);
  eachTap(channels, kernel, (channel, i, j, tap) => {
    for (let y = 0; y < outHeight; y++) {
      const row = y * stride[0] - padding[0] + i * dilation[0];
      if (row < 0 || row >= height) continue;
      const from = (channel * height + row) * width, to = tap * places + y * outWidth;
      const offset = j * dilation[1] - padding[1];
      const first = Math.max(0, Math.ceil(-offset / stride[1]));
      const last = Math.min(outWidth, Math.ceil((width - offset) / stride[1]));
      for (let x = first; x < last; x++) patches[to + x] = data[from + x * stride[1] + offset];
    }
  });
  return multiply(kernel.matrix, patches, places);
}

function transposed({ stride, padding, dilation, shape, groups }, data, [, , height, width], kernel) {
  const [, all, outHeight, outWidth] = shape;
  const outputs = all / groups, places = height * width;
  const patches = multiply(kernel.matrix, data, places);
  const result = new Float32Array(outputs * outHeight * outWidth);
  eachTap(outputs, kernel, (channel, i, j, tap) => {
    for (let y = 0; y < height; y++) {
      const row = y * stride[0] - padding[0] + i * dilation[0];
      if (row < 0 || row >= outHeight) continue;
      const to = (channel * outHeight + row) * outWidth, from = tap * places + y * width;
      const offset = j * dilation[1] - padding[1];
      const first = Math.max(0, Math.ceil(-offset / stride[1]));
      const last = Math.min(width, Math.ceil((outWidth - offset) / stride[1]));
      for (let x = first; x < last; x++) result[to + x * stride[1] + offset] += patches[from + x];
    }
  });
  return result;
}

function eachTap(channels, { height, width }, visit) {
  let tap = 0;
  for (let channel = 0; channel < channels; channel++) {
    for (let i = 0; i < height; i++) for (let j = 0; j < width; j++) visit(channel, i, j, tap++);
  }
}

// An ordinary convolution of the small image to the phases of the large one, which are then put side by side.
export function polyphase(operation, [x, weight, bias]) {
  const { factor, starts, taps, shape } = operation;
  const [, , height, width] = x.shape, [, outputs, outHeight, outWidth] = shape;
  const before = Math.max(0, -Math.min(...starts));
  const after = Math.max(0, Math.max(...starts) + taps - 1);
  const span = before + after + 1;
  const gridHeight = height + span - taps, gridWidth = width + span - taps;
  const inner = { stride: [1, 1], padding: [before, before], dilation: [1, 1], shape: [1, 0, gridHeight, gridWidth] };
  const matrix = packed(weight, () => pack(weight.data, weight.shape[0], weight.data.length / weight.shape[0]));
  const grid = ordinary(inner, x.data, x.shape, { matrix, height: taps, width: taps });
  if (bias) addBias(grid, bias.data, gridHeight * gridWidth);
  const result = new Float32Array(outputs * outHeight * outWidth);
  for (let p = 0; p < factor; p++) for (let q = 0; q < factor; q++) {
    for (let channel = 0; channel < outputs; channel++) {
      const plane = ((p * factor + q) * outputs + channel) * gridHeight;
      for (let y = 0; y < height; y++) {
        const from = (plane + y + starts[p] + before) * gridWidth + starts[q] + before;
        const to = (channel * outHeight + y * factor + p) * outWidth + q;
        for (let x = 0; x < width; x++) result[to + x * factor] = grid[from + x];
      }
    }
  }
  return { data: result, shape };
}

function addBias(values, bias, size) {
  for (let channel = 0; channel < bias.length; channel++) {
    const end = (channel + 1) * size;
    for (let i = channel * size; i < end; i++) values[i] += bias[channel];
  }
}
