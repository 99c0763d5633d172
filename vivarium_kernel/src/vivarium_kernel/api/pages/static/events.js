/** The room of the log's tail: server-sent events become rows, newest first, as fast as one can read. */

const MOST = 500; // rows that are kept on the page
const SECONDS = [1, 2, 5, 10]; // between two tries to reach the village
const SAID = 5; // seconds between two counts that are said aloud

const list = document.getElementById("tail");
const shape = document.getElementById("event").content.firstElementChild;
const state = document.getElementById("tail-state");
const button = document.getElementById("tail-switch");
const empty = document.getElementById("tail-empty");
let after = list.dataset.after;
let arrived = []; // events that have come and are not shown yet
let drawing = false;
let paused = false;
let stop = null; // ends the stream that is open

button.hidden = false;
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Follow" : "Pause";
  if (paused) stop?.abort();
  tell(paused ? "Paused" : "Joining", paused ? "warn" : "");
});
addEventListener("pagehide", () => stop?.abort());
live();

/** Follow the log for as long as the page is open: pauses, other tabs and lost lines are waited for. */
async function live() {
  for (let tries = 0; ;) {
    if (paused || document.visibilityState === "hidden") {
      await wait(0.3);
      continue;
    }
    stop = new AbortController();
    const hide = () => document.visibilityState === "hidden" && stop.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      const answer = await fetch(`/events/stream?${asked()}`, { signal: stop.signal });
      if (answer.status === 401 || answer.status === 403) return tell("Signed out: reload the page", "bad");
      if (!answer.ok) throw new Error(answer.statusText);
      tell("Live", "good");
      tries = 0;
      await read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch {
      // An end of the line is waited out like a refusal.
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    if (paused || document.visibilityState === "hidden") continue;
    tell("Trying again", "warn");
    await wait(SECONDS[Math.min(tries++, SECONDS.length - 1)]);
  }
}

function asked() {
  return new URLSearchParams({ ...JSON.parse(list.dataset.asked), after });
}

/** Read blocks of lines as the standard for event streams has them; only `data` is wanted. */
async function read(reader) {
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((row) => row.startsWith("data: ")).map((row) => row.slice(6)).join("\n");
      if (data) arrived.push(JSON.parse(data));
    }
    if (arrived.length && !drawing) {
      drawing = true;
      requestAnimationFrame(draw);
    }
  }
}

function draw() {
  drawing = false;
  const found = arrived.splice(0);
  after = String(found[found.length - 1].id);
  const skipped = Math.max(0, found.length - MOST);
  const focused = list.contains(document.activeElement);
  list.prepend(...found.slice(skipped).map(row).reverse());
  while (list.children.length > MOST && !(focused && list.lastElementChild.contains(document.activeElement))) list.lastElementChild.remove();
  empty.hidden = true;
  count(found.length);
}

function row(event) {
  const made = shape.cloneNode(true);
  const at = new Date(event.at / 1000).toISOString();
  const slot = (name) => made.querySelector(`[data-slot="${name}"]`);
  made.classList.add("new");
  made.dataset.id = event.id;
  slot("at").textContent = at.slice(11, 19);
  slot("at").dateTime = slot("at").title = at;
  slot("kind").textContent = event.kind;
  slot("actor").textContent = event.actor;
  slot("data").textContent = words(event.data);
  slot("id").textContent = event.id;
  if (event.task) {
    slot("task").textContent = event.task;
    slot("task").href = `/panels/tasks?task=${encodeURIComponent(event.task)}`;
    slot("task").hidden = false;
  }
  return made;
}

function words(data) {
  if (data === null || typeof data !== "object" || Array.isArray(data)) return word(data);
  return Object.entries(data).filter(([, each]) => each !== null && each !== "").map(([name, each]) => `${name}=${word(each)}`).join(", ");
}

function word(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

let unsaid = 0;
let saying = null;

/** Count aloud, but seldom: a busy log must not talk without end. */
function count(more) {
  unsaid += more;
  saying ??= setTimeout(() => {
    if (!paused) tell(`Live, ${unsaid} new`, "good");
    unsaid = 0;
    saying = null;
  }, SAID * 1000);
}

function tell(text, kind) {
  state.className = `chip ${kind}`;
  if (state.textContent !== text) state.textContent = text;
}

function wait(seconds) {
  return new Promise((settle) => setTimeout(settle, seconds * 1000));
}
