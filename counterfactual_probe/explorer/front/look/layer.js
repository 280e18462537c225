// A layer as the file holds it: where its channels and modules act, how much, and how sure that is.

import { bytesOf } from "../engine/numbers.js";
import { pooledMask } from "../engine/masks.js";

export class Layer {
  constructor(given) {
    Object.assign(this, { name: given.name, channels: given.channels, size: given.size, pairs: given.pairs });
    [this.height, this.width] = given.mapSize;
    this.given = given;
    const bytes = bytesOf(given.maps), area = this.height * this.width;
    this.maps = given.peaks.map((peak, channel) => ({ bytes: bytes.subarray(channel * area, (channel + 1) * area), peak }));
    this.errors = given.errors;
    this.partitions = new Map();
  }

  // The modules by a method, for a number of them; null where none were found.
  partition(method, count) {
    const found = this.given.methods[method]?.find((one) => one.modules.length === count);
    if (!found) return null;
    if (!this.partitions.has(found)) this.partitions.set(found, this.decoded(found));
    return this.partitions.get(found);
  }

  decoded(found) {
    const members = found.modules.map(() => []);
    found.labels.forEach((label, channel) => { if (label >= 0) members[label].push(channel); });
    const modules = found.modules.map((one, number) => ({
      name: one.name, confidence: one.confidence, number, channels: members[number],
      map: { bytes: bytesOf(one.map), peak: one.peak },
    }));
    return { labels: found.labels, confidence: found.confidence, expected: found.expected, modules };
  }

  // The mean of a map over a region, or over the whole image: a share of the image's range.
  action({ bytes, peak }, region) {
    if (!region) return (peak * bytes.reduce((sum, value) => sum + value, 0)) / 255 / bytes.length;
    let sum = 0;
    for (const [place, weight] of region.places) sum += weight * bytes[place];
    return (peak * sum) / 255 / region.total;
  }

  // A mask on the page's grid as weights of the places of a map.
  regionOf(values, [height, width]) {
    if (!values) return null;
    const weights = pooledMask({ height, width, values }, this.height, this.width);
    const places = [];
    let total = 0;
    weights.forEach((weight, place) => { if (weight > 0) { places.push([place, weight]); total += weight; } });
    return { places, total };
  }

  // Channels by how much they act in a region, or in the whole image, most first: [{channel, action}].
  ranked(region) {
    return this.maps.map((map, channel) => ({ channel, action: this.action(map, region) }))
      .sort((a, b) => b.action - a.action || a.channel - b.channel);
  }
}
