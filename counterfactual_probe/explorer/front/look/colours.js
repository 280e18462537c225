// Colours that people of any colour vision tell apart: cividis for amounts, Okabe and Ito's for modules.

// Cividis (Nuñez, Anderton, Renslow 2018) at nine places, from none to most.
const CIVIDIS = [[0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120],
  [165, 156, 116], [211, 193, 97], [254, 232, 56]];

// The colour of a share from 0 to 1.
export function amountColour(share) {
  const at = Math.max(0, Math.min(1, share)) * (CIVIDIS.length - 1);
  const first = Math.min(CIVIDIS.length - 2, Math.floor(at)), rest = at - first;
  return CIVIDIS[first].map((value, i) => Math.round(value + (CIVIDIS[first + 1][i] - value) * rest));
}

// Of modules, by number; the page also gives each a number or a name, so that colour says nothing alone.
export const MODULE_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999"];

export const moduleColour = (number) => (number < 0 ? "transparent" : MODULE_COLOURS[number % MODULE_COLOURS.length]);
