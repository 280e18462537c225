// Where the widget of a notebook starts, as anywidget calls it.

import { render as show } from "./explorer.js";
import { modelAddress } from "./hosts/address.js";
import { WidgetModel } from "./hosts/widget.js";

export function render({ model, el }) {
  const adapted = new WidgetModel(model);
  const root = document.createElement("div");
  el.append(root);
  const explorer = show({ model: adapted, el: root, address: modelAddress(model) });
  root.explorer = explorer;
  return () => adapted.end();
}
