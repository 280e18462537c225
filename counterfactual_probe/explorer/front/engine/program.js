// A generator as a list of operations: images of samples, and hybrids of two of them.

import { bilinear, cat, nearest, pad, padFrom, permute, pixelShuffle, reshape, select, slice } from "./arrangement.js";
import { convolution, polyphase } from "./convolutions.js";
import { enlargedMask, pooledMask } from "./masks.js";
import { floatsOf } from "./numbers.js";
import { affine, binary, expand, pointwise, prelu } from "./pointwise.js";
import { attention, averagePool, linear, matmul, mean, norm, softmax } from "./statistics.js";

const OPERATIONS = {
  affine, attention, averagePool, bilinear, binary, cat, convolution, expand, linear, matmul, mean, nearest, norm, pad,
  padFrom, permute, pixelShuffle, pointwise, polyphase, prelu, reshape, select, slice, softmax,
};
const KEPT = 6; // samples whose values are kept: the base and the source, and some that were shown before

export class Program {
  // "description": operations, constants, inputs, image, samples, as the Python side writes them.
  constructor(description) {
    this.operations = description.operations;
    this.image = description.image;
    this.inputs = description.inputs;
    this.constants = new Map();
    const numbers = floatsOf(description.numbers, description.type);
    for (const { number, start, shape } of description.constants) {
      const size = shape.reduce((a, b) => a * b, 1);
      this.constants.set(number, { data: numbers.subarray(start, start + size), shape });
    }
    this.latents = floatsOf(description.latents, "float32");
    this.sizes = description.inputs.map(({ shape }) => shape.reduce((a, b) => a * b, 1));
    this.clean = new Map();
  }

  get samples() {
    return this.latents.length / this.sizes.reduce((a, b) => a + b, 0);
  }

  // The pixels of a sample, colour by colour.
  picture(sample) {
    // Not kept: those of the strip are many, and base and source must stay.
    const values = this.clean.get(sample) ?? this.computed(this.given(sample), this.operations);
    return values.get(this.image).data;
  }

  // All values of a sample's forward, by number.
  run(sample) {
    const known = this.clean.get(sample);
    this.clean.delete(sample);
    const values = known ?? this.computed(this.given(sample), this.operations);
    this.clean.set(sample, values); // the latest is the last, and the first goes
    if (this.clean.size > KEPT) this.clean.delete(this.clean.keys().next().value);
    return values;
  }

  given(sample) {
    const values = new Map(this.constants);
    let start = sample * this.sizes.reduce((a, b) => a + b, 0);
    this.inputs.forEach(({ number, shape }, i) => {
      values.set(number, { data: this.latents.subarray(start, start + this.sizes[i]), shape });
      start += this.sizes[i];
    });
    return values;
  }

  computed(values, operations, edit = (layer, value) => value) {
    for (const operation of operations) {
      const read = operation.in.map((number) => (number === null ? null : values.get(number)));
      const made = operation.kind === "edit"
        ? edit(operation.layer, read[0])
        : OPERATIONS[operation.kind](operation, read);
      values.set(operation.out, made);
    }
    return values;
  }

  // The base's image with channels set to the source's values:
  // recipe {base, source, units: {layer: [channels]}, strength, where: {height, width, values} or null}.
  hybrid(recipe) {
    const base = this.run(recipe.base), source = this.run(recipe.source);
    const layers = new Set(Object.keys(recipe.units).filter((layer) => recipe.units[layer].length));
    const changed = new Set(), later = [];
    for (const operation of this.operations) {
      const isSet = operation.kind === "edit" && layers.has(operation.layer);
      if (isSet || operation.in.some((number) => changed.has(number))) {
        changed.add(operation.out);
        later.push(operation);
      }
    }
    const sourceValue = new Map(this.operations.map((operation) => [operation.layer, operation.out]));
    const [, , height, width] = base.get(this.image).shape;
    const where = recipe.where ? enlargedMask(recipe.where, height, width) : null;
    const values = this.computed(new Map(base), later, (layer, value) => {
      if (!layers.has(layer)) return value;
      return swapped(value, source.get(sourceValue.get(layer)), recipe.units[layer], recipe.strength, where);
    });
    return values.get(this.image).data;
  }
}

// base + strength · mask · (source − base) in some channels.
function swapped(value, source, channels, strength, where) {
  const [, , height, width] = value.shape, size = height * width;
  const data = Float32Array.from(value.data);
  const mask = where ? pooledMask(where, height, width) : null;
  for (const channel of channels) {
    for (let i = 0, at = channel * size; i < size; i++, at++) {
      const weight = mask ? strength * mask[i] : strength;
      data[at] = weight === 1 ? source.data[at] : data[at] + weight * (source.data[at] - data[at]);
    }
  }
  return { data, shape: value.shape };
}
