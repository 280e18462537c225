// Elements of the page. Text is only ever text: nothing here takes HTML, so names from outside cannot be any.

// element("button", {class: "chip", type: "button", onclick: f}, "text", child): strings become text.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function button(text, properties, ...children) {
  return element("button", { type: "button", ...properties }, text, ...children);
}

export function canvas(width, height, properties = {}) {
  return element("canvas", { width, height, ...properties });
}

// A name for an element that no other explorer of the same page has.
let explorers = 0;
export const unique = (name) => `explorer-${name}-${++explorers}`;

// A set of buttons of which one is pressed.
export function options(label, choices, choose) {
  const buttons = new Map(choices.map(({ value, text, title, about }) => [value, button(text, {
    class: "option", title, onclick: () => choose(value),
  }, about ? element("small", {}, about) : null)]));
  const group = element("div", { class: "options", role: "group", "aria-label": label }, ...buttons.values());
  return {
    group,
    show(chosen) {
      for (const [value, one] of buttons) one.setAttribute("aria-pressed", String(value === chosen));
    },
  };
}
