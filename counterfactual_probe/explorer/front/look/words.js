// Numbers in words.

export const CONFIDENT = 0.9, RELIABLE = 0.5;

// A share of the image's range in percent, with as many digits as say something.
export function percent(share) {
  const value = 100 * share;
  return `${value >= 9.95 ? value.toFixed(0) : value >= 0.095 ? value.toFixed(1) : value > 0 ? "< 0.1" : "0"} %`;
}

export function counted(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

// How reproducible the modules of a layer are: by the expected adjusted Rand index, as in reports.
export function reproducible(ari) {
  if (ari === null) return { level: "unknown", text: "unknown: too few pairs" };
  const number = ari.toFixed(2);
  if (ari >= 0.8) return { level: "good", text: `reproducible (${number})` };
  return ari >= 0.4 ? { level: "fair", text: `partly reproducible (${number})` }
    : { level: "poor", text: `not reproducible (${number})` };
}

// How often a channel or module would be found again. It is called no surer than all modules of the layer together are
// by their adjusted Rand index, since in few or unequal modules many channels come back by chance.
export function confidence(value, ari) {
  if (value === null) return { level: "unknown", text: "confidence unknown" };
  const levels = ["poor", "fair", "good"], own = value >= CONFIDENT ? "good" : value >= RELIABLE ? "fair" : "poor";
  const level = levels[Math.min(levels.indexOf(own), Math.max(0, levels.indexOf(reproducible(ari).level)))];
  const word = { good: "confident", fair: "fairly sure", poor: "unreliable" }[level];
  return { level, text: `${word} ${value.toFixed(2)}` };
}
