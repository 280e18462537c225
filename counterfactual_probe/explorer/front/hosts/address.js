// Where the state of a page is kept: in the page's own address, so that reloading keeps it and links hold it.

// Browsers take few changes of an address in a second, and a slider makes many.
const OFTEN = 200; // milliseconds
let waiting = null, latest = "";

function flush() {
  clearTimeout(waiting);
  if (waiting === null) return;
  waiting = null;
  try {
    history.replaceState(null, "", `#${encodeURIComponent(latest)}`);
  } catch {
    // A page inside another may have no address of its own.
  }
}

export const pageAddress = {
  title: "A link to what you see",

  // Where the link works, if not everywhere.
  reach: () => reachOf(location),

  read: () => decoded(location.hash.slice(1)),

  write(text) {
    latest = text;
    waiting ??= setTimeout(flush, OFTEN);
  },

  link(text) {
    const address = new URL(location.href);
    address.hash = encodeURIComponent(text);
    return address.href;
  },

  follow(listener) {
    globalThis.addEventListener("pagehide", flush);
    globalThis.addEventListener("hashchange", () => {
      clearTimeout(waiting); // a link counts more than what was there before
      waiting = null;
      listener(pageAddress.read());
    });
  },

  keys: () => document,
};

export function reachOf({ protocol, hostname }) {
  if (protocol === "file:") {
    return "This link works on this computer only. For someone else, send the file as well: the part of the link from # on, "
      + "put behind the address of their copy, shows the same.";
  }
  return ["127.0.0.1", "localhost", "[::1]"].includes(hostname)
    ? "This link works on this computer only, and until the program that computes is ended." : "";
}

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
  reach: () => "",
  read: () => model.get("state"),
  write(text) {
    model.set("state", text);
    model.save_changes();
  },
  link: (text) => text,
  follow: (listener) => model.on("change:state", () => listener(model.get("state"))),
  keys: (el) => el,
});
