/**
 * The room of acts: a button or form with `data-do="METHOD /path"` asks the API, as the person who is signed in.
 *
 * `data-body` is JSON; a form's fields are its body. `data-ask` asks first, with `data-more` below it, and with
 * `data-reason` for a reason and `data-tick` for a field that may be ticked (`data-tick-text` says what it means). `data-done` is said when it went well, `data-then` is the page to go to.
 */

import { catchUp } from "./live.js";
import { forget, refuse, say } from "./saying.js";

const keys = new Map(); // what was asked and not answered, with its key: asking again does it once
let answer = null; // takes what the open dialog is answered with

/** Let the buttons and forms of a page act. */
export function acting(page) {
  page.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (button) act(button, JSON.parse(button.dataset.body || "{}"));
  });
  page.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-do]");
    if (!form) return;
    event.preventDefault();
    act(form, fields(form));
  });
  const box = page.getElementById("ask");
  box.addEventListener("submit", (event) => {
    const yes = event.submitter?.value === "yes";
    answered(yes ? { reason: page.getElementById("ask-reason").value.trim(), tick: page.getElementById("ask-tick").checked } : null);
  });
  // A browser tells of a close with the next frame only: by then the dialog may be open for something else.
  box.addEventListener("close", () => box.open || answered(null));
}

function answered(found) {
  answer?.(found);
  answer = null;
}

/** A form's fields as JSON: numbers and ticks as such, empty ones left out. */
function fields(form) {
  const body = JSON.parse(form.dataset.body || "{}");
  for (const field of form.elements) {
    if (!field.name || field.disabled) continue;
    if (field.type === "checkbox") body[field.name] = field.checked;
    else if (field.type === "radio") { if (field.checked) body[field.name] = field.value; }
    else if (field.value === "") continue;
    else body[field.name] = field.type === "number" ? field.valueAsNumber : field.value;
  }
  return body;
}

async function act(element, body) {
  if (element.getAttribute("aria-busy") === "true") return;
  if (element.dataset.ask) {
    const found = await ask(element);
    if (!found) return;
    if (found.reason) body.reason = found.reason;
    if (found.tick) body[element.dataset.tick] = true;
  }
  forget();
  element.setAttribute("aria-busy", "true");
  try {
    await send(element.dataset.do, JSON.stringify(body));
    if (element.dataset.then) {
      location.assign(element.dataset.then);
      return;
    }
    say(element.dataset.done || "Done.");
    await catchUp();
  } catch (fault) {
    refuse(fault.message);
  } finally {
    element.removeAttribute("aria-busy");
  }
}

async function send(route, body) {
  const [method, path] = route.split(" ", 2);
  const what = `${route} ${body}`;
  if (!keys.has(what)) keys.set(what, crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`);
  let reply;
  try {
    reply = await fetch(path, {
      method,
      body,
      headers: { "Content-Type": "application/json", "Idempotency-Key": keys.get(what) },
    });
  } catch {
    throw new Error("The village does not answer. Try again: what was done is not done twice.");
  }
  keys.delete(what);
  if (reply.ok) return;
  const page = await reply.json().catch(() => ({ detail: `The village answered ${reply.status}.` }));
  const wrong = (page.problems || []).map((each) => `${each.path}: ${each.message}.`);
  throw new Error([page.detail, ...wrong, page.next_step].filter(Boolean).join(" "));
}

/** Ask in the page's dialog; null when the answer is no. Focus returns to where it came from. */
function ask(element) {
  const box = document.getElementById("ask");
  const reason = document.getElementById("ask-reason");
  const why = document.getElementById("ask-why");
  const also = document.getElementById("ask-also");
  const tick = document.getElementById("ask-tick");
  const yes = document.getElementById("ask-yes");
  document.getElementById("ask-title").textContent = element.dataset.ask;
  document.getElementById("ask-more").textContent = element.dataset.more || "";
  yes.textContent = element.querySelector("button")?.textContent || element.textContent;
  yes.className = element.classList.contains("danger") ? "danger" : "strong";
  reason.value = "";
  reason.hidden = why.hidden = !("reason" in element.dataset);
  also.hidden = !element.dataset.tick;
  also.querySelector("span").textContent = element.dataset.tickText || "";
  tick.checked = false;
  answered(null);
  box.showModal();
  (reason.hidden ? yes : reason).focus();
  return new Promise((settle) => { answer = settle; });
}
