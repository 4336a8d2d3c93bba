// Asks for the page again and changes in place what changed, so that focus, scroll and what is open stay as they are; and
// sends what its buttons send without leaving it.
"use strict";

const EVERY = 2000; // milliseconds between two looks
const SAID = 15000; // so long stands what came of a button
const PATIENCE = 10000; // an answer takes no longer, or the connection is lost

const link = document.getElementById("link");
const pause = document.getElementById("pause");
const done = document.getElementById("done");
let tag = null;
let timer = null;
let lostAt = null;
let saying = null;

const isPaused = () => pause.getAttribute("aria-pressed") === "true";
const clock = (time) => time.toISOString().slice(11, 19);

// A live region that says the same again is read out again.
function say(text, state) {
  if (link.textContent !== text) link.textContent = text;
  document.documentElement.dataset.link = state;
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || null : null);

// Makes `old` equal to `fresh`, keeping every node that can stay.
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const keyed = new Map([...old.children].filter(keyOf).map((child) => [keyOf(child), child]));
  const wanted = new Set([...fresh.children].map(keyOf));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child);
    // What has a key and is not wanted any more goes, so that nothing else is made from it.
    while (at && keyOf(at) && !wanted.has(keyOf(at))) at = drop(at);
    const same = key ? keyed.get(key) : at && !keyOf(at) && at.nodeType === child.nodeType && at.nodeName === child.nodeName ? at : null;
    if (!same) {
      old.insertBefore(document.importNode(child, true), at);
    } else {
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      morph(same, child);
    }
  }
  while (at) at = drop(at);
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

async function look() {
  const headers = tag ? { "if-none-match": tag } : {};
  const answer = await fetch(`${location.origin}/`, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (answer.status === 200) {
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const focused = document.activeElement;
    const section = focused.closest("section");
    morph(document.getElementById("main"), fresh.getElementById("main"));
    // The row of a button that was pressed may be gone: who goes by the keyboard stays where it was.
    if (!focused.isConnected) section?.querySelector("h2[tabindex]")?.focus();
    document.title = fresh.title;
    tag = answer.headers.get("etag");
  } else if (answer.status !== 304) {
    throw new Error(`HTTP ${answer.status}`);
  }
}

async function turn() {
  timer = null;
  try {
    await look();
    lostAt = null;
    if (!isPaused()) say("live", "live");
  } catch {
    lostAt ??= new Date();
    say(`connection lost at ${clock(lostAt)} UTC: what stands here is older`, "lost");
  }
  schedule();
}

function schedule() {
  if (timer === null && !isPaused() && !document.hidden) timer = setTimeout(turn, EVERY);
}

// What came of a button, for a while, read out.
function tell(text, state) {
  clearTimeout(saying);
  done.textContent = text;
  done.className = state;
  saying = setTimeout(() => { done.textContent = ""; }, SAID);
}

async function send(form) {
  const [button] = form.elements;
  if (button.getAttribute("aria-disabled") === "true") return;
  // Until the next look makes it what the page says. It keeps the focus, which one that is disabled would not.
  button.setAttribute("aria-disabled", "true");
  try {
    const answer = await fetch(form.action, { method: "POST", headers: { accept: "application/json" }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `HTTP ${answer.status}`);
    tell(button.getAttribute("aria-label").replace("Send again", "It is sent again now"), "good");
    tag = null;
    if (!isPaused()) {
      clearTimeout(timer);
      turn();
    }
  } catch (error) {
    tell(`It could not be sent again: ${error.message}`, "bad");
    button.removeAttribute("aria-disabled");
  }
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  send(event.target);
});

pause.addEventListener("click", () => {
  const paused = !isPaused();
  pause.setAttribute("aria-pressed", String(paused));
  if (paused) {
    clearTimeout(timer);
    timer = null;
    say(`paused at ${clock(new Date())} UTC`, "paused");
  } else {
    turn();
  }
});

// Who comes back to the page sees at once what is.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !isPaused() && timer === null) turn();
  if (document.hidden) {
    clearTimeout(timer);
    timer = null;
  }
});

pause.hidden = false;
turn();
