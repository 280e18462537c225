// The lines of Python that make the picture on the page.

import { base64Of } from "../engine/numbers.js";
import { bitsOf } from "../engine/masks.js";
import { recipeOf } from "./state.js";

// JSON's text and Python's agree for strings of these characters.
const quoted = (text) => JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

export function pythonLines(state, contents) {
  const { base, source, units, strength, where } = recipeOf(state, contents);
  const layers = Object.keys(units);
  const lines = ["import counterfactual_probe as cp", ""];
  if (where) lines.splice(0, 1, "import base64", "", "import numpy as np", "", "import counterfactual_probe as cp");
  lines.push(contents.registered ? `gen = cp.load(${quoted(contents.name)})` : "# gen: the generator that cp.explore was called with");
  lines.push(`z1, z2 = (gen.sample(1, seed=${contents.samples.seed}, start=i) for i in (${base}, ${source}))`);
  if (!layers.length) return [...lines, "image = gen(z1)[0]  # nothing is set: the base itself", ""].join("\n");
  if (where) lines.push(...maskLines(where, contents.size));
  lines.push("hybrids = cp.Hybridizer(gen, [" + layers.map(quoted).join(", ") + "]).hybridize(");
  lines.push("    z1,", "    z2,", "    units={");
  for (const layer of layers) lines.push(`        ${quoted(layer)}: [${units[layer].join(", ")}],`);
  lines.push("    },");
  if (strength !== 1) lines.push(`    strength=${strength},`);
  if (where) lines.push("    where=where,");
  lines.push(")", "image = hybrids.images[0, 0]", "");
  return lines.join("\n");
}

function maskLines({ height, width, values }, [, rows, columns]) {
  return [
    `bits = np.frombuffer(base64.b64decode("${base64Of(bitsOf(values))}"), np.uint8)`,
    `grid = np.unpackbits(bits)[: ${height} * ${width}].reshape(${height}, ${width}).astype(bool)`,
    `where = grid.repeat(${rows / height}, 0).repeat(${columns / width}, 1)`,
  ];
}
