// Where the single file starts: in the page, and once more in its worker.

import { serve } from "./engine/answers.js";
import { render } from "./explorer.js";
import { pageAddress } from "./hosts/address.js";
import { FileModel } from "./hosts/file.js";

if (typeof document === "undefined") {
  serve(globalThis);
} else {
  const text = (id) => document.getElementById(id)?.textContent ?? "";
  const model = new FileModel(JSON.parse(text("contents")), text("program"), text("script"));
  globalThis.explorer = render({ model, el: document.getElementById("explorer"), address: pageAddress });
}
