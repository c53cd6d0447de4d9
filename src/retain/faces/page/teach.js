// Changing what it knows: correct, learn, undo; and what to do where the gate refuses.

import { formOf, post } from "./api.js";
import { counted } from "./dom.js";
import { say } from "./notices.js";
import { refusal } from "./refusal.js";
import { refresh } from "./state.js";

const FIELD = { correct: "corrections", learn: "items" };

/**
 * Teach `items`, each {image, label}, or {file, label} where the server has not seen it yet.
 * Resolves to the update, with `.taught`, the items that were taught in the end; or to null where
 * nobody wanted it.
 * `resend` is called where the server has forgotten the pictures themselves, and gives them again.
 */
export async function teach(verb, items, { resend, flags = {} } = {}) {
  let chosen = items;
  const send = (more) => post(verb, body(verb, chosen, { ...flags, ...more }));
  for (let again = true; ; ) {
    try {
      return await settled(await send({}), chosen);
    } catch (error) {
      if (error.kind === "UnknownImage" && resend && again) {
        again = false;
        await resend();
        continue;
      }
      if (error.kind !== "GateRefused") throw error;
      const choice = await refusal(error, chosen, send);
      if (!choice) return null;
      if (choice.update) return settled(choice.update, chosen);
      const out = new Set(choice.without);
      chosen = chosen.filter((each) => !out.has(each.image));
      if (!chosen.length) {
        say("Nothing was left to teach, and nothing has changed");
        return null;
      }
    }
  }
}

function body(verb, chosen, flags) {
  if (chosen.some((each) => !each.image)) {
    return formOf(chosen.map((each) => [each.file, each.file.name]), chosen.map((each) => each.label), flags);
  }
  return { [FIELD[verb]]: chosen.map(({ image, label }) => ({ image, label })), ...flags };
}

async function settled(update, taught) {
  // Whoever waits for the answer sees it first; the rest of the page follows.
  setTimeout(() => refresh("here").catch(() => null));
  return { ...update, taught };
}

/**
 * Teach many items one label. A single one is said to be so, and is from now on. Of several, those
 * that are new are learned, for a name given in bulk may be wrong for some and the gate shall doubt
 * them; those that it remembers (`remembered`) are corrected. All of it or nothing.
 * Resolves to the updates, or to null where nobody wanted it in the end.
 */
export async function teachMany(items, options = {}) {
  const known = items.filter((each) => each.remembered);
  const fresh = items.filter((each) => !each.remembered);
  if (items.length === 1 || !fresh.length) {
    const update = await teach("correct", items, options);
    return update && [update];
  }
  const learned = await teach("learn", fresh, options);
  if (!learned || !known.length) return learned && [learned];
  let corrected = null;
  try {
    corrected = await teach("correct", known, options);
  } finally {
    if (!corrected && learned.event) await change("undo", { event: learned.event });
  }
  return corrected && [learned, corrected];
}

/** Take back what `teachMany` did, the last first; resolves to whether all of it was. */
export async function undoMany(updates) {
  for (const update of [...updates].reverse()) if (update.event && !(await undo(update.event))) return false;
  return true;
}

/**
 * Ask for a change that the gate may refuse; resolves to what the server says of it, or to null
 * where it was left as it is. `foresee`: how to find out which pictures it is about, where the
 * refusal does not say.
 */
export async function change(route, body = {}, foresee = null) {
  const send = (more) => post(route, { ...body, ...more });
  try {
    return await send({});
  } catch (error) {
    if (error.kind !== "GateRefused") throw error;
    return (await refusal(error, [], send, foresee))?.update ?? null;
  }
}

/** Take back one event, and say so; resolves to the update, or to null where it was left. */
export async function undo(event) {
  const update = await change("undo", event ? { event } : {});
  if (!update) return null;
  await refresh("here");
  say(update.summary, update.event ? { action: ["Redo", () => undo(update.event).catch((error) => say(error.message, { bad: true }))] } : {});
  return update;
}

/** What an update did, in a few words. */
export function inWords(update) {
  if (update.kind === "learn" && update.taught?.length > 1) {
    return `${counted(update.taught.length, "picture")} learned as “${update.taught[0].label}”`;
  }
  if (update.corrected?.length > 1) {
    return `${counted(update.corrected.length, "picture")} corrected to “${update.corrected[0].label}”`;
  }
  return update.summary;
}
