// What a person has chosen: everything that makes the picture, and what is looked at. It is never changed in place.

import { base64Of, bytesOf } from "../engine/numbers.js";
import { bitsOf, valuesOf } from "../engine/masks.js";
import { channelsOf, rangesOf } from "./ranges.js";

export const STRENGTHS = { least: -1, most: 2 };

export function defaultState(contents) {
  const { layer, method, modules } = contents.start;
  return { base: 0, source: 1, strip: firstSamples(contents), pinned: [], units: contents.start.units, strength: 1,
    region: null, inside: false, layer, method, modules };
}

const firstSamples = ({ samples }) => Array.from({ length: samples.shown }, (_, i) => i);

// What to compute; the region counts only if the change is confined to it.
export function recipeOf(state, contents) {
  const [height, width] = contents.grid;
  const where = state.inside && state.region ? { height, width, values: Array.from(state.region) } : null;
  const units = Object.fromEntries(Object.entries(state.units).filter(([, channels]) => channels.length));
  return { base: state.base, source: state.source, units, strength: state.strength, where };
}

export function withUnits(state, layer, channels) {
  const units = { ...state.units, [layer]: [...channels].sort((a, b) => a - b) };
  if (!units[layer].length) delete units[layer];
  return { ...state, units };
}

// As short JSON for a link; the strip is left out where it is the first one.
export function asJson(state, contents) {
  const units = Object.fromEntries(Object.entries(state.units).map(([name, numbers]) => [name, rangesOf(numbers)]));
  const { base, source, pinned, strength, inside, layer, method, modules, strip } = state;
  const region = state.region ? base64Of(bitsOf(state.region)) : null;
  const first = strip.join() === firstSamples(contents).join();
  return JSON.stringify({ v: 1, base, source, pinned, units, strength, region, inside, layer, method, modules,
    ...(first ? {} : { strip }) });
}

// Throws if it is not the state of this file: whatever it holds is checked, since links come from anywhere.
export function fromJson(text, contents) {
  const given = JSON.parse(text);
  const known = defaultState(contents);
  const layers = new Map(contents.layers.map((layer) => [layer.name, layer]));
  require(given?.v === 1, "its version");
  const sample = (value) => Number.isInteger(value) && value >= 0 && value < contents.samples.count;
  require(sample(given.base) && sample(given.source), "its samples");
  const strip = given.strip ?? known.strip, pinned = given.pinned ?? [];
  require(isList(strip, known.strip.length, sample) && isList(pinned, pinned.length, sample), "its strip");
  const { strength } = given;
  require(typeof strength === "number" && strength >= STRENGTHS.least && strength <= STRENGTHS.most, "its strength");
  const layer = layers.get(given.layer);
  const partition = layer?.methods[given.method]?.find((one) => one.modules.length === given.modules);
  require(layer && (partition || !Object.keys(layer.methods).length), "its layer, method or number of modules");
  const units = {};
  for (const [name, ranges] of Object.entries(given.units ?? {})) {
    require(layers.has(name) && typeof ranges === "string", "its layers");
    units[name] = channelsOf(ranges, layers.get(name).channels);
  }
  const region = given.region === null ? null : regionOf(given.region, contents);
  return { base: given.base, source: given.source, strip, pinned, units, strength, region,
    inside: Boolean(given.inside && region), layer: given.layer, method: given.method, modules: given.modules };
}

function regionOf(text, { grid: [height, width] }) {
  require(typeof text === "string" && text.length <= Math.ceil(height * width / 6) + 4, "its region");
  const bytes = bytesOf(text);
  require(bytes.length === Math.ceil(height * width / 8), "its region");
  const values = valuesOf(bytes, height * width);
  return values.some(Boolean) ? values : null;
}

function isList(value, length, fits) {
  return Array.isArray(value) && value.length === length && value.every(fits);
}

function require(holds, what) {
  if (!holds) throw new Error(`${what} cannot be used`);
}
