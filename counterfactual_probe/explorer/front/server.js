// Where the page of a server starts.

import { render } from "./explorer.js";
import { pageAddress } from "./hosts/address.js";
import { ServerModel } from "./hosts/server.js";

const model = new ServerModel(JSON.parse(document.getElementById("contents").textContent));
globalThis.explorer = render({ model, el: document.getElementById("explorer"), address: pageAddress });
