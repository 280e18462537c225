// Operations on each number alone, and on two values whose shapes are stretched to each other.

const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

// The error function, to 1.2e-7 (Numerical Recipes, §6.2).
function erf(x) {
  const t = 1 / (1 + 0.5 * Math.abs(x));
  const terms = [-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
    -0.82215223, 0.17087277];
  let sum = 0;
  for (let i = terms.length - 1; i >= 0; i--) sum = sum * t + terms[i];
  const complement = t * Math.exp(-x * x + sum);
  return x >= 0 ? 1 - complement : complement - 1;
}

// By name; the parameters are those that torch's operation of the name has.
const FUNCTIONS = {
  relu: () => (x) => (x > 0 ? x : 0),
  leaky_relu: (slope) => (x) => (x > 0 ? x : slope * x),
  elu: (alpha, scale, inner) => (x) => (x > 0 ? scale * x : scale * alpha * Math.expm1(inner * x)),
  selu: () => (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
  gelu: (approximate) => (approximate === "tanh"
    ? (x) => 0.5 * x * (1 + Math.tanh(0.7978845608028654 * (x + 0.044715 * x ** 3)))
    : (x) => 0.5 * x * (1 + erf(x / Math.SQRT2))),
  silu: () => (x) => x * sigmoid(x),
  mish: () => (x) => x * Math.tanh(softplus(x)),
  sigmoid: () => sigmoid,
  tanh: () => Math.tanh,
  softplus: (beta, threshold) => (x) => (beta * x > threshold ? x : softplus(beta * x) / beta),
  hardtanh: (low, high) => (x) => Math.min(high, Math.max(low, x)),
  clamp: (low, high) => (x) => Math.min(high ?? Infinity, Math.max(low ?? -Infinity, x)),
  relu6: () => (x) => Math.min(6, Math.max(0, x)),
  hardsigmoid: () => (x) => Math.min(1, Math.max(0, x / 6 + 0.5)),
  hardswish: () => (x) => x * Math.min(1, Math.max(0, x / 6 + 0.5)),
  neg: () => (x) => -x,
  abs: () => Math.abs,
  exp: () => Math.exp,
  sin: () => Math.sin,
  cos: () => Math.cos,
  sqrt: () => Math.sqrt,
  rsqrt: () => (x) => 1 / Math.sqrt(x),
  reciprocal: () => (x) => 1 / x,
  square: () => (x) => x * x,
};

export function pointwise(operation, [x]) {
  const each = FUNCTIONS[operation.name](...operation.parameters);
  const data = new Float32Array(x.data.length);
  for (let i = 0; i < data.length; i++) data[i] = each(x.data[i]);
  return { data, shape: operation.shape };
}

// Negative numbers times a slope, which is one for each channel, or one for all.
export function prelu(operation, [x, slopes]) {
  const size = x.data.length / x.shape[1];
  const data = x.data.map((value, i) => (value > 0 ? value : value * slopes.data[Math.floor(i / size) % slopes.data.length]));
  return { data, shape: operation.shape };
}

const PAIRS = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  pow: Math.pow,
  maximum: Math.max,
  minimum: Math.min,
};

export function binary(operation, [a, b]) {
  const both = PAIRS[operation.name];
  const left = stretched(a ?? scalar(operation.number), operation.shape);
  const right = stretched(b ?? scalar(operation.number), operation.shape);
  const data = new Float32Array(left.length);
  for (let i = 0; i < data.length; i++) data[i] = both(left[i], right[i]);
  return { data, shape: operation.shape };
}

const scalar = (number) => ({ data: new Float32Array([number]), shape: [] });

// x · scale + shift, one number for each channel (or as the shapes of scale and shift say).
export function affine(operation, [x, scale, shift]) {
  const size = x.data.length / x.shape[1];
  const data = Float32Array.from(x.data);
  for (let channel = 0; channel < x.shape[1]; channel++) {
    const factor = scale ? scale.data[channel % scale.data.length] : 1;
    const more = shift ? shift.data[channel % shift.data.length] : 0;
    for (let i = channel * size; i < (channel + 1) * size; i++) data[i] = data[i] * factor + more;
  }
  return { data, shape: operation.shape };
}

export function expand(operation, [x]) {
  return { data: stretched(x, operation.shape), shape: operation.shape };
}

// The numbers of a value at every place of a larger shape; dimensions of 1 are repeated.
export function stretched({ data, shape }, target) {
  const total = target.reduce((a, b) => a * b, 1);
  if (data.length === total) return data;
  const result = new Float32Array(total);
  if (data.length === 1) return result.fill(data[0]);
  const padded = [...Array(target.length - shape.length).fill(1), ...shape];
  const strides = stridesOf(padded).map((stride, d) => (padded[d] === 1 ? 0 : stride));
  const index = new Array(target.length).fill(0);
  for (let i = 0, at = 0; i < total; i++) {
    result[i] = data[at];
    for (let d = target.length - 1; d >= 0; d--) {
      at += strides[d];
      if (++index[d] < target[d]) break;
      at -= strides[d] * target[d];
      index[d] = 0;
    }
  }
  return result;
}

export function stridesOf(shape) {
  const strides = new Array(shape.length);
  let size = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    strides[d] = size;
    size *= shape[d];
  }
  return strides;
}
