// Pixels onto a canvas.

import { amountColour } from "../look/colours.js";

// An image (colours × height × width) of numbers in a range.
export function paintImage(target, pixels, [channels, height, width], [low, high]) {
  const made = new ImageData(width, height), size = width * height, scale = 255 / (high - low);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) made.data[4 * i + c] = Math.round((pixels[(channels === 1 ? 0 : c) * size + i] - low) * scale);
    made.data[4 * i + 3] = 255;
  }
  put(target, made);
}

// How much each pixel changed, from none to the most that "full" says; returns the mean over pixels and colours.
export function paintDifference(target, one, two, [channels, height, width], [low, high], full) {
  const made = new ImageData(width, height), size = width * height;
  const changes = differences(one, two, channels, size, high - low);
  changes.forEach((change, i) => {
    made.data.set(amountColour(change / full), 4 * i);
    made.data[4 * i + 3] = 255;
  });
  put(target, made);
}

// The mean over colours of |one − two| at each pixel, as shares of the range.
export function differences(one, two, channels, size, range) {
  const changes = new Float32Array(size);
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < size; i++) changes[i] += Math.abs(one[c * size + i] - two[c * size + i]) / channels / range;
  }
  return changes;
}

// A map of influence; transparent where it is weak, if "over" something else.
export function paintMap(target, { bytes, peak }, height, width, over = false) {
  const made = new ImageData(width, height);
  const largest = Math.max(1, Uint8Array.from(bytes).sort()[Math.floor(0.99 * (bytes.length - 1))]); // single pixels stand out
  bytes.forEach((value, i) => {
    const share = peak > 0 ? Math.min(1, value / largest) : 0;
    made.data.set(amountColour(share), 4 * i);
    made.data[4 * i + 3] = over ? Math.round(215 * share ** 0.7) : 255;
  });
  put(target, made);
}

function put(target, made) {
  target.width = made.width;
  target.height = made.height;
  target.getContext("2d").putImageData(made, 0, 0);
}
