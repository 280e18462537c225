// Operations that sum over many numbers: linear maps, products, attention, norms, means.

import { permute } from "./arrangement.js";
import { multiply, pack } from "./matrix.js";
import { stretched } from "./pointwise.js";

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

// Products of matrices, the last two dimensions of each value; those before are stretched to each other.
export function matmul(operation, [a, b]) {
  const { shape } = operation, batch = shape.slice(0, -2), [rows, columns] = shape.slice(-2), inner = a.shape.at(-1);
  const left = stretched(a, [...batch, rows, inner]), right = stretched(b, [...batch, inner, columns]);
  const data = new Float32Array(shape.reduce((x, y) => x * y, 1));
  for (let i = 0; i * rows * columns < data.length; i++) {
    const one = left.subarray(i * rows * inner, (i + 1) * rows * inner);
    data.set(multiply(pack(one, rows, inner), right.subarray(i * inner * columns, (i + 1) * inner * columns), columns), i * rows * columns);
  }
  return { data, shape };
}

export function softmax(operation, [x]) {
  const { dim, shape } = operation, size = shape[dim], step = shape.slice(dim + 1).reduce((a, b) => a * b, 1);
  const data = new Float32Array(x.data.length);
  for (let start = 0; start < data.length; start += size * step) {
    for (let first = start; first < start + step; first++) {
      let most = -Infinity, sum = 0;
      for (let i = 0, at = first; i < size; i++, at += step) most = Math.max(most, x.data[at]);
      for (let i = 0, at = first; i < size; i++, at += step) sum += data[at] = Math.exp(x.data[at] - most);
      for (let i = 0, at = first; i < size; i++, at += step) data[at] /= sum;
    }
  }
  return { data, shape };
}

// softmax(query · keyᵀ · scale) · value, for each head.
export function attention(operation, [query, key, value]) {
  const { scale, shape } = operation, rank = shape.length, heads = shape.slice(0, -2), [rows, columns] = [query, key].map((one) => one.shape.at(-2));
  const dims = [...Array(rank - 2).keys(), rank - 1, rank - 2];
  const turned = permute({ shape: [...heads, key.shape.at(-1), columns], dims }, [key]);
  const scores = matmul({ shape: [...heads, rows, columns] }, [query, turned]);
  for (let i = 0; i < scores.data.length; i++) scores.data[i] *= scale;
  return matmul({ shape }, [softmax({ dim: rank - 1, shape: scores.shape }, [scores]), value]);
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
