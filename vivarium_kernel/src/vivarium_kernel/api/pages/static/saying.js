/** The room of what the page says aloud: short messages that screen readers hear and eyes see for a while. */

const SECONDS = 6;

/** Say that something went well; it goes away by itself. */
export function say(text) {
  const line = put(document.getElementById("said"), text);
  setTimeout(() => line.remove(), SECONDS * 1000);
}

/** Say that something was refused; it stays until it is closed or something else is done. */
export function refuse(text) {
  const line = put(document.getElementById("refused"), text);
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => line.remove());
  line.append(close);
}

/** Take back what was refused. */
export function forget() {
  document.getElementById("refused").replaceChildren();
}

/** Say at the foot of the page how the line to the village is; nothing when it is well. */
export function line(text) {
  const foot = document.getElementById("line");
  if (foot.textContent !== text) foot.textContent = text;
  foot.hidden = !text;
}

function put(region, text) {
  const found = document.createElement("p");
  const words = document.createElement("span");
  words.textContent = text;
  found.append(words);
  region.replaceChildren(found);
  return found;
}
