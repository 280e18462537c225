// Channels as short text: "0-3,7" is 0, 1, 2, 3 and 7.

export function rangesOf(channels) {
  const parts = [];
  const sorted = [...channels].sort((a, b) => a - b);
  for (let i = 0; i < sorted.length; i++) {
    const first = sorted[i];
    while (sorted[i + 1] === sorted[i] + 1) i++;
    parts.push(sorted[i] === first ? `${first}` : `${first}-${sorted[i]}`);
  }
  return parts.join(",");
}

// Throws on anything else than ranges below "count".
export function channelsOf(text, count) {
  const channels = new Set();
  for (const part of text === "" ? [] : text.split(",")) {
    const match = /^(\d{1,6})(?:-(\d{1,6}))?$/.exec(part);
    const first = Number(match?.[1]), last = Number(match?.[2] ?? match?.[1]);
    if (!match || first > last || last >= count) throw new Error(`channels ${part.slice(0, 20)} of ${count}`);
    for (let channel = first; channel <= last; channel++) channels.add(channel);
  }
  return [...channels].sort((a, b) => a - b);
}
