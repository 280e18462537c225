// Where the state of a page is kept: in the page's own address, so that reloading keeps it and links hold it.

export const pageAddress = {
  title: "A link to what you see",

  read: () => decoded(location.hash.slice(1)),

  write(text) {
    try {
      history.replaceState(null, "", `#${encodeURIComponent(text)}`);
    } catch {
      // A page inside another may have no address of its own.
    }
  },

  link(text) {
    const address = new URL(location.href);
    address.hash = encodeURIComponent(text);
    return address.href;
  },

  follow: (listener) => globalThis.addEventListener("hashchange", () => listener(pageAddress.read())),

  keys: () => document,
};

function decoded(hash) {
  try {
    return decodeURIComponent(hash);
  } catch {
    return hash;
  }
}

// The same of a notebook, whose address is not ours: the widget's model keeps the state.
export const modelAddress = (model) => ({
  title: "The state of what you see",
  read: () => model.get("state"),
  write(text) {
    model.set("state", text);
    model.save_changes();
  },
  link: (text) => text,
  follow: (listener) => model.on("change:state", () => listener(model.get("state"))),
  keys: (el) => el,
});
