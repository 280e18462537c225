// Products of matrices, which take nearly all of the time.

// A matrix (rows × inner) in groups of four rows, whose numbers stand together; missing rows of the last group are 0.
// Weights are packed once and multiplied often. "transposed": they are given as (inner × rows).
export function pack(values, rows, inner, transposed = false) {
  const numbers = new Float32Array(Math.ceil(rows / 4) * 4 * inner);
  for (let row = 0; row < rows; row++) {
    const start = (row >> 2) * 4 * inner + (row & 3);
    for (let k = 0; k < inner; k++) {
      numbers[start + 4 * k] = values[transposed ? k * rows + row : row * inner + k];
    }
  }
  return { numbers, rows, inner };
}

// packed (rows × inner) · right (inner × columns), row by row.
// Blocks of 4 × 2 numbers are summed in local variables: processors have registers for these, and not for more.
export function multiply(packed, right, columns) {
  const { numbers, rows, inner } = packed;
  const result = new Float32Array(rows * columns);
  const pair = new Float32Array(2 * inner);
  for (let column = 0; column < columns; column += 2) {
    const both = column + 1 < columns;
    for (let k = 0; k < inner; k++) {
      pair[2 * k] = right[k * columns + column];
      pair[2 * k + 1] = both ? right[k * columns + column + 1] : 0;
    }
    for (let row = 0; row < rows; row += 4) {
      const height = Math.min(4, rows - row);
      block(numbers, row * inner, pair, inner, result, row * columns + column, columns, height, both);
    }
  }
  return result;
}

function block(left, start, pair, inner, result, at, columns, height, both) {
  let a0 = 0, a1 = 0, b0 = 0, b1 = 0, c0 = 0, c1 = 0, d0 = 0, d1 = 0;
  for (let k = 0, place = start; k < 2 * inner; k += 2, place += 4) {
    const x = pair[k], y = pair[k + 1];
    const a = left[place], b = left[place + 1], c = left[place + 2], d = left[place + 3];
    a0 += a * x; a1 += a * y; b0 += b * x; b1 += b * y;
    c0 += c * x; c1 += c * y; d0 += d * x; d1 += d * y;
  }
  result[at] = a0;
  if (height > 1) result[at + columns] = b0;
  if (height > 2) result[at + 2 * columns] = c0;
  if (height > 3) result[at + 3 * columns] = d0;
  if (!both) return;
  result[at + 1] = a1;
  if (height > 1) result[at + columns + 1] = b1;
  if (height > 2) result[at + 2 * columns + 1] = c1;
  if (height > 3) result[at + 3 * columns + 1] = d1;
}
