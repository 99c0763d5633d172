/** The room of every page's scripts: what buttons and forms do, and which regions follow the village. */

import { acting } from "./acting.js";
import { follow } from "./live.js";

acting(document);
follow(document);
// On a narrow screen the navigation scrolls sideways. (scrollIntoView would also move where Tab begins.)
const here = document.querySelector(".panels [aria-current]");
const list = here?.closest(".panels");
if (list) list.scrollLeft = here.offsetLeft - (list.clientWidth - here.offsetWidth) / 2;
