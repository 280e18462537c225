// Operations that move numbers: other shapes, parts, joins, other sizes of an image.

import { stridesOf } from "./pointwise.js";

export const reshape = (operation, [x]) => ({ data: x.data, shape: operation.shape });

// Each place of the result, told by its index along every dimension, reads one place of x.
function gathered(operation, x, strides, start) {
  const { shape } = operation;
  const total = shape.reduce((a, b) => a * b, 1);
  const data = new Float32Array(total);
  const index = new Array(shape.length).fill(0);
  for (let i = 0, at = start; i < total; i++) {
    data[i] = x.data[at];
    for (let d = shape.length - 1; d >= 0; d--) {
      at += strides[d];
      if (++index[d] < shape[d]) break;
      at -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
  return { data, shape };
}

export function permute(operation, [x]) {
  const strides = stridesOf(x.shape);
  return gathered(operation, x, operation.dims.map((d) => strides[d]), 0);
}

export function slice(operation, [x]) {
  const strides = stridesOf(x.shape);
  const start = strides[operation.dim] * operation.start;
  strides[operation.dim] *= operation.step;
  return gathered(operation, x, strides, start);
}

export function select(operation, [x]) {
  const strides = stridesOf(x.shape);
  const [stride] = strides.splice(operation.dim, 1);
  return gathered(operation, x, strides, stride * operation.index);
}

export function cat(operation, values) {
  const { dim, shape } = operation;
  const outer = shape.slice(0, dim).reduce((a, b) => a * b, 1);
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  const row = data.length / outer;
  let place = 0;
  for (const value of values) {
    const size = value.data.length / outer;
    for (let i = 0; i < outer; i++) data.set(value.data.subarray(i * size, (i + 1) * size), i * row + place);
    place += size;
  }
  return { data, shape };
}

export function pad(operation, [x]) {
  const { before, number, shape } = operation;
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(number);
  const strides = stridesOf(shape);
  const index = new Array(shape.length).fill(0);
  let at = before.reduce((sum, size, d) => sum + size * strides[d], 0);
  for (let i = 0; i < x.data.length; i++) {
    data[at] = x.data[i];
    for (let d = shape.length - 1; d >= 0; d--) {
      at += strides[d];
      if (++index[d] < x.shape[d]) break;
      at -= strides[d] * x.shape[d];
      index[d] = 0;
    }
  }
  return { data, shape };
}

// Padding with numbers of the image itself: reflected at its edges, the edges' own, or those of the other side.
const BEYOND = {
  reflect: (at, size) => (at < 0 ? -at : at >= size ? 2 * size - 2 - at : at),
  replicate: (at, size) => Math.min(size - 1, Math.max(0, at)),
  circular: (at, size) => (at + size) % size,
};

export function padFrom(operation, [x]) {
  const { before, mode, shape } = operation, strides = stridesOf(x.shape);
  // For each dimension, where each place of the result reads.
  const reads = shape.map((size, d) => Array.from({ length: size }, (_, i) => strides[d] * BEYOND[mode](i - before[d], x.shape[d])));
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  const index = new Array(shape.length).fill(0), last = shape.length - 1;
  for (let i = 0; i < data.length;) {
    const row = index.reduce((sum, place, d) => (d < last ? sum + reads[d][place] : sum), 0);
    for (const column of reads[last]) data[i++] = x.data[row + column];
    for (let d = last - 1; d >= 0; d--) {
      if (++index[d] < shape[d]) break;
      index[d] = 0;
    }
  }
  return { data, shape };
}

export function nearest(operation, [x]) {
  const [, channels, height, width] = operation.shape, [, , rows, columns] = x.shape;
  const data = new Float32Array(channels * height * width);
  for (let channel = 0, i = 0; channel < channels; channel++) {
    for (let y = 0; y < height; y++) {
      const from = (channel * rows + Math.floor((y * rows) / height)) * columns;
      for (let column = 0; column < width; column++, i++) data[i] = x.data[from + Math.floor((column * columns) / width)];
    }
  }
  return { data, shape: operation.shape };
}

export function bilinear(operation, [x]) {
  const [, channels, height, width] = operation.shape, [, , rows, columns] = x.shape;
  const data = new Float32Array(channels * height * width);
  const down = places(height, rows, operation.corners), across = places(width, columns, operation.corners);
  for (let channel = 0, i = 0; channel < channels; channel++) {
    const start = channel * rows * columns;
    for (const [top, bottom, v] of down) {
      const one = start + top * columns, two = start + bottom * columns;
      for (const [left, right, u] of across) {
        const above = x.data[one + left] * (1 - u) + x.data[one + right] * u;
        data[i++] = above * (1 - v) + (x.data[two + left] * (1 - u) + x.data[two + right] * u) * v;
      }
    }
  }
  return { data, shape: operation.shape };
}

// Between which two places of the small side each place of the large one lies, and how far.
function places(large, small, corners) {
  return Array.from({ length: large }, (_, i) => {
    const exact = corners ? (large > 1 ? (i * (small - 1)) / (large - 1) : 0) : ((i + 0.5) * small) / large - 0.5;
    const at = Math.max(0, exact), first = Math.min(small - 1, Math.floor(at));
    return [first, Math.min(small - 1, first + 1), at - first];
  });
}

export function pixelShuffle(operation, [x]) {
  const [, channels, height, width] = operation.shape, r = operation.factor;
  const data = new Float32Array(channels * height * width);
  const rows = height / r, columns = width / r;
  for (let channel = 0, i = 0; channel < channels; channel++) {
    for (let y = 0; y < height; y++) for (let column = 0; column < width; column++, i++) {
      const plane = (channel * r + (y % r)) * r + (column % r);
      data[i] = x.data[(plane * rows + Math.floor(y / r)) * columns + Math.floor(column / r)];
    }
  }
  return { data, shape: operation.shape };
}
