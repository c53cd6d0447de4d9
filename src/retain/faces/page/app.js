// Where the page begins: who is here, which part is shown, and news from the server.

import * as ask from "./ask.js";
import * as history from "./history.js";
import * as inbox from "./inbox.js";
import { watch } from "./intake.js";
import * as more from "./more.js";
import { attempt, complain, say } from "./notices.js";
import * as pictures from "./pictures.js";
import { begin, shut } from "./session.js";
import { onChange, refresh, state } from "./state.js";
import { undo } from "./teach.js";
import * as test from "./test.js";

const VIEWS = { "": ask, inbox, pictures, history, test, more };
const main = document.getElementById("main");
let leave = null;
let turn = 0;

function parts() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decodeURIComponent);
  return { name: name in VIEWS ? name : "", rest, query: new URLSearchParams(query) };
}

async function go({ focus = true } = {}) {
  const { name, rest, query } = parts();
  const mine = (turn += 1);
  leave?.();
  leave = null;
  document.body.classList.remove("with-bulk");
  document.body.dataset.view = name || "ask";
  for (const link of document.querySelectorAll("nav a[href^='#/']")) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.setAttribute("aria-busy", "true");
  try {
    const end = await VIEWS[name].show(main, rest, query);
    if (mine === turn) leave = end ?? null;
    else end?.();
  } catch (error) {
    complain(error);
  }
  main.removeAttribute("aria-busy");
  if (focus && mine === turn) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

function showWaiting() {
  const waiting = document.getElementById("waiting");
  const count = state.status?.inbox ?? 0;
  waiting.hidden = !count;
  waiting.textContent = count;
  waiting.setAttribute("aria-label", `, ${count} waiting`);
}

function listen() {
  const events = new EventSource("events");
  events.addEventListener("version", (message) => {
    const news = JSON.parse(message.data);
    const known = state.status?.event ?? 0;
    if (news.event <= known) return;
    // What was done here is known a moment later anyway; only what others did is news.
    setTimeout(async () => {
      if (news.event <= (state.status?.event ?? 0)) return;
      await refresh("elsewhere").catch(() => null);
      say(news.actor ? `${news.actor}: ${news.summary}` : news.summary);
    }, 800);
  });
}

function keys(event) {
  const typing = event.target.closest?.("input, textarea, select");
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === "z" && !typing && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    attempt(() => undo());
  }
}

async function start() {
  await begin();
  if (!state.session.role) return shut(main);
  await refresh("session");
  showWaiting();
  onChange(showWaiting);
  addEventListener("hashchange", () => go());
  addEventListener("keydown", keys);
  watch((files) => (parts().name === "test" ? test.take(files) : ask.take(files)));
  await go({ focus: false });
  listen();
  document.body.dataset.ready = "";
  return undefined;
}

start().catch(complain);
