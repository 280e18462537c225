// How a region and the brush look on a picture: in black and white, which shows on any.

// Everything outside is veiled, and the edge is dashed, as selections are: no frame of a picture or a sample is.
export function outlined(context, values, height, width, cell) {
  const inside = (y, x) => y >= 0 && x >= 0 && y < height && x < width && values[y * width + x];
  context.fillStyle = "rgb(0 0 0 / .38)";
  context.beginPath();
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    if (!inside(y, x)) {
      context.fillRect(x * cell, y * cell, cell, cell);
      continue;
    }
    if (!inside(y - 1, x)) line(context, x * cell, y * cell, cell, 0);
    if (!inside(y + 1, x)) line(context, x * cell, (y + 1) * cell, cell, 0);
    if (!inside(y, x - 1)) line(context, x * cell, y * cell, 0, cell);
    if (!inside(y, x + 1)) line(context, (x + 1) * cell, y * cell, 0, cell);
  }
  stroke(context, "#fff", 2, []);
  stroke(context, "#000", 2, [cell / 2, cell / 2]);
}

// The brush, around what it would paint; dashed where it erases.
export function ring(context, [row, column], radius, erasing) {
  context.beginPath();
  context.arc(column, row, radius, 0, 2 * Math.PI);
  stroke(context, "#000", 4, []);
  stroke(context, "#fff", 2, erasing ? [5, 5] : []);
}

function stroke(context, colour, wide, dashes) {
  context.strokeStyle = colour;
  context.lineWidth = wide;
  context.setLineDash(dashes);
  context.stroke();
  context.setLineDash([]);
}

function line(context, x, y, right, down) {
  context.moveTo(x, y);
  context.lineTo(x + right, y + down);
}
