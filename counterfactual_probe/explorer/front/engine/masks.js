// Masks of parts of the image, on a grid, and what a layer of another size makes of them.

// The mean of a mask over the part of the image that each place of a layer stands for, as torch's adaptive pooling.
export function pooledMask({ height, width, values }, rows, columns) {
  if (height === rows && width === columns) return Float32Array.from(values);
  const result = new Float32Array(rows * columns);
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) {
    const top = Math.floor((y * height) / rows), bottom = Math.ceil(((y + 1) * height) / rows);
    const left = Math.floor((x * width) / columns), right = Math.ceil(((x + 1) * width) / columns);
    let sum = 0;
    for (let i = top; i < bottom; i++) for (let j = left; j < right; j++) sum += values[i * width + j];
    result[y * columns + x] = sum / ((bottom - top) * (right - left));
  }
  return result;
}

// A mask on a coarse grid at the size of the image, as Python gets it.
export function enlargedMask({ height, width, values }, rows, columns) {
  const result = new Uint8Array(rows * columns);
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) {
    result[y * columns + x] = values[Math.floor((y * height) / rows) * width + Math.floor((x * width) / columns)];
  }
  return { height: rows, width: columns, values: result };
}

export function bitsOf(values) {
  const bytes = new Uint8Array(Math.ceil(values.length / 8));
  values.forEach((value, i) => { if (value) bytes[i >> 3] |= 0x80 >> (i & 7); });
  return bytes;
}

export function valuesOf(bytes, count) {
  return Uint8Array.from({ length: count }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1);
}
