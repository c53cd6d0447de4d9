// What all parts of the page know: who teaches, the classes, the version; and who wants to hear of changes.

import { get } from "./api.js";
import { h } from "./dom.js";

export const state = { session: null, status: null, classes: [] };

const listeners = new Set();

/** Call `listener(reason)` after every change of the classifier; returns how to stop that. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Ask the server how things stand, and tell everybody. `reason` is "here", "elsewhere", "asked" or "session". */
export async function refresh(reason = "here") {
  // Asking changes nothing but the inbox, as a rule.
  const known = reason === "asked" ? state.status?.event : undefined;
  const [status, found] = await Promise.all([get("status"), known === undefined ? get("classes") : null]);
  if (status.event !== known) know((found ?? (await get("classes"))).classes);
  state.status = status;
  for (const listener of listeners) listener(reason);
}

function know(classes) {
  state.classes = classes.filter((each) => each.label);
  const options = state.classes.map((each) => h("option", { value: each.label }));
  document.getElementById("classes").replaceChildren(...options);
}

/** Whether a class of that name is there. */
export function isClass(label) {
  return state.classes.some((each) => each.label === label);
}

const ROLES = ["reader", "teacher", "owner"];

/** Whether who is here has at least this role. */
export function may(role) {
  return ROLES.indexOf(state.session?.role) >= ROLES.indexOf(role);
}
