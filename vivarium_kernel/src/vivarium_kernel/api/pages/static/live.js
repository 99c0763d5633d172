/**
 * The room of what follows the village: an element with an id and `data-live` is kept as the server would show it now.
 *
 * The page is asked for again, every few seconds while somebody looks at it, and only regions that changed are replaced.
 */

import { line } from "./saying.js";

const MOST_SECONDS = 30;
const known = new Map(); // region -> the HTML that the server gave
let asking = null;

/** Follow the regions of this page. */
export function follow(page) {
  const regions = page.querySelectorAll("[data-live][id]");
  if (!regions.length) return;
  for (const region of regions) known.set(region.id, region.innerHTML);
  const every = Number(page.body.dataset.every) || 3;
  let pause = every;
  const turn = async () => {
    if (page.visibilityState === "visible") pause = (await refresh()) ? every : Math.min(pause * 2, MOST_SECONDS);
    setTimeout(turn, pause * 1000);
  };
  setTimeout(turn, pause * 1000);
  page.addEventListener("visibilitychange", () => page.visibilityState === "visible" && refresh());
}

/** Bring the regions up to date now; false when the village did not answer. */
export function refresh() {
  asking ??= renew().finally(() => { asking = null; });
  return asking;
}

/** Bring them up to date with what was just done: an asking that is under way may have begun before it. */
export async function catchUp() {
  await asking;
  return refresh();
}

async function renew() {
  let answer, text;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    text = await answer.text();
  } catch {
    line("The village does not answer. Trying again.");
    return false;
  }
  if (answer.status === 401) {
    line("You are signed out. Reload the page to sign in.");
    return false;
  }
  if (answer.status === 429 || answer.status === 503) {
    line("The village is busy. Trying again.");
    return false;
  }
  if (answer.status === 404) {
    line("This page is gone: what it showed was switched off or taken away.");
    return false;
  }
  line("");
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const region of document.querySelectorAll("[data-live][id]")) {
    const found = fresh.getElementById(region.id);
    if (found && known.get(region.id) !== found.innerHTML && !inUse(region)) replace(region, found);
  }
  return true;
}

/** Whether somebody writes in it, has marked some of its text, or is asked something: the focus then returns to it. */
function inUse(region) {
  if (document.querySelector("dialog[open]")) return true;
  const active = document.activeElement;
  if (region.contains(active) && active.matches("input, textarea, select")) return true;
  const marked = getSelection();
  return !marked.isCollapsed && marked.rangeCount > 0 && region.contains(marked.anchorNode);
}

function replace(region, found) {
  const active = region.contains(document.activeElement) ? document.activeElement : null;
  const place = active && { id: active.id, at: [...focusable(region)].indexOf(active) };
  const open = new Set([...region.querySelectorAll("details[id][open]")].map((each) => each.id));
  known.set(region.id, found.innerHTML);
  for (const each of found.querySelectorAll("details[id]")) if (open.has(each.id)) each.open = true;
  region.replaceChildren(...found.childNodes);
  if (!place) return;
  const again = (place.id && document.getElementById(place.id)) || focusable(region)[place.at];
  (again || document.getElementById("main")).focus({ preventScroll: true });
}

function focusable(region) {
  return region.querySelectorAll("a[href], button, input, textarea, select, summary, [tabindex='0']");
}
