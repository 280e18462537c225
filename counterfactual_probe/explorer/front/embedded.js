// Where the explorer starts inside another program's page.

import { render } from "./explorer.js";
import { modelAddress } from "./hosts/address.js";
import { AskingModel } from "./hosts/asking.js";

// "ask": see hosts/asking.js; "style": the explorer's style sheet, which touches nothing outside it.
export function embed({ el, contents, style, ask }) {
  const sheet = document.createElement("style");
  sheet.textContent = style;
  const root = document.createElement("div");
  el.replaceChildren(sheet, root);
  const model = new AskingModel(contents, ask);
  return render({ model, el: root, address: modelAddress(model) });
}
