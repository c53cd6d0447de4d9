// Lines at the foot of the page that say what was done, with the way back beside it.

import { Refusal } from "./api.js";
import { button, h, sentence } from "./dom.js";

const STAYS = 12000;

/** Say something; `action` is [text, function] such as undo. */
export function say(text, { action, bad = false } = {}) {
  const place = document.getElementById("notices");
  const notice = h("div", { class: bad ? "notice bad" : "notice" }, h("p", null, sentence(text)));
  const end = () => notice.remove();
  if (action) {
    const [name, act] = action;
    notice.append(button(name, () => { end(); act(); }, { class: "plain" }));
  }
  notice.append(button("×", end, { class: "plain", "aria-label": "Dismiss" }));
  place.append(notice);
  while (place.children.length > 2) place.firstChild.remove();
  let left = setTimeout(end, STAYS);
  // Who reads it or is about to press its button must not lose it.
  notice.addEventListener("pointerenter", () => clearTimeout(left));
  notice.addEventListener("focusin", () => clearTimeout(left));
  notice.addEventListener("pointerleave", () => { left = setTimeout(end, STAYS / 2); });
  return notice;
}

/** Say what went wrong. */
export function complain(error) {
  if (error?.name === "AbortError") return;
  if (!(error instanceof Refusal)) console.error(error);
  say(error instanceof Refusal ? error.message : "Something on this page broke; reload it, please", { bad: true });
}

/** Run something, saying what goes wrong; `busy` is an element that waits meanwhile. */
export async function attempt(work, busy) {
  busy?.setAttribute("aria-busy", "true");
  if (busy && "disabled" in busy) busy.disabled = true;
  try {
    return await work();
  } catch (error) {
    complain(error);
    return null;
  } finally {
    busy?.removeAttribute("aria-busy");
    if (busy && "disabled" in busy) busy.disabled = false;
  }
}
